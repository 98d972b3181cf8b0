"""Interpreters that wait to become kernels: one is always being made ready, so that a kernel starts at once."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path
from typing import Final

import structlog

from carrel_kernel.errors import KernelUnavailable
from carrel_kernel.process import KernelProcess, reap

_REFILL_SECONDS: Final = 2.0
"""A kernel that has just been started gets the processor for itself first."""

_log = structlog.get_logger(__name__)


class Spares:
    """At most one spare."""

    def __init__(self, caches: Path) -> None:
        self._caches = caches
        self._making: asyncio.Task[KernelProcess] | None = None
        self._refill: asyncio.TimerHandle | None = None
        self._closed = False
        self._made: set[KernelProcess] = set()
        self._spawning = 0

    def prepare(self) -> None:
        """Begin to make a spare when there is none."""
        if self._making is None and not self._closed:
            self._making = asyncio.create_task(self._make())
            self._making.add_done_callback(_report)

    async def take(self) -> tuple[KernelProcess, bool]:
        """Return an interpreter that can take a handover, and whether it was there already.

        Raises
        ------
        KernelUnavailable
            None can be started.
        """
        making, self._making = self._making, None
        if self._refill is None and not self._closed:
            self._refill = asyncio.get_running_loop().call_later(_REFILL_SECONDS, self._on_refill)
        if making:
            with suppress(KernelUnavailable):  # it failed in the background: once more, now for somebody who is told
                ready = making.done()
                process = await asyncio.shield(making)
                if process.alive:
                    return process, ready
        return await self._make(), False

    def reap_orphans(self) -> None:
        """Take the exit codes of processes that lost their parents, as process 1 must; the kernels' are not touched."""
        if not self._spawning:
            self._made = {process for process in self._made if process.alive}
            reap({process.pid for process in self._made})

    def _on_refill(self) -> None:
        self._refill = None
        self.prepare()

    async def _make(self) -> KernelProcess:
        self._spawning += 1
        try:
            process = await KernelProcess.spawn(self._caches)
            self._made.add(process)
        finally:
            self._spawning -= 1
        try:
            ready = await process.spare()
        except BaseException:
            await process.kill()
            raise
        if not ready:
            await process.kill()
            raise KernelUnavailable("an interpreter ended before it was ready; the host's log says why")
        return process

    async def aclose(self) -> None:
        """End the spare."""
        self._closed = True
        if self._refill:
            self._refill.cancel()
        if self._making:
            self._making.cancel()
            with suppress(asyncio.CancelledError, KernelUnavailable):
                process = await self._making
                await process.kill()


def _report(task: asyncio.Task[KernelProcess]) -> None:
    if not task.cancelled() and (error := task.exception()):
        _log.warning("spare_not_started", reason=str(error))
