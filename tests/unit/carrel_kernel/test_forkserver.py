"""The host's side of the zygote, with a real one: what it makes of modules that do not fit, and of ends of it.

Plan
- A module that cannot be imported is named; one that starts threads is left out by the next zygote, and named.
- A fork is a process of this one's; one that nobody waits for any more ends by itself.
- Without a zygote there is a reason, and closing it leaves no process.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from carrel_kernel import process
from carrel_kernel.errors import KernelUnavailable
from carrel_kernel.forkserver import ForkServer
from carrel_kernel.process import KernelProcess

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="forked kernels are children of a host that adopts them"
)

Start = Callable[..., ForkServer]


@pytest.fixture
async def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Start]:
    folder = tmp_path / "modules"
    folder.mkdir()
    thread = "import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()\n"
    (folder / "threaded.py").write_text(thread)
    (folder / "broken.py").write_text("raise RuntimeError('no')\n")
    monkeypatch.setenv("PYTHONPATH", str(folder))
    monkeypatch.setattr(process, "_INHERITED", (*process._INHERITED, "PYTHONPATH"))
    servers: list[ForkServer] = []

    def begin(*modules: str) -> ForkServer:
        servers.append(ForkServer(tmp_path, modules, lambda: None))
        servers[-1].start()
        return servers[-1]

    yield begin
    for server in servers:
        await server.aclose()
        assert server.pid is None
    ctypes.CDLL(None).prctl(36, 0, 0, 0, 0)  # this process adopts no orphans any more


async def until_loaded(server: ForkServer) -> None:
    async with asyncio.timeout(60):
        while not server.loaded:  # noqa: ASYNC110  it has nobody to tell
            await asyncio.sleep(0.02)


async def forked(server: ForkServer, runtime: Path) -> KernelProcess:
    kernel = await server.fork()
    await kernel.listen(runtime)
    return kernel


async def test_modules_that_do_not_fit_are_named_and_left_out(start: Start, tmp_path: Path) -> None:
    server = start("nowhere", "threaded", "broken", "json")
    await until_loaded(server)
    assert server.restarts == 1
    assert server.reason is None
    assert set(server.missing) == {"nowhere", "broken", "threaded"}
    assert server.missing["broken"] == "RuntimeError: no"
    assert server.missing["threaded"] == "importing it starts threads"
    kernel = await forked(server, tmp_path)
    await kernel.kill()


async def test_a_fork_that_nobody_waits_for_ends(start: Start) -> None:
    server = start()
    await until_loaded(server)
    assert server.pid
    os.kill(server.pid, signal.SIGSTOP)
    waiting = asyncio.create_task(server.fork())
    await asyncio.sleep(0.05)
    waiting.cancel()
    os.kill(server.pid, signal.SIGCONT)
    other = await server.fork()  # answered after the one that was given up
    assert other.alive
    await other.kill()
    ended, _ = await asyncio.to_thread(os.waitpid, -1, 0)  # the zygote goes on, so it is the other
    assert ended not in {other.pid, server.pid}


async def test_without_a_zygote_there_is_a_reason(start: Start, tmp_path: Path) -> None:
    server = start()
    await until_loaded(server)
    kernel = await forked(server, tmp_path)
    assert server.pid
    os.kill(server.pid, signal.SIGKILL)
    async with asyncio.timeout(10):
        while server.reason is None:  # noqa: ASYNC110  as above
            await asyncio.sleep(0.01)
    assert server.reason == "the fork server ended with code -9"
    with pytest.raises(KernelUnavailable, match="ended with code -9"):
        await server.fork()
    assert kernel.alive
    await kernel.kill()
