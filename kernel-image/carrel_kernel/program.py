"""The process of a kernel host, from its settings to its exit code; `__main__` imports this.

Ends with 0 on SIGTERM, SIGINT and when it is orphaned; with 2 when it cannot start, with one line that says why.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import shutil
import signal
import sys
import tempfile
from contextlib import AbstractContextManager, closing, nullcontext
from pathlib import Path
from typing import Final

import structlog
import uvloop
from aiohttp import web

from carrel_kernel import logs
from carrel_kernel.auth import KeyFile
from carrel_kernel.authorities import trusting
from carrel_kernel.reaching import ClosedPort
from carrel_kernel.server import create_app
from carrel_kernel.settings import Settings, load
from carrel_kernel.supervisor import Supervisor

_PR_SET_DUMPABLE: Final = 4  # linux/prctl.h
_READ_BUFFER_BYTES: Final = 256 * 1024

_log = structlog.get_logger(__name__)


def hide_memory() -> None:
    """Make this process not dumpable: kernels have its user id, and must not read its memory or environment.

    Source: prctl(2), ptrace(2). Linux only; elsewhere nothing happens.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


async def serve(settings: Settings, runtime: Path) -> None:
    """Run a host until it is told to end.

    Raises
    ------
    OSError, ValueError, TypeError
        The key set or the workspace cannot be used, or the address is taken.
    """
    keys = KeyFile(settings.keys, settings.host_id)
    keys.load()
    supervisor = Supervisor(settings, runtime)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    runner = web.AppRunner(
        create_app(supervisor, keys),
        access_log=None,  # calls are the gateway's to log; the state and metrics are here
        handle_signals=False,
        shutdown_timeout=1.0,
        read_bufsize=_READ_BUFFER_BYTES,
    )
    with _closed_port(settings, supervisor):  # before and after the other: whoever reaches that could reach this
        await supervisor.start()
        try:
            await runner.setup()
            await _listen(runner, settings.listen)
            _log.info("listening", address=settings.listen, host_id=settings.host_id, boot_id=supervisor.boot_id)
            waits = [asyncio.create_task(event.wait()) for event in (stop, supervisor.orphaned)]
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            for wait in waits:
                wait.cancel()
        finally:
            await supervisor.aclose()  # first: streams get the end of their executions
            await runner.cleanup()
    _log.info("ended")


def _closed_port(settings: Settings, supervisor: Supervisor) -> AbstractContextManager[object]:
    if settings.closed_listen is None:
        return nullcontext()
    return closing(ClosedPort(*settings.closed_listen, supervisor.metrics.closed_port.inc))


async def _listen(runner: web.AppRunner, listen: str) -> None:
    kind, _, rest = listen.partition(":")
    if kind == "unix":
        mask = os.umask(0o177)
        try:
            await web.UnixSite(runner, rest).start()
        finally:
            os.umask(mask)
        return
    address, _, port = rest.rpartition(":")
    await web.TCPSite(runner, address.strip("[]"), int(port)).start()


def main() -> int:
    """Run the program and return its exit code."""
    hide_memory()
    settings = load()
    logs.configure(settings.log_level)
    runtime = Path(tempfile.mkdtemp(prefix="carrel-", dir=settings.runtime_dir))  # mode 0700
    try:
        if settings.authorities is not None:
            os.environ.update(trusting(settings.authorities, runtime))  # kernels inherit them
        uvloop.run(serve(settings, runtime))
    except (OSError, ValueError, TypeError) as error:
        _log.error("not_started", reason=f"{type(error).__name__}: {error}")
        return 2
    finally:
        shutil.rmtree(runtime, ignore_errors=True)
    return 0
