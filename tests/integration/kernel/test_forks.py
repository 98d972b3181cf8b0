"""Forked kernels on the real host: that they are as good as fresh ones, and what happens when there is no fork.

Plan
- A fork is the host's child, leads its own group, has its libraries imported, and shares no state with its siblings:
  random numbers, session, descriptors, environment.
- Libraries use the session's threads, although one was allowed while they were imported; figures show themselves.
- The zygote is killed, stopped, or a module starts threads: kernels go on, new ones are fresh and say why, and forks
  come back. (That nobody reads its memory is in `test_access`.)
- What kernels leave behind is reaped.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from tests.integration.kernel.host import LIBRARIES, Host, until
from tests.support.kernel_siege import children, is_zygote, started_at

from carrel_wire.events import Display


@pytest.fixture
async def unbound(tmp_path: Path) -> AsyncIterator[Host]:
    async with Host.running(tmp_path, LIBRARIES) as host:
        yield host


@pytest.fixture
async def host(unbound: Host) -> Host:
    await unbound.bind()
    return unbound


async def zygote_of(host: Host) -> int:
    """Return the zygote's process id, once it has imported everything."""
    await until(lambda: host.log.read_text().count("fork_server_loaded"), what="the zygote")
    assert host.process
    # A process that has just been forked has one thread, too; its parent is older.
    return min(filter(is_zygote, children(host.process.pid)), key=started_at)


async def data(host: Host, code: str, **options: Any) -> Any:
    return json.loads(await host.text(f"import json\n{code}", **options))


async def create(host: Host, kernel: str) -> dict[str, Any]:
    await host.call("POST", "/v1/kernels", json={"id": kernel})
    await host.text("pass", kernel=kernel)
    return await host.call("GET", f"/v1/kernels/{kernel}")


PROBE = """
import glob, os, random, sys
import numpy as np
print(json.dumps({
    "imported": sorted({"pandas", "matplotlib.pyplot", "sklearn"} & IMPORTED),
    "parent": os.getppid(), "group": os.getpgid(0) == os.getpid(), "session": os.getsid(0) == os.getpid(),
    "random": [random.random(), float(np.random.rand()), float(np.random.default_rng().random())],
    "session_id": get_ipython().kernel.session.session,
    "input": os.readlink("/proc/self/fd/0"),
    "files": [f for f in map(os.path.realpath, glob.glob("/proc/self/fd/*")) if f.endswith(".log")],
    "threads": [name for name in os.environ if name.endswith("_THREADS")],
    "argv": sys.argv,
}))
"""


async def test_a_fork_is_a_kernel_of_its_own(unbound: Host) -> None:
    host = unbound
    await zygote_of(host)
    await host.bind()
    found = []
    for kernel in ("main", "second"):
        if kernel != "main":
            await create(host, kernel)
        await host.text("import sys; IMPORTED = set(sys.modules)", kernel=kernel)
        found.append(await data(host, PROBE, kernel=kernel))
    assert host.process
    for one in found:
        assert one["imported"] == ["matplotlib.pyplot", "pandas", "sklearn"]
        assert one["parent"] == host.process.pid
        assert one["group"]
        assert one["session"]
        assert one["input"] == "/dev/null"
        assert one["files"] == []
        assert one["threads"] == []
        assert one["argv"] == ["kernel"]
    first, second = found
    assert first["session_id"] != second["session_id"]
    assert not set(first["random"]) & set(second["random"])
    assert (await host.main())["fresh_because"] is None
    assert (await host.state())["fresh_because"] is None


@pytest.mark.parametrize("cpus", [1, 2])
async def test_libraries_use_the_threads_of_the_session(unbound: Host, cpus: int) -> None:
    await zygote_of(unbound)
    await unbound.bind(cpu_limit=cpus)
    code = """
import os
from threadpoolctl import threadpool_info
print(json.dumps([{pool["num_threads"] for pool in threadpool_info()} == {%d}, os.environ["OMP_NUM_THREADS"]]))
"""
    assert await data(unbound, code % cpus) == [True, str(cpus)]


async def test_figures_show_themselves_and_the_session_may_choose_a_backend(unbound: Host, tmp_path: Path) -> None:
    await zygote_of(unbound)
    await unbound.bind()
    events = await unbound.run("import matplotlib.pyplot as plt\nplt.plot([1, 2])")
    assert any(isinstance(event, Display) and "image/png" in event.data for event in events)
    other = tmp_path / "other"
    other.mkdir()
    async with Host.running(other, LIBRARIES) as host:
        await zygote_of(host)
        await host.bind(env={"MPLBACKEND": "agg", "TZ": "Asia/Tokyo"})
        code = "import matplotlib.pyplot as plt, time\nplt.plot([1])\nprint(plt.get_backend().lower(), time.tzname[0])"
        assert await host.text(code) == "agg JST\n"


async def test_kernels_outlive_the_zygote_and_forks_come_back(unbound: Host) -> None:
    host = unbound
    pid = await zygote_of(host)
    await host.bind()
    await host.text("a = 5")
    running = asyncio.create_task(host.text("import time\ntime.sleep(1)\nprint(a)"))
    os.kill(pid, signal.SIGKILL)
    reason = await until(lambda: _reason(host), what="a reason")
    assert reason == "the fork server ended with code -9"
    assert await running == "5\n"
    # The spare was made before; whoever wants one more gets a fresh interpreter, and is told why.
    infos = [await create(host, f"k{number}") for number in range(2)]
    assert any(info["fresh_because"] == reason for info in infos) or not await _reason(host)
    await until(lambda: _forks(host), what="forks")
    assert await zygote_of(host) != pid
    await host.call("POST", "/v1/kernels/k0/restart")
    await host.call("POST", "/v1/kernels/k1/restart")
    assert await host.text("print(a)") == "5\n"


async def _reason(host: Host) -> str | None:
    return (await host.state())["fresh_because"]


async def _forks(host: Host) -> bool:
    return await _reason(host) is None


async def test_a_zygote_that_does_not_answer_is_replaced(unbound: Host) -> None:
    host = unbound
    pid = await zygote_of(host)
    os.kill(pid, signal.SIGSTOP)
    await host.bind()
    infos = [await create(host, f"k{number}") for number in range(2)]
    infos.append(await host.main())
    assert "the fork server did not answer" in {info["fresh_because"] for info in infos}
    await until(lambda: not Path(f"/proc/{pid}").exists(), what="its end")
    await until(lambda: _forks(host), what="forks")


async def test_orphans_of_a_cell_are_reaped(host: Host) -> None:
    """A daemon's parent is the host, which is no process 1 here."""
    code = "import os\nif os.fork() == 0:\n    if os.fork() == 0:\n        os._exit(0)\n    os._exit(0)\nos.wait()"
    for _ in range(3):
        await host.text(code)
    assert host.process
    await until(lambda: not _zombies(host.process.pid), what="an end of the zombies")  # type: ignore[union-attr]


def _zombies(parent: int) -> list[str]:
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    found: list[str] = []
    for child in children:
        with suppress(FileNotFoundError, ProcessLookupError):  # reaped between the two looks
            if " Z " in Path(f"/proc/{child}/stat").read_text():
                found.append(child)
    return found


async def test_a_host_that_is_told_so_does_not_fork(tmp_path: Path) -> None:
    async with Host.running(tmp_path, "--fork-server=no") as host:
        await host.bind()
        assert await host.text("import sys\nprint('pandas' in sys.modules)") == "False\n"
        assert (await host.main())["fresh_because"] == "the host was told so (--fork-server=no)"
