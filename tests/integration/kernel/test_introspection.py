"""Questions to a kernel, against the real host: variables, completion, documentation, state, metrics.

Plan
- Variables: sorted, without modules, functions and underscores; shapes, types, previews; many; a busy kernel; no trace
  is left in the kernel.
- Hostile objects, which sleep, allocate, recurse, print, exit, raise and change the namespace: listing variables runs
  none of their code; completion and documentation end within the deadline, and the kernel keeps its variables.
- A cell that comes while a question hangs is not interrupted by it; a question that withstands everything costs the
  kernel, also one that could not say what it works on; one that forgot a question and does nothing is kept.
- Completion counts characters, not bytes; documentation is found or not.
- The state and the metrics say what happens.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from tests.integration.kernel.host import Host, Refused, until

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module")
async def host(lasting: Host) -> AsyncIterator[Host]:
    yield lasting
    await lasting.clean()


COMPLETE = "/v1/kernels/main/complete"
INSPECT = "/v1/kernels/main/inspect"
VARIABLES = "/v1/kernels/main/variables"


async def test_variables_are_described(host: Host) -> None:
    await host.run(
        "import os, numpy as np, pandas as pd\n"
        "def function(): ...\nclass Class: ...\n_hidden = 1\n"
        "number = 5\ntext = 'x' * 1000\nitems = [1, 2]\narray = np.zeros((3, 4))\n"
        "frame = pd.DataFrame({'a': range(100), 'b': 'x'})\nseries = frame['a']\n"
        "class Bad:\n    def __repr__(self): raise RuntimeError\n    shape = property(lambda self: 1 / 0)\nbad = Bad()"
    )
    reply = await host.call("GET", VARIABLES)
    found = {item["name"]: item for item in reply["variables"]}
    assert list(found) == ["array", "bad", "frame", "items", "number", "series", "text"]
    assert reply["truncated"] is False
    assert (found["number"]["type"], found["number"]["summary"]) == ("int", "5")
    assert len(found["text"]["summary"]) == 200
    assert found["array"]["shape"] == [3, 4]
    assert found["array"]["dtypes"] == {"": "float64"}
    assert found["array"]["memory_bytes"] == 96
    assert found["frame"]["shape"] == [100, 2]
    assert set(found["frame"]["dtypes"]) == {"a", "b"}
    assert found["frame"]["preview"]["columns"] == ["a", "b"]
    assert found["frame"]["preview"]["rows"][1] == [1, "x"]
    assert found["series"]["shape"] == [100]
    assert found["bad"]["type"] == "Bad"
    before = await host.main()
    assert (await host.call("GET", VARIABLES)) == reply
    assert (await host.main())["execution_count"] == before["execution_count"]
    assert await host.text("print([name for name in dir() if 'carrel' in name or 'variables' in name])") == "[]\n"


async def test_many_variables_are_cut(host: Host) -> None:
    await host.run("for number in range(600): globals()[f'v{number:03}'] = number")
    reply = await host.call("GET", VARIABLES)
    assert reply["truncated"] is True
    assert len(reply["variables"]) == 500


HOSTILE = """
import sys, time
deeds = {
    'sleep': lambda: time.sleep(1e6),
    'spin': lambda: any(False for _ in iter(int, 1)),
    'recurse': lambda: deeds['recurse'](),
    'allocate': lambda: bytearray(10 ** 15),
    'write': lambda: print('written'),
    'leave': lambda: sys.exit(3),
    'interrupt': lambda: (_ for _ in ()).throw(KeyboardInterrupt),
    'change': lambda: globals().pop('kept', None),
}
methods = ('__repr__ __str__ __len__ __getattr__ __dir__ __iter__ __eq__ __sizeof__ __getitem__ __contains__ __bool__ '
           '__format__ _repr_html_ _repr_mimebundle_').split()
properties = 'shape dtype nbytes __class__ __doc__'.split()
def trap(deed):
    def sprung(*_, **__):
        traces.append(deed)
        return deeds[deed]()
    meta = type('Meta', (type,), dict.fromkeys(('__instancecheck__', '__getattribute__', '__repr__'), sprung))
    members = dict.fromkeys(methods, sprung) | dict.fromkeys(properties, property(sprung))
    return object.__new__(type.__call__(meta, 'Trap', (), members | {'__hash__': object.__hash__}))
