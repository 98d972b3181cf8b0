"""What goes wrong, against the real host: each fault has its outcome, and the kernel is usable afterwards.

Plan
- The ladder: interrupt; a cell that catches the first signal; one that ignores all; a time limit, likewise.
- Memory: an allocation over the limit fails inside the kernel; memory that the limit does not count kills it.
- Death: a kernel that is killed, crashes, exits; while it runs and while it is idle; what waits behind it.
- Restart and deletion while something runs.
- The host is killed in the middle of a cell: another one on the same workspace delivers what was spooled, says how it
  ended, and never runs it again; its kernels are gone with it.
- SIGTERM ends the host in order, with what ran told as ended.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path

import pytest
from tests.integration.kernel.host import LIBRARIES, Host, Refused, until

from carrel_wire.events import Error, Finished, Started, Stdout

FOREVER = "import time\nprint('up', flush=True)\nwhile True: time.sleep(0.01)"
DEAF = (
    "import signal, time\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nprint('up', flush=True)\n"
    "while True: time.sleep(0.01)"
)


async def start(host: Host, code: str, execution: str, **fields: object) -> asyncio.Task[Finished]:
    """Begin an execution and return when it has written its first line."""
    await host.run(code, execution=execution, until_type="stdout", **fields)
    return asyncio.create_task(host.outcome(code, execution=execution))


async def usable(host: Host) -> None:
    assert await host.text("print(6 * 7)") == "42\n"


async def test_an_interrupt_ends_the_cell_and_keeps_the_variables(host: Host) -> None:
    await host.run("a = 5")
    incarnation = (await host.main())["incarnation"]
    running = await start(host, FOREVER, "i1")
    began = time.monotonic()
    assert await host.call("POST", "/v1/kernels/main/interrupt") == {"kernel_id": "main", "was_busy": True}
    finished = await running
    assert time.monotonic() - began < 2  # before the second rung
    assert (finished.status, finished.lost_state) == ("interrupted", False)
    assert await host.text("print(a)") == "5\n"
    assert (await host.main())["incarnation"] == incarnation


async def test_an_interrupt_of_an_idle_kernel_does_nothing(host: Host) -> None:
    await host.run("a = 5")
    assert await host.call("POST", "/v1/kernels/main/interrupt") == {"kernel_id": "main", "was_busy": False}
    assert await host.text("print(a)") == "5\n"


async def test_the_second_rung_ends_a_cell_that_catches_the_first(host: Host) -> None:
    code = (
        "import time\nprint('up', flush=True)\n"
        "try:\n    while True: time.sleep(0.01)\nexcept KeyboardInterrupt: print('caught', flush=True)\n"
        "while True: time.sleep(0.01)"
    )
    running = await start(host, code, "stubborn")
    await host.call("POST", "/v1/kernels/main/interrupt")
    finished = await running
    assert (finished.status, finished.lost_state) == ("interrupted", False)
    assert finished.message == "sent SIGINT → SIGINT"


async def test_the_last_rung_kills_a_cell_that_ignores_signals(host: Host) -> None:
    before = (await host.main())["incarnation"]
    running = await start(host, DEAF, "deaf")
    await host.call("POST", "/v1/kernels/main/interrupt")
    finished = await running
    assert (finished.status, finished.lost_state) == ("kernel_died", True)
    assert finished.message
    assert "SIGINT → SIGINT → SIGKILL" in finished.message
    await usable(host)
    assert (await host.main())["incarnation"] != before


async def test_a_time_limit_interrupts(host: Host) -> None:
    await host.run("a = 5")
    finished = await host.outcome(FOREVER, timeout_seconds=0.3)
    assert (finished.status, finished.lost_state) == ("timeout", False)
    assert finished.wall_seconds >= 0.3
    assert await host.text("print(a)") == "5\n"


async def test_a_time_limit_kills_in_the_end(host: Host) -> None:
    finished = await host.outcome(DEAF, timeout_seconds=0.3)
    assert (finished.status, finished.lost_state) == ("timeout", True)
    await usable(host)


async def test_an_allocation_over_the_limit_is_an_outcome_and_the_kernel_lives(tmp_path: Path) -> None:
    async with Host.running(tmp_path) as host:
        await host.bind(memory_limit_bytes=512 * 1024 * 1024)
        await host.run("a = 5")
        events = await host.run("x = 1\nhog = bytearray(2 * 1024 ** 3)")
        assert [event.name for event in events if isinstance(event, Error)] == ["MemoryError"]
        finished = events[-1]
        assert isinstance(finished, Finished)
        assert (finished.status, finished.lost_state) == ("out_of_memory", False)
        assert finished.message
        assert "the limit is 512 MiB" in finished.message
        assert "line 2" in finished.message
        assert await host.text("print(a)") == "5\n"


async def test_what_libraries_map_and_do_not_use_is_not_counted(tmp_path: Path) -> None:
    """pyarrow's allocator maps 1 GiB for the first text, and each of a dozen threads 8 MiB for its stack."""
    code = (
        "import numpy as np, pandas as pd\nframe = pd.DataFrame({'name': ['Ada', 'Grace'] * 1000})\n"
        "array = np.ones(60 << 17)\nprint(frame.name.str.len().sum(), array.nbytes >> 20)"
    )
    async with Host.running(tmp_path, LIBRARIES) as host:
        await until(lambda: _warm(host), what="imports")
        await host.bind(memory_limit_bytes=256 * 1024 * 1024)
        assert await host.text(code) == "8000 60\n"
        counted = "import resource; print(resource.getrlimit(resource.RLIMIT_DATA)[1] >> 20)"
        assert 256 < int(await host.text(counted)) < 512  # the arena was not made, so nothing else may use its room
        finished = await host.outcome("hog = []\nwhile True: hog.append(bytearray(1024 * 1024))")
        assert (finished.status, finished.lost_state) == ("out_of_memory", False)
        await usable(host)


