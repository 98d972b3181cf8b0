"""What kernels put out, against the real host: all of it arrives, within bounds, whatever it is.

Plan
- 10 MB of text arrive whole; a million small writes, a thousand displays, and thousands of writes to both streams in
  turn do, too. The kernel itself keeps no copy of it.
- Over a limit, of the execution, of one message and of the session: one `truncated` with the limit and the bytes that
  are missing, which are in a file that can be read. What is too large for any message is told, and nothing around it is
  lost. A full disk is a limit, too, for events, uploads and the file; what frees it can still be run.
- Text that is no Unicode, NaN, huge integers, deep nesting, and objects that raise while they are shown.
- (A kernel that speaks nonsense on its own sockets is in `test_hostile`.)
- Output of forks, subprocesses and threads; a host that is flooded still answers.
- Tables come as data beside their HTML; figures as PNG, and as data when asked.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from tests.integration.kernel.host import Host, Refused
from tests.integration.kernel.surroundings import small_disk

from carrel_wire.events import Artifact, Display, Error, Finished, Result, Stderr, Stdout, Truncated

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module")
async def host(lasting: Host) -> AsyncIterator[Host]:
    yield lasting
    await lasting.clean()


TABLE = "application/vnd.carrel.table+json"
CHART = "application/vnd.carrel.chart+json"


async def test_ten_megabytes_arrive_whole(host: Host) -> None:
    text = await host.text("for number in range(100_000): print(f'{number:099}')")
    assert text == "".join(f"{number:099}\n" for number in range(100_000))


async def test_a_million_small_writes_arrive_whole(host: Host) -> None:
    text = await host.text("import sys\nfor _ in range(1_000_000): sys.stdout.write('x')")
    assert text == "x" * 1_000_000


async def test_writes_to_both_streams_in_turn_arrive_in_order(host: Host) -> None:
    code = "import sys\nfor number in range(3000):\n    print(number)\n    print(-number, file=sys.stderr)"
    events = await host.run(code)
    texts = [(type(event), event.text) for event in events if isinstance(event, Stdout | Stderr)]
    assert texts == [pair for n in range(3000) for pair in ((Stdout, f"{n}\n"), (Stderr, f"{-n}\n"))]


async def test_the_kernel_keeps_no_copy_of_what_was_printed(host: Host) -> None:
    await host.text("print('x' * 1000)\n41 + 1")
    kept = await host.text("print(get_ipython().history_manager.outputs)")
    assert "42" in kept
    assert "xxx" not in kept


async def test_one_line_of_twenty_megabytes_arrives_in_pieces(host: Host) -> None:
    events = await host.run("print('x' * 20_000_000)")
    texts = [event.text for event in events if isinstance(event, Stdout)]
    assert sum(map(len, texts)) == 20_000_001
    assert max(map(len, texts)) <= 64 * 1024


async def test_a_thousand_displays_arrive_in_order(host: Host) -> None:
    events = await host.run("from IPython.display import display\nfor number in range(1000): display(number)")
    shown = [event.data["text/plain"] for event in events if isinstance(event, Display)]
    assert shown == [str(number) for number in range(1000)]


async def test_output_over_the_limit_is_cut_once_and_the_rest_is_in_a_file(tmp_path: Path) -> None:
    async with Host.running(tmp_path, "--output-bytes=100000") as host:
        await host.bind()
        events = await host.run(
            "print('é' * 80_000)\nfrom IPython.display import display, HTML\ndisplay(HTML('<b>left out</b>'))\n1/0",
            execution="long",
        )
        text = "".join(event.text for event in events if isinstance(event, Stdout))
        (truncated,) = (event for event in events if isinstance(event, Truncated))
        assert not any(isinstance(event, Display) for event in events)
        assert [event.name for event in events if isinstance(event, Error)] == ["ZeroDivisionError"]
        assert truncated.path == ".carrel/overflow/long.txt"
        assert truncated.limit_bytes == 100_000
        assert 0 < len(text.encode()) <= 100_000
        async with host.request("GET", f"/v1/files/{truncated.path}") as reply:
            rest = await reply.text()
        assert (text + rest).startswith("é" * 80_000 + "\n")
        assert "<b>left out</b>" in rest
        finished = events[-1]
        assert isinstance(finished, Finished)
        assert finished.bytes_out > 160_000
        assert truncated.omitted_bytes >= 160_001 - len(text.encode())


async def test_a_large_display_keeps_its_text_and_the_whole_is_in_a_file(tmp_path: Path) -> None:
    async with Host.running(tmp_path, "--message-bytes=1000000") as host:
        await host.bind()
        events = await host.run(
            "from IPython.display import display\n"
            "display({'text/plain': 'small', 'text/html': 'x' * 20_000_000}, raw=True, display_id='d')\nprint('on')",
            execution="large",
        )
        (shown,) = (event for event in events if isinstance(event, Display))
        assert (shown.data, shown.display_id) == ({"text/plain": "small"}, "d")
        assert [event.text for event in events if isinstance(event, Stdout)] == ["on\n"]
        (cut,) = (event for event in events if isinstance(event, Truncated))
        assert (cut.reason, cut.limit_bytes, cut.path) == ("message", 1_000_000, ".carrel/overflow/large.txt")
        async with host.request("GET", f"/v1/files/{cut.path}") as reply:
            whole = json.loads(await reply.read())
        assert whole["data"]["text/html"] == "x" * 20_000_000
        assert abs(cut.omitted_bytes - 20_000_000) < 100
        async with host.request("GET", "/metrics") as reply:
            assert 'carrel_kernel_truncated_total{reason="message"} 1.0' in await reply.text()


async def test_a_message_that_the_host_refuses_is_told_and_costs_nothing_around_it(host: Host) -> None:
    events = await host.run(
        "from IPython.display import display\nprint('before')\n"
        "display({'text/plain': 'small', 'text/html': 'x' * 80_000_000}, raw=True)\nprint('after')"
    )
    assert "".join(event.text for event in events if isinstance(event, Stdout)) == "before\nafter\n"
    assert [event.data for event in events if isinstance(event, Display)] == [{"text/plain": "small"}]
    (cut,) = (event for event in events if isinstance(event, Truncated))
    assert (cut.reason, cut.path) == ("message", None)
    assert cut.omitted_bytes >= 80_000_000


async def test_the_sessions_limit_cuts_each_further_execution(tmp_path: Path) -> None:
    async with Host.running(tmp_path, "--session-output-bytes=100000") as host:
        await host.bind()
        await host.call("POST", "/v1/kernels", json={"id": "second"})
        assert await host.text("print('x' * 60_000)") == "x" * 60_000 + "\n"
        for kernel in ("second", "main"):
            events = await host.run("print('y' * 60_000)\n1/0", kernel=kernel)
            (cut,) = (event for event in events if isinstance(event, Truncated))
            assert (cut.reason, cut.limit_bytes) == ("session", 100_000)
            shown = "".join(event.text for event in events if isinstance(event, Stdout))
            assert cut.path
            assert shown + (host.workspace / cut.path).read_text() == "y" * 60_000 + "\n"
            assert cut.omitted_bytes == 60_001 - len(shown)
            assert [event.name for event in events if isinstance(event, Error)] == ["ZeroDivisionError"]
        assert (await host.outcome("z = 1")).status == "ok"


async def test_on_a_full_disk_the_host_writes_no_more_than_it_must(tmp_path: Path) -> None:
    async with Host.running(tmp_path, "--output-bytes=3000000", within=small_disk(tmp_path / "workspace", 32)) as host:
        await host.bind()
        await host.run("open('ballast', 'wb').write(bytes(29 * 1024 ** 2))")
        with pytest.raises(Refused) as refused:
            await host.call("PUT", "/v1/files/upload", data=b"x")
        assert (refused.value.status, refused.value.code) == (507, "disk_full")
        events = await host.run("for _ in range(40): print('x' * 100_000)\n1/0")
        (cut,) = (event for event in events if isinstance(event, Truncated))
        assert (cut.reason, cut.path) == ("disk", None)
        shown = sum(len(event.text) for event in events if isinstance(event, Stdout))
        assert 500_000 < shown <= 1024 * 1024
        assert shown + cut.omitted_bytes == 40 * 100_001
        assert any(isinstance(event, Error) for event in events)
        assert (await host.outcome("import os; os.remove('ballast')")).status == "ok"
        await host.call("PUT", "/v1/files/upload", data=b"x")
        (cut,) = (event for event in await host.run("print('x' * 4_000_000)") if isinstance(event, Truncated))
        assert (cut.reason, cut.limit_bytes) == ("execution", 3_000_000)
        assert cut.path


async def test_a_flood_is_bounded_and_the_host_goes_on_answering(tmp_path: Path) -> None:
    async with Host.running(tmp_path, "--output-bytes=1000000", "--overflow-bytes=2000000") as host:
        await host.bind()
        flood = asyncio.create_task(host.run("while True: print('x' * 1000)", timeout_seconds=3))
        for _ in range(20):
            async with asyncio.timeout(5):
                assert (await host.state())["session_uid"]
        events = await flood
        finished = events[-1]
        assert isinstance(finished, Finished)
        assert finished.status == "timeout"
        (truncated,) = (event for event in events if isinstance(event, Truncated))
        assert truncated.path
        assert (host.workspace / truncated.path).stat().st_size == 2_000_000
        assert host.process
        assert _resident_mib(host.process.pid) < 300
        assert await host.text("print('on')") == "on\n"


def _resident_mib(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096 // 1024**2


async def test_text_that_is_no_unicode_is_replaced(host: Host) -> None:
    events = await host.run(
        "import os, sys\nprint('\\ud800 \\udcff', flush=True)\nprint('\\0 \\x1b[31m \\u2028', flush=True)\n"
        "os.write(1, b'\\xff\\xfe raw')\n'\\udfff'"
    )
    text = "".join(event.text for event in events if isinstance(event, Stdout))
    assert "\0 \x1b[31m \u2028" in text
    text.encode()
    assert isinstance(events[-1], Finished)
    assert events[-1].status == "ok"


async def test_data_that_json_cannot_carry_is_replaced(host: Host) -> None:
    events = await host.run(
        "from IPython.display import display\n"
        "deep = []\nfor _ in range(500): deep = [deep]\n"
        "display({'application/json': {'nan': float('nan'), 'big': 10**400, 'int': 2**70}}, raw=True)\n"
        "display({'text/plain': 'deep', 'application/json': deep}, raw=True)\n"
        "display({'text/plain': b'bytes', 'image/png': object()}, raw=True)\nprint('on')"
    )
    finished = events[-1]
    assert isinstance(finished, Finished)
    assert "".join(event.text for event in events if isinstance(event, Stdout)) == "on\n"


async def test_objects_that_raise_while_they_are_shown(host: Host) -> None:
    events = await host.run("class Bad:\n    def __repr__(self): raise RuntimeError('no')\nBad()")
    assert isinstance(events[-1], Finished)
    assert any(isinstance(event, Error | Stderr) for event in events)
    assert await host.text("print('on')") == "on\n"


async def test_forks_subprocesses_and_threads_write_too(host: Host) -> None:
    code = (
        "import os, subprocess, sys, threading\n"
        "sys.stdout.write('before ')\n"
        "pid = os.fork()\n"
        "if pid == 0:\n    print('fork', flush=True)\n    os._exit(0)\n"
        "os.waitpid(pid, 0)\n"
        "subprocess.run(['echo', 'subprocess'], check=True)\n"
        "thread = threading.Thread(target=lambda: print('thread')); thread.start(); thread.join()\n"
    )
    events = await host.run(code)
    text = "".join(event.text for event in events if isinstance(event, Stdout))
    while "subprocess" not in text or "fork" not in text:  # they come by ways of their own, maybe with a later cell
        events = await host.run("import time; time.sleep(0.05)")
        text += "".join(event.text for event in events if isinstance(event, Stdout))
    for word in ("before", "fork", "subprocess", "thread"):  # each once; what comes between them is not decided
        assert text.count(word) == 1, text


async def test_tables_come_as_data(host: Host) -> None:
    events = await host.run(
        "import pandas as pd\npd.DataFrame({'n': range(60), 'when': pd.Timestamp('2026-01-02'), 'o': [object()] * 60})"
    )
    (result,) = (event for event in events if isinstance(event, Result))
    assert {"text/plain", "text/html", TABLE} <= set(result.data)
    table = result.data[TABLE]
    assert table["shape"] == [60, 3]
    assert [field["name"] for field in table["schema"]["fields"]] == ["n", "when", "o"]
    assert len(table["rows"]) == 50
    assert table["rows"][1][:2] == [1, "2026-01-02T00:00:00.000"]
    events = await host.run("import polars as pl\npl.DataFrame({'n': range(60), 's': ['x'] * 60})")
    (result,) = (event for event in events if isinstance(event, Result))
    assert {"text/plain", "text/html", TABLE} <= set(result.data)
    assert (result.data[TABLE]["shape"], result.data[TABLE]["rows"][59:], result.data[TABLE]["rows"][1]) == (
        [60, 2], [], [1, "x"],
    )  # fmt: skip


async def test_figures_come_as_png_and_as_data_when_asked(tmp_path: Path) -> None:
    draw = "import matplotlib.pyplot as plt\nplt.plot([1, 2], label='l'); plt.show()"
    async with Host.running(tmp_path) as host:
        await host.bind()
        (figure,) = (event for event in await host.run(draw) if isinstance(event, Display))
        assert base64.b64decode(figure.data["image/png"]).startswith(b"\x89PNG")
        assert CHART not in figure.data
        asked = await host.run(f"%env CARREL_CHART_DATA=1\n{draw}")
        (figure,) = (event for event in asked if isinstance(event, Display))
        assert figure.data["image/png"]
        (axes,) = figure.data[CHART]["axes"]
        assert axes["series"] == [{"kind": "line", "label": "l", "x": [0.0, 1.0], "y": [1, 2]}]
    (tmp_path / "other").mkdir()
    async with Host.running(tmp_path / "other") as host:
        await host.bind(env={"CARREL_CHART_DATA": "1"})
        (figure,) = (event for event in await host.run(draw) if isinstance(event, Display))
        assert CHART in figure.data


async def test_files_that_code_makes_are_reported_as_artifacts(host: Host) -> None:
    code = (
        "import os, pathlib\nfor name in ('a.txt', 'sub/b.txt', 'data/input.csv', '.hidden/c', '__pycache__/d'):\n"
        "    path = pathlib.Path(name); path.parent.mkdir(parents=True, exist_ok=True); path.write_text(name)"
    )
    found = {event.path: event for event in await host.run(code) if isinstance(event, Artifact)}
    assert set(found) == {"a.txt", "sub/b.txt"}
    assert found["a.txt"].size == 5
    assert found["a.txt"].sha256 == hashlib.sha256(b"a.txt").hexdigest()
    again = await host.run("open('a.txt', 'a').write('!'); os.remove('sub/b.txt')")
    assert [event.path for event in again if isinstance(event, Artifact)] == ["a.txt"]
    assert not [event for event in await host.run("1") if isinstance(event, Artifact)]
    await host.call("PUT", "/v1/files/uploaded.txt", data=b"not made by code")
    assert not [event for event in await host.run("1") if isinstance(event, Artifact)]
    many = await host.run("for n in range(201): open(f'many{n}', 'w').close()")
    assert not [event for event in many if isinstance(event, Artifact)]