traces, kept = [], 1
globals().update({f'to_{deed}': trap(deed) for deed in deeds})
"""
DEEDS = {"sleep", "spin", "recurse", "allocate", "write", "leave", "interrupt", "change"}


async def test_listing_variables_runs_no_code_of_the_users(host: Host) -> None:
    await host.run(HOSTILE)
    incarnation = (await host.main())["incarnation"]
    found = {item["name"]: item for item in (await host.call("GET", VARIABLES))["variables"]}
    traps = {f"to_{deed}" for deed in DEEDS}
    assert traps | {"deeds", "kept", "methods", "properties", "traces"} == set(found)
    assert {found[name]["summary"] for name in traps} == {"Trap"}
    assert await host.text("print(traces, kept)") == "[] 1\n"
    assert (await host.main())["incarnation"] == incarnation


async def test_completion_and_documentation_of_hostile_objects_end(host: Host) -> None:
    await host.run(HOSTILE)
    incarnation = (await host.main())["incarnation"]
    for deed in sorted(DEEDS - {"change"}):
        for path, code in ((COMPLETE, f"to_{deed}.a"), (INSPECT, f"to_{deed}")):
            async with asyncio.timeout(10):
                assert set(await host.call("POST", path, json={"code": code, "cursor_pos": len(code)}))
    assert await host.text("print(kept, sorted(set(traces)))") == f"1 {sorted(DEEDS - {'change'})}\n"
    assert (await host.main())["incarnation"] == incarnation


SLOW = "import time\nclass Slow:\n    def __dir__(self):\n        {}\nslow = Slow()"
"""A class whose completion takes long, by the statement in the braces."""
ASKED = {"code": "slow.a", "cursor_pos": 6}


async def test_the_users_own_alarm_survives_a_question(host: Host) -> None:
    await host.run(SLOW.format("time.sleep(1e6)") + "\nimport signal\nrings = []")
    await host.run(
        "signal.signal(signal.SIGALRM, lambda *_: rings.append(1)); signal.setitimer(signal.ITIMER_REAL, 0.5, 0)"
    )
    assert (await host.call("POST", COMPLETE, json=ASKED))["matches"] == []
    waited = (
        "import time\nuntil = time.monotonic() + 60\nwhile not rings and time.monotonic() < until: time.sleep(0.01)"
    )
    assert await host.text(f"{waited}\nprint(rings)") == "[1]\n"


async def test_a_cell_behind_a_question_that_hangs_is_not_interrupted(host: Host) -> None:
    deaf = "import signal; signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())"
    await host.run(SLOW.format(f"{deaf}; open('asked', 'w').close(); time.sleep(4)"))
    question = asyncio.create_task(host.call("POST", COMPLETE, json=ASKED))
    await until((host.workspace / "asked").exists)  # and no alarm will help
    assert await host.text("import time; time.sleep(0.2); print('whole')") == "whole\n"
    with pytest.raises(Refused) as refused:
        await question
    assert (refused.value.status, refused.value.code) == (504, "deadline_exceeded")


MUTE = """
from ipykernel.kernelbase import Kernel
say = Kernel._publish_status
def say_of_cells(self, status, channel, parent=None):
    if (parent or self.get_parent(channel))["header"].get("msg_type") == "execute_request":
        say(self, status, channel, parent)