async def _warm(host: Host) -> bool:
    return (await host.call("GET", "/v1/state"))["warm"]


async def test_growing_without_end_is_an_outcome_and_the_kernel_can_clean_up(tmp_path: Path) -> None:
    async with Host.running(tmp_path) as host:
        await host.bind(memory_limit_bytes=512 * 1024 * 1024)
        grow = "hog = []\nwhile True: hog.append(bytearray(1024 * 1024))"
        for _ in range(2):  # the second time shows that the reserve was taken back
            finished = await host.outcome(grow)
            assert (finished.status, finished.lost_state) == ("out_of_memory", False)
            await usable(host)
            assert await host.text("print(len(hog) > 100); hog = None") == "True\n"


async def test_a_kernel_whose_memory_stays_full_is_replaced(tmp_path: Path) -> None:
    async with Host.running(tmp_path) as host:
        await host.bind(memory_limit_bytes=512 * 1024 * 1024)
        await host.run("hog = []")
        grow = "while True: hog.append(bytearray(1024 * 1024))"
        assert (await host.outcome(grow)).lost_state is False
        finished = await host.outcome(grow)
        assert (finished.status, finished.lost_state) == ("out_of_memory", True)
        await usable(host)


async def test_memory_that_the_limit_does_not_count_kills_the_kernel(tmp_path: Path) -> None:
    async with Host.running(tmp_path) as host:
        await host.bind(memory_limit_bytes=256 * 1024 * 1024)
        code = (
            "import mmap, time\nshared = mmap.mmap(-1, 400 * 1024 * 1024)\n"
            "for at in range(0, len(shared), 4096): shared[at] = 1\nwhile True: time.sleep(0.01)"
        )
        finished = await host.outcome(code)
        assert (finished.status, finished.lost_state) == ("out_of_memory", True)
        assert finished.message
        assert "killed" in finished.message
        await usable(host)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "was killed by SIGKILL"),
        ("import ctypes; ctypes.string_at(0)", "was killed by SIGSEGV"),
        ("import os; os._exit(3)", "ended with code 3"),
    ],
)
async def test_a_kernel_that_dies_is_an_outcome_and_is_replaced(host: Host, code: str, message: str) -> None:
    before = await host.main()
    wait = "import os, time\nprint('last words', flush=True)\nwhile not os.path.exists('go'): time.sleep(0.01)\n"
    await host.run(wait + code, execution="dying", until_type="stdout")
    (host.workspace / "go").touch()
    events = await host.run(wait + code, execution="dying")
    assert "".join(event.text for event in events if isinstance(event, Stdout)) == "last words\n"
    finished = events[-1]
    assert isinstance(finished, Finished)
    assert (finished.status, finished.lost_state) == ("kernel_died", True)
    assert finished.message
    assert message in finished.message
    await usable(host)
    after = await host.main()
    assert after["incarnation"] != before["incarnation"]
    assert after["restarts"] == 1


async def test_a_kernel_that_dies_before_it_could_say_so_had_started(host: Host) -> None:
    events = await host.run("import os; os._exit(3)")
    assert [type(event) for event in events] == [Started, Finished]
    await usable(host)


async def test_what_waits_behind_a_dead_kernel_is_not_run(host: Host) -> None:
    running = await start(host, FOREVER, "dying")
    waiting = asyncio.create_task(host.outcome("open('ran', 'w')", execution="waiting"))
    await until(lambda: _knows(host, "waiting"))
    os.kill((await host.main())["pid"], signal.SIGKILL)
    assert (await running).status == "kernel_died"
    finished = await waiting
    assert (finished.status, finished.lost_state) == ("kernel_died", True)
    assert not (host.workspace / "ran").exists()


async def test_an_idle_kernel_that_dies_is_replaced(host: Host) -> None:
    await usable(host)
    before = await host.main()
    os.kill(before["pid"], signal.SIGKILL)

    async def replaced() -> bool:
        return (await host.main())["incarnation"] != before["incarnation"]

    await until(replaced)
    await usable(host)


