"""Acknowledgements on their way to one kernel host: with the next code that is sent, or by themselves a moment later.

What is acknowledged is committed, so one that is lost does no harm: whoever looks at the host next sends it again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Final
from uuid import UUID

import structlog

from carrel_gateway.errors import CarrelError, KernelLost

WAIT_SECONDS: Final = 0.25
"""So long a host keeps events that are committed when no further code comes."""
MOST_AT_ONCE: Final = 64
"""In one header, of which a host takes 8 KiB."""

_log = structlog.get_logger(__name__)


class Acks:
    """What one host has not been told yet: the last committed event of each execution."""

    def __init__(self, send: Callable[[UUID, int], Awaitable[None]]) -> None:
        self._send = send
        self._waiting: dict[UUID, int] = {}
        self._later: asyncio.Task[None] | None = None
        self._closed = False

    def add(self, execution: UUID, n: int) -> None:
        """Acknowledge an execution up to and with event `n`, soon."""
        self._waiting[execution] = max(n, self._waiting.get(execution, 0))
        if not self._closed and (self._later is None or self._later.done()):
            self._later = asyncio.create_task(self._send_later(), name="acknowledge")

    def take(self) -> dict[UUID, int]:
        """Return some of what waits, for a request that takes it along."""
        taken = dict(list(self._waiting.items())[:MOST_AT_ONCE])
        for execution in taken:
            del self._waiting[execution]
        return taken

    def put_back(self, taken: Mapping[UUID, int]) -> None:
        """Let what was taken wait again: the host has not confirmed it."""
        for execution, n in taken.items():
            self.add(execution, n)

    async def flush(self) -> None:
        """Tell the host now; what it does not take is not told again."""
        while taken := self.take():
            for execution, n in taken.items():
                try:
                    await self._send(execution, n)
                except CarrelError as error:
                    _log.info("execution_not_acknowledged", execution=str(execution), code=error.code)
                    if isinstance(error, KernelLost):  # nor will it take the others
                        self._waiting.clear()
                        return

    async def aclose(self) -> None:
        """Forget what waits."""
        self._closed = True
        if self._later:
            self._later.cancel()
            with suppress(asyncio.CancelledError):
                await self._later

    async def _send_later(self) -> None:
        while self._waiting:
            await asyncio.sleep(WAIT_SECONDS)
            await self.flush()
