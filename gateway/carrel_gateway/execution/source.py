"""The events of one execution from its kernel host, whole and in order, across lost connections and new hosts.

The code is sent once. After that the source only reads on: whatever became of the request, sending again could run the
code a second time on another host.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Final, TypeAlias

import msgspec
import structlog

from carrel_gateway.errors import CarrelError, ExecutorFailed, KernelLost, NotFound
from carrel_gateway.execution.cell import Cell, ExecutionLostError, RecordedElsewhereError
from carrel_gateway.kernels.pool import HeldConnection
from carrel_wire.events import ExecutionEvent, Finished, Started
from carrel_wire.host import ExecuteRequest

Connect: TypeAlias = Callable[[HeldConnection | None], Awaitable[HeldConnection]]
"""Returns a connection to the session's host, started and made ready when there is none; another than the one given,
which has failed."""

FIRST_PAUSE_SECONDS: Final = 0.05
LONGEST_PAUSE_SECONDS: Final = 2.0

_NOT_SENT: Final = frozenset({"kernel_unreachable", "kernel_refused", "unbound", "sealed", "incarnation_changed"})
"""Codes that say that the host has not taken the code: sending it (again) is safe."""
_RECORDED: Final = frozenset({"already_acknowledged", "events_released"})

_log = structlog.get_logger(__name__)


class EventSource:
    """Reads one execution to its end."""

    def __init__(
        self, cell: Cell, connect: Connect, *, request: ExecuteRequest | None, patience_seconds: float
    ) -> None:
        self._cell = cell
        self._connect = connect
        self._request = request
        self._patience = patience_seconds
        self.seen_n = 0
        self.started = False
        """Whether the kernel is known to have taken the code up."""
        self.connection: HeldConnection | None = None
        self._failed = False

    @property
    def is_sent(self) -> bool:
        """Whether a host may have the code."""
        return self._request is None

    def resume(self, after: int) -> None:
        """Go on after event number `after`."""
        self.seen_n = after
        self.started = self.started or after > 0

    async def events(self) -> AsyncGenerator[ExecutionEvent, None]:
        """Yield the events after the last one seen, `finished` last.

        Raises
        ------
        ExecutionLostError
            No host knows the execution.
        RecordedElsewhereError
            Its events were committed by another process, and released.
        CarrelError
            The host refused the code, or no host could be reached for long.
        """
        loop = asyncio.get_running_loop()
        pause, deadline = FIRST_PAUSE_SECONDS, loop.time() + self._patience
        while True:
            seen_before = self.seen_n
            try:
                async with aclosing(self._stretch()) as stretch:
                    async for event in stretch:
                        yield event
                        if isinstance(event, Finished):
                            return
                raise KernelLost("The kernel host ended the stream before the execution was finished.")
            except CarrelError as error:
                self._judge(error)
                self._failed = True
                if self.seen_n > seen_before:
                    pause, deadline = FIRST_PAUSE_SECONDS, loop.time() + self._patience
                if loop.time() + pause > deadline:
                    raise
                _log.info("execution_reading_on", execution=str(self._cell.execution_id), code=error.code)
            await asyncio.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE_SECONDS)

    async def _stretch(self) -> AsyncGenerator[ExecutionEvent, None]:
        """Yield what one connection gives."""
        connection = self.connection = await self._connect(self.connection if self._failed else None)
        self._failed = False
        execution_id = self._cell.execution_id
        if self._request is not None:
            request, self._request = self._request, None
            # Of a kernel that was replaced meanwhile the state is brought back first, or its loss is told.
            said = msgspec.structs.replace(request, incarnation=connection.incarnation)
            try:
                async with aclosing(connection.execute(execution_id, said)) as events:
                    async for event in events:
                        if self._is_next(event):
                            yield event
            except CarrelError as error:
                if error.code in _NOT_SENT:
                    self._request = request
                raise
        else:
            async with aclosing(connection.events(execution_id, after=self.seen_n)) as events:
                async for event in events:
                    if self._is_next(event):
                        yield event

    def _is_next(self, event: ExecutionEvent) -> bool:
        if event.n <= self.seen_n:
            return False
        self.seen_n = event.n
        self.started = self.started or isinstance(event, Started)
        return True

    def _judge(self, error: CarrelError) -> None:
        """Raise what no patience helps against."""
        if error.code in _RECORDED:
            raise RecordedElsewhereError from error
        if isinstance(error, NotFound):
            raise ExecutionLostError from error
        passing = isinstance(error, KernelLost) or error.code in _NOT_SENT
        if not passing and not (self.is_sent and isinstance(error, ExecutorFailed)):
            raise error

    async def renew(self) -> HeldConnection:
        """Return another connection in place of one that has failed."""
        self.connection = await self._connect(self.connection)
        return self.connection

    def settle(self, n: int) -> None:
        """Release the host's spool soon, up to and with event `n`."""
        if self.connection is not None:
            self.connection.settle(self._cell.execution_id, n)