async def test_restart_ends_what_runs_and_loses_the_variables(host: Host) -> None:
    before = await host.main()
    await host.run("a = 5")
    running = await start(host, FOREVER, "restarted")
    after = await host.call("POST", "/v1/kernels/main/restart")
    finished = await running
    assert (finished.status, finished.lost_state, finished.message) == ("kernel_died", True, "the kernel was restarted")
    assert after["incarnation"] != before["incarnation"]
    assert (after["execution_state"], after["execution_count"], after["current_execution"]) == ("idle", 0, None)
    assert (await host.outcome("a")).status == "error"


async def test_contexts_are_apart_share_the_files_and_can_be_deleted(host: Host) -> None:
    await host.run("a = 1; open('f', 'w').write('shared')")
    assert (await host.call("POST", "/v1/kernels", json={"id": "second"}))["id"] == "second"
    with pytest.raises(Refused) as refused:
        await host.call("POST", "/v1/kernels", json={"id": "second"})
    assert (refused.value.status, refused.value.code) == (409, "kernel_exists")
    for bad in ("", "..", "a/b", "a b", "-", "x" * 65):
        with pytest.raises(Refused) as refused:
            await host.call("POST", "/v1/kernels", json={"id": bad})
        assert (refused.value.status, refused.value.code) == (400, "bad_request")
    assert (await host.outcome("a", kernel="second")).status == "error"
    assert await host.text("print(open('f').read())", kernel="second") == "shared\n"
    await host.run("1", kernel="second", execution="e1")
    with pytest.raises(Refused) as refused:
        await host.run("1", kernel="main", execution="e1")
    assert (refused.value.status, refused.value.code) == (409, "other_kernel")
    assert [item["id"] for item in await host.call("GET", "/v1/kernels")] == ["main", "second"]
    pid = (await host.call("GET", "/v1/kernels/second"))["pid"]
    await host.run(FOREVER, kernel="second", execution="e2", until_type="stdout")
    await host.call("DELETE", "/v1/kernels/second")
    assert pid not in running_processes()
    # What it put out is still there for whoever has not read it.
    (*_, finished) = await host.events("GET", "/v1/kernels/second/executions/e2/events")
    assert isinstance(finished, Finished)
    assert finished.message == "the kernel was deleted"
    with pytest.raises(Refused) as refused:
        await host.call("DELETE", "/v1/kernels/second")
    assert refused.value.code == "kernel_not_found"


async def test_a_killed_host_loses_nothing_that_came_out_and_runs_nothing_twice(host: Host) -> None:
    code = (
        "import time\nopen('runs', 'a').write('x')\nprint('before', flush=True)\n"
        "open('ready', 'w').close()\nwhile True: time.sleep(0.01)"
    )
    done = await host.run("print('done')", execution="done")
    acknowledged = await host.run("1", execution="acknowledged")
    await host.ack("acknowledged", acknowledged[-1].n)
    seen = await host.run(code, execution="cut", until_type="stdout")
    pid = (await host.main())["pid"]
    await host.restart_program(signal.SIGKILL)
    await until(lambda: not Path(f"/proc/{pid}").exists() or _is_zombie(pid), what="the end of the kernel")

    assert (await host.state())["unacknowledged"] == []  # nobody's until it is bound
    assert (await host.bind())["already"] is False
    left = {item["id"]: item for item in (await host.state())["unacknowledged"]}
    assert set(left) == {"done", "cut"}
    assert left["cut"]["finished"] is True
    assert left["cut"]["code"] == code

    again = await host.run(code, execution="cut")
    assert again[: len(seen)] == seen
    assert isinstance(again[0], Started)
    finished = again[-1]
    assert isinstance(finished, Finished)
    assert (finished.status, finished.lost_state) == ("kernel_died", True)
    assert await host.events("GET", f"/v1/kernels/main/executions/cut/events?after={seen[-1].n}") == again[len(seen) :]
    assert await host.run("print('done')", execution="done") == done
    assert (host.workspace / "runs").read_text() == "x"
    with pytest.raises(Refused) as refused:
        await host.run("1", execution="acknowledged")
    assert refused.value.code == "already_acknowledged"
    await usable(host)


async def test_a_host_that_is_killed_twice_tells_the_same_end(host: Host) -> None:
    await host.run(FOREVER, execution="cut", until_type="stdout")
    await host.restart_program(signal.SIGKILL)
    await host.bind()
    first = await host.run(FOREVER, execution="cut")
    await host.restart_program(signal.SIGKILL)
    await host.bind()
    assert await host.run(FOREVER, execution="cut") == first


async def test_sigterm_tells_the_end_of_what_runs_and_exits_with_0(host: Host) -> None:
    running = await start(host, FOREVER, "stopped")
    assert host.process
    host.process.terminate()
    finished = await running
    assert (finished.status, finished.message) == ("kernel_died", "the kernel host was stopped")
    async with asyncio.timeout(30):
        assert await host.process.wait() == 0


def running_processes() -> set[int]:
    return {int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()}


async def _knows(host: Host, execution: str) -> bool:
    return execution in [item["id"] for item in (await host.state())["unacknowledged"]]


def _is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True