Kernel._publish_status = say_of_cells
"""
"""The kernel does not say any more that it works on questions."""


@pytest.mark.parametrize("mute", ["", MUTE], ids=["", "without a word"])
async def test_a_question_that_withstands_everything_costs_the_kernel(tmp_path: Path, mute: str) -> None:
    async with Host.running(tmp_path, "--hung-seconds=1") as host:
        await host.bind()
        deaf = "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM, signal.SIGINT})"
        immune = f"import ctypes, signal; {deaf}; ctypes.PyDLL(None).sleep(3600)"  # nothing of Python runs beside it
        await host.run(f"{SLOW.replace('{}', immune)}\n{mute}")
        incarnation = (await host.main())["incarnation"]
        with pytest.raises(Refused) as refused:
            await host.call("POST", COMPLETE, json=ASKED)
        assert (refused.value.status, refused.value.code) == (504, "deadline_exceeded")
        assert await host.text("print('on')") == "on\n"
        assert (await host.main())["incarnation"] != incarnation


async def test_a_kernel_that_forgets_a_question_and_says_nothing_is_kept(tmp_path: Path) -> None:
    async with Host.running(tmp_path, "--hung-seconds=1") as host:
        await host.bind()
        drop = "async def drop(*args): ...\nget_ipython().kernel.shell_handlers['complete_request'] = drop"
        await host.run(f"kept = 'kept'\n{drop}\n{MUTE}")
        with pytest.raises(Refused) as refused:
            await host.call("POST", COMPLETE, json=ASKED)
        assert refused.value.code == "deadline_exceeded"
        assert await host.text("print(kept)") == "kept\n"


async def test_a_busy_kernel_says_so(host: Host) -> None:
    code = "import time\nprint('up', flush=True)\nwhile True: time.sleep(0.01)"
    await host.run(code, execution="busy", until_type="stdout")
    for method, path, body in (
        ("GET", VARIABLES, None),
        ("POST", COMPLETE, {"code": "x", "cursor_pos": 1}),
        ("POST", INSPECT, {"code": "x", "cursor_pos": 1}),
    ):
        with pytest.raises(Refused) as refused:
            await host.call(method, path, json=body)
        assert (refused.value.status, refused.value.code) == (409, "kernel_busy")
    state = await host.state()
    assert state["busy"] is True
    assert state["kernels"][0]["current_execution"] == "busy"
    assert state["kernels"][0]["execution_state"] == "busy"
    await host.call("POST", "/v1/kernels/main/interrupt")
    await host.run(code, execution="busy")
    assert (await host.state())["busy"] is False


async def test_questions_at_once_are_all_answered(host: Host) -> None:
    await host.run("alpha = 1")
    replies = await asyncio.gather(
        *(host.call("POST", COMPLETE, json={"code": "alp", "cursor_pos": 3}) for _ in range(5)),
        *(host.call("GET", VARIABLES) for _ in range(5)),
    )
    assert all("alpha" in reply["matches"] for reply in replies[:5])
    assert all(reply["variables"][0]["name"] == "alpha" for reply in replies[5:])


async def test_completion_counts_characters(host: Host) -> None:
    await host.run("größe = 1\nlength = 2")
    reply = await host.call("POST", COMPLETE, json={"code": "'😀'; größ", "cursor_pos": 9})
    assert reply["matches"] == ["größe"]
    assert (reply["cursor_start"], reply["cursor_end"]) == (5, 9)
    for cursor in (-5, 10_000):  # moved into the code
        assert "matches" in await host.call("POST", COMPLETE, json={"code": "len", "cursor_pos": cursor})


async def test_documentation_is_found_or_not(host: Host) -> None:
    found = await host.call("POST", INSPECT, json={"code": "len", "cursor_pos": 3})
    assert found["found"] is True
    assert "Return the number of items" in found["text"]
    assert await host.call("POST", INSPECT, json={"code": "nowhere", "cursor_pos": 7}) == {"found": False, "text": ""}


async def test_the_state_tells_what_is_used(fresh: Host) -> None:
    await fresh.call("PUT", "/v1/files/data/f", data=b"x" * 1000)
    await fresh.run("hog = bytearray(50_000_000)\nfor _ in range(10**6): pass")
    state = await fresh.state()
    (kernel,) = state["kernels"]
    assert state["disk_used_bytes"] >= 1000
    assert kernel["memory_bytes"] > 50_000_000
    assert kernel["peak_memory_bytes"] >= kernel["memory_bytes"]
    assert kernel["cpu_seconds"] > 0
    assert kernel["restarts"] == 0
    assert state["last_activity"] <= time.time()


async def test_the_metrics_count(fresh: Host) -> None:
    await fresh.run("1", execution="one")
    await fresh.run("1/0")
    await fresh.ack("one", 3)
    with pytest.raises(Refused):
        await fresh.run("1", execution="one")
    async with fresh.request("GET", "/metrics") as reply:
        text = await reply.text()
    values = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert values['carrel_kernel_executions_total{status="ok"}'] == "1.0"
    assert values['carrel_kernel_executions_total{status="error"}'] == "1.0"
    assert values['carrel_kernel_requests_refused_total{code="already_acknowledged"}'] == "1.0"
    assert values["carrel_kernel_bound"] == "1.0"
    assert values["carrel_kernel_kernels"] == "1.0"
    assert values["carrel_kernel_unacknowledged_executions"] == "1.0"
    assert float(values["carrel_kernel_spool_bytes"]) > 0
    assert sum(float(value) for name, value in values.items() if name.startswith("carrel_kernel_starts_total")) == 1
