"""The executions of a host: each id runs at most once, and its events stay until they are acknowledged.

Holds the events and hands them to any number of readers at their own pace; runs nothing (`kernel` does).
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Final, Literal

import msgspec
import structlog

from carrel_kernel import protocol
from carrel_kernel.acknowledged import Acknowledged
from carrel_kernel.errors import (
    AlreadyAcknowledged,
    BadRequest,
    EventsReleased,
    ExecutionNotFound,
    OtherKernel,
    SpoolFull,
)
from carrel_kernel.metrics import Metrics
from carrel_kernel.spool import Meta, Spool, SpoolError
from carrel_wire.events import ExecutionEvent, Finished, decode_event, encode_event
from carrel_wire.host import ExecuteRequest, ExecutionSummary, UnacknowledgedExecution

ID_PATTERN: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_SMALL_TAIL_BYTES: Final = 64 * 1024
_LOST: Final = "the kernel host ended while this ran; what came out until then is complete up to here"

_log = structlog.get_logger(__name__)


class Execution:
    """One execution and its events."""

    def __init__(self, spool: Spool, request: ExecuteRequest | None = None) -> None:
        self.spool = spool
        self.request = request
        """None for an execution that an earlier host took."""
        self.finished: Finished | None = None
        self.lossy = False
        """The disk refused events: output that comes now is left out and counted."""
        self._pending: list[bytes] = []
        self._waiting: list[asyncio.Future[None]] = []

    @property
    def id(self) -> str:
        """Id that the caller gave it."""
        return self.spool.meta.id

    @property
    def next_n(self) -> int:
        """Number of the next event."""
        return self.spool.last_n + len(self._pending) + 1

    def emit(self, event: ExecutionEvent) -> int:
        """Take the next event, whose number must be `next_n`, and return its size in bytes; `flush` tells readers."""
        try:
            line = encode_event(event)
        except (ValueError, OverflowError, TypeError, RecursionError):
            line = encode_event(_cleaned(event))
        self._pending.append(line)
        return len(line)

    def flush(self) -> None:
        """Write the events that were emitted and wake the readers."""
        if not self._pending:
            return
        lines, self._pending = self._pending, []
        try:
            self.spool.append(lines)
        except SpoolError as error:
            if not self.lossy:
                _log.warning("spool_failed", execution=self.id, reason=str(error))
            self.lossy = True
        self._wake()

    def finish(self, event: Finished) -> None:
        """Take the last event."""
        self.emit(event)
        self.finished = event
        self.flush()
        self.spool.close()
        if self.spool.size > _SMALL_TAIL_BYTES:
            self.spool.forget_tail()

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            _tell(future)

    async def wait(self, after: int, seconds: float) -> bool:
        """Wait until there are events after a number, at most so long; whether there are."""
        if after >= self.spool.last_n and not self.finished:
            news = self._news()
            timer = news.get_loop().call_later(seconds, _tell, news)
            await news
            timer.cancel()
        return after < self.spool.last_n

    def _news(self) -> asyncio.Future[None]:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        return future

    async def read(self, after: int) -> AsyncGenerator[tuple[bytes, bool]]:
        """Yield the events after a number as whole lines, and whether they end with `finished`, until they do.

        Raises
        ------
        EventsReleased
            They were acknowledged, or are gone from the disk.
        """
        while True:
            chunk = self.spool.tail(after)
            if chunk is None and after < self.spool.last_n:
                try:
                    chunk = await asyncio.to_thread(self.spool.read_segment, after)
                except SpoolError as error:
                    raise EventsReleased(str(error)) from error
            if chunk is not None:
                data, after = chunk
                yield data, self.finished is not None and after >= self.spool.last_n
            elif self.finished:
                return
            else:
                await self._news()


def _tell(news: asyncio.Future[None]) -> None:
    if not news.done():
        news.set_result(None)


def _cleaned(event: ExecutionEvent) -> ExecutionEvent:
    """Return the event with what JSON cannot carry replaced."""
    try:
        fields = {name: protocol.clean(getattr(event, name)) for name in event.__struct_fields__}
    except protocol.MalformedError:
        fields = {"n": event.n, "data": {"text/plain": "(nested too deeply)"}, "metadata": {}}
    return msgspec.structs.replace(event, **fields)


Claim = Literal["new", "known"]


class Executions:
    """All executions that the host knows."""

    def __init__(self, state_dir: Path, metrics: Metrics, *, max_unacknowledged: int, spool_bytes: int) -> None:
        self._folder = state_dir / "spool"
        self._metrics = metrics
        self._max_unacknowledged = max_unacknowledged
        self._spool_bytes = spool_bytes
        self._executions: dict[str, Execution] = {}
        self._acknowledged = Acknowledged(state_dir / "acknowledged")
        self._session_uid = ""

    def load(self, session_uid: str) -> None:
        """Take over what an earlier host of this session left: nothing of it runs again. Blocks."""
        self._session_uid = session_uid
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._acknowledged.load()
        for spool in Spool.load_all(self._folder):
            if spool.meta.session_uid != session_uid:
                _log.warning("spool_of_another_session", execution=spool.meta.id)
            elif spool.meta.id in self._acknowledged:
                spool.remove()
            else:
                self._executions[spool.meta.id] = _taken_over(spool)

    def claim(
        self,
        execution_id: str,
        kernel_id: str,
        incarnation: str,
        request: ExecuteRequest,
        *,
        admit: Callable[[], None],
    ) -> tuple[Execution, Claim]:
        """Return the execution of an id: a new one, on disk before it runs, or the one that the id had before.

        `admit` is called for a new one and raises when it must not be.

        Raises
        ------
        AlreadyAcknowledged, OtherKernel, SpoolFull, BadRequest
        """
        known = self._find(execution_id, kernel_id)
        if known:
            return known, "known"
        admit()
        if not ID_PATTERN.fullmatch(execution_id):
            raise BadRequest("an execution id is 1 to 64 letters, digits, `-` or `_`; use a UUID")
        if len(self._executions) >= self._max_unacknowledged or self.spool_bytes() >= self._spool_bytes:
            raise SpoolFull("too much is unacknowledged; read and acknowledge finished executions first")
        meta = Meta(
            id=execution_id,
            kernel_id=kernel_id,
            incarnation=incarnation,
            session_uid=self._session_uid,
            code=request.code,
        )
        try:
            spool = Spool.create(self._folder, meta)
        except SpoolError as error:
            raise SpoolFull(f"{error}; delete files of the workspace") from error
        execution = self._executions[execution_id] = Execution(spool, request)
        return execution, "new"

    def get(self, execution_id: str, kernel_id: str) -> Execution:
        """Return a known execution.

        Raises
        ------
        ExecutionNotFound, EventsReleased, OtherKernel
        """
        try:
            known = self._find(execution_id, kernel_id)
        except AlreadyAcknowledged as error:
            raise EventsReleased("the execution is acknowledged; its events are gone", **error.detail) from error
        if known is None:
            raise ExecutionNotFound("there is no such execution on this host", execution=execution_id)
        return known

    def _find(self, execution_id: str, kernel_id: str) -> Execution | None:
        known = self._executions.get(execution_id)
        if known and known.spool.meta.kernel_id != kernel_id:
            raise OtherKernel("the execution belongs to another kernel", kernel=known.spool.meta.kernel_id)
        if known is None and execution_id in self._acknowledged:
            summary = ExecutionSummary(
                id=execution_id, status=self._acknowledged.status(execution_id), acknowledged=True
            )
            raise AlreadyAcknowledged(
                "the execution has run and is acknowledged; use a new id to run code again",
                **msgspec.to_builtins(summary),
            )
        return known

    def knows(self, execution_id: str) -> bool:
        """Whether the id has been seen, whatever became of it."""
        return execution_id in self._executions or execution_id in self._acknowledged

    def ack(self, execution_id: str, kernel_id: str, n: int) -> ExecutionSummary:
        """Free the events up to number `n`; the whole execution when that is its last.

        Raises
        ------
        ExecutionNotFound, OtherKernel, BadRequest
        """
        if execution_id in self._acknowledged:
            return ExecutionSummary(id=execution_id, status=self._acknowledged.status(execution_id), acknowledged=True)
        execution = self.get(execution_id, kernel_id)
        if not 0 <= n <= execution.spool.last_n:
            raise BadRequest(f"there are events up to {execution.spool.last_n}; acknowledge one of them")
        status = execution.finished.status if execution.finished else None
        if execution.finished and n == execution.spool.last_n:
            self._acknowledged.add(execution_id, status)
            del self._executions[execution_id]
            execution.spool.remove()
            return ExecutionSummary(id=execution_id, status=status, acknowledged=True)
        execution.spool.release(n)
        return ExecutionSummary(id=execution_id, status=status, acknowledged=False)

    def discard(self, execution: Execution) -> None:
        """Forget an execution that was claimed and then could not be queued: it has not run."""
        self._executions.pop(execution.id, None)
        execution.spool.remove()

    def spool_bytes(self) -> int:
        """Bytes of events on disk."""
        return sum(execution.spool.size for execution in self._executions.values())

    def unacknowledged(self) -> list[UnacknowledgedExecution]:
        """Return what waits for acknowledgement, the oldest first."""
        return [
            UnacknowledgedExecution(
                id=execution.id,
                kernel_id=execution.spool.meta.kernel_id,
                incarnation=execution.spool.meta.incarnation,
                code=execution.spool.meta.code,
                last_n=execution.spool.last_n,
                finished=execution.finished is not None,
            )
            for execution in self._executions.values()
        ]

    def measure(self) -> None:
        """Set the gauges."""
        self._metrics.unacknowledged.set(len(self._executions))
        self._metrics.spool_bytes.set(self.spool_bytes())


def _taken_over(spool: Spool) -> Execution:
    """Return an execution of an earlier host, with an end where that host had come to none."""
    execution = Execution(spool)
    try:
        last = decode_event(spool.last_line())
    except (msgspec.DecodeError, UnicodeDecodeError):
        last = None
    if isinstance(last, Finished):
        execution.finished = last
    else:
        execution.finish(
            Finished(
                n=execution.next_n,
                status="kernel_died",
                wall_seconds=0.0,  # when it ended is not known
                lost_state=True,
                message=_LOST,
            )
        )
    return execution
