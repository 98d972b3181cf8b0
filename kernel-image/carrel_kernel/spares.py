"""Processes that wait to become kernels: some are always kept ready, so that a kernel starts at once.

They are forks of the zygote where there is one, and fresh interpreters otherwise.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import Final

import structlog

from carrel_kernel.errors import KernelUnavailable
from carrel_kernel.forkserver import ForkServer
from carrel_kernel.process import KernelProcess, reap

_REFILL_SECONDS: Final = 0.5
"""A kernel that has just been started gets the processor for itself first."""

_log = structlog.get_logger(__name__)


class Spares:
    """Up to `count` processes whose sockets listen already."""

    def __init__(self, runtime: Path, fork_server: ForkServer | None, count: int, start_seconds: float) -> None:
        self._runtime = runtime
        self._fork_server = fork_server
        self._count = count
        self._start_seconds = start_seconds
        self._making: deque[asyncio.Task[KernelProcess]] = deque()
        self._refill: asyncio.TimerHandle | None = None
        self._closed = False
        self._made: set[KernelProcess] = set()
        self._spawning = 0

    def fill(self) -> None:
        """Begin to make the spares that are not there."""
        while len(self._making) < self._count and not self._closed:
            task = asyncio.create_task(self._make())
            task.add_done_callback(_report)
            self._making.append(task)

    async def take(self) -> tuple[KernelProcess, bool]:
        """Return a process that can take a handover, and whether it was there already.

        Raises
        ------
        KernelUnavailable
            None can be started.
        """
        if self._refill is None and not self._closed:
            self._refill = asyncio.get_running_loop().call_later(_REFILL_SECONDS, self._on_refill)
        while self._making:
            making = self._making.popleft()
            ready = making.done()
            with suppress(KernelUnavailable):  # it failed in the background: once more, now for somebody who is told
                try:
                    process = await asyncio.shield(making)
                except asyncio.CancelledError:
                    self._making.appendleft(making)
                    raise
                if process.alive:
                    return process, ready
                await process.kill()
        return await self._make(), False

    @property
    def warm(self) -> bool:
        """Whether a process waits that would be taken next, or none is to be kept."""
        if not self._count:
            return True
        return any(made.done() and not made.cancelled() and made.exception() is None for made in self._making)

    def reap_orphans(self) -> None:
        """Take the exit codes of processes that lost their parents; those that others wait for are not touched."""
        if not self._spawning:
            self._made = {process for process in self._made if process.alive}
            own = {process.pid for process in self._made}
            reap(own | ({self._fork_server.pid} if self._fork_server and self._fork_server.pid else set()))

    def _on_refill(self) -> None:
        self._refill = None
        self.fill()

    async def _make(self) -> KernelProcess:
        self._spawning += 1
        try:
            process = await self._start()
            self._made.add(process)
        finally:
            self._spawning -= 1
        try:
            async with asyncio.timeout(self._start_seconds):
                await process.listen(self._runtime)
        except BaseException as error:
            await process.kill()
            if isinstance(error, TimeoutError):
                raise KernelUnavailable(f"the kernel did not start within {self._start_seconds:g} s") from error
            raise
        return process

    @property
    def fresh_because(self) -> str | None:
        """Why a process that is made now will be a fresh interpreter; none when it will be a fork."""
        return self._fork_server.reason if self._fork_server else "the host was told so (--fork-server=no)"

    async def _start(self) -> KernelProcess:
        because = self.fresh_because
        if self._fork_server and because is None:
            try:
                return await self._fork_server.fork()
            except KernelUnavailable as error:
                because = error.message
        return KernelProcess.spawn(self._runtime, because or "")

    async def aclose(self) -> None:
        """End the spares."""
        self._closed = True
        if self._refill:
            self._refill.cancel()
        for making in self._making:
            making.cancel()
        for result in await asyncio.gather(*self._making, return_exceptions=True):
            if isinstance(result, KernelProcess):
                await result.kill()


def _report(task: asyncio.Task[KernelProcess]) -> None:
    if not task.cancelled() and (error := task.exception()):
        _log.warning("spare_not_started", reason=str(error))
