"""Records one execution: reads its events to the end, commits them, and only then acknowledges.

A recording is a task of the process, not of a request: whoever asked may go away, and whoever asks for the same
execution joins it. What readers get before `finished` is provisional; `finished` is given out after its commit.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final
from uuid import UUID

import msgspec
import structlog

from carrel_gateway.errors import CarrelError, Unavailable
from carrel_gateway.execution.captured import FileCapture
from carrel_gateway.execution.cell import Cell, ExecutionLostError, RecordedElsewhereError
from carrel_gateway.execution.ledger import OUTCOME_UNKNOWN, Ledger
from carrel_gateway.execution.source import EventSource
from carrel_gateway.execution.subscription import Subscription
from carrel_gateway.execution.timed import TimedReader
from carrel_gateway.kernels.outputs import OutputBatch
from carrel_wire.events import Artifact, ExecutionEvent, Finished, Started

COMMIT_SECONDS: Final = 1.0
COMMIT_BYTES: Final = 1024 * 1024
SHOW_SECONDS: Final = 0.02
"""So long followers do not see what came: a short cell is committed before, and they are told once instead of twice."""
_ROUNDS: Final = 5
"""Takings-over from another process that stands still; more than a few mean that something is wrong."""

_DIED_WITH_HOST: Final = (
    "The kernel host was lost while the cell ran, and its output from then on with it; the log says what became of the "
    "variables."
)

_log = structlog.get_logger(__name__)


class Recording:
    """One execution on its way from the kernel host into the history."""

    def __init__(
        self,
        cell: Cell,
        ledger: Ledger,
        source: EventSource,
        capture: FileCapture,
        publish: Callable[[ExecutionEvent], Awaitable[None]],
        committed: Callable[[int], Awaitable[list[ExecutionEvent]]],
        *,
        on_started: Callable[[Started], Awaitable[None]] | None = None,
        patient: bool = False,
        ran_in: str | None = None,
    ) -> None:
        """Begin.

        Parameters
        ----------
        publish
            Shows an event to followers of the session.
        committed
            Returns the committed outputs of this execution as events, without the first so many.
        on_started
            Is told which kernel runs code that was sent just now.
        patient
            First give another process, which may be at it, the time of a lease.
        ran_in
            Incarnation of the kernel that took it up, where that is known already.
        """
        self.cell = cell
        self._ledger = ledger
        self._source = source
        self._capture = capture
        self._publish = publish
        self._committed = committed
        self._kept = 0  # committed outputs that the readers have been given
        self._on_started = on_started
        self._patient = patient
        self._ran_in = ran_in
        self._delivered_n = 0
        self._batch = OutputBatch()
        self._uncommitted: list[ExecutionEvent] = []
        self._oldest: float | None = None  # loop time at which the first uncommitted output came
        self._unshown: list[ExecutionEvent] = []
        self._show_at: float | None = None  # loop time at which those are shown
        self._commit = asyncio.Lock()
        self._readers: list[Subscription] = []
        self._read_end: Finished | None = None  # the host's, whoever commits it
        self._ended: Finished | BaseException | None = None
        self.task: asyncio.Task[None] = asyncio.create_task(self._run(), name=f"record-{cell.execution_id}")

    @property
    def session_id(self) -> UUID:
        """Session whose kernel runs it."""
        return self.cell.session.session_id

    def read(self) -> Subscription:
        """Return the events from now on; for the caller that began the recording."""
        reader = Subscription()
        self._readers.append(reader)
        return reader

    async def join(self) -> Subscription:
        """Return the events from the first on: those that are committed already, then the others."""
        reader = Subscription()
        async with self._commit:
            committed = await self._committed(0)
            self._kept = len(committed)
            files = [file for file in self._capture.reported if file not in self._uncommitted]
            reader.prefill([*committed, *files, *self._uncommitted])
            if isinstance(self._ended, Finished):
                reader.prefill([self._ended])
            elif self._ended is not None:
                reader.fail(self._ended)
            self._readers.append(reader)
        return reader

    # ------------------------------------------------------------------ the task

    async def _run(self) -> None:
        try:
            await self._record()
        except CarrelError as error:
            self._fail(error)
        except asyncio.CancelledError:
            self._fail(Unavailable("The gateway is closing; the execution goes on and will be in the history."))
            raise
        except Exception as error:  # noqa: BLE001  a task's last stop: readers must hear of it
            _log.exception("recording_failed", execution=str(self.cell.execution_id))
            failure = Unavailable("The execution could not be recorded; it is read again from its kernel host.")
            failure.__cause__ = error
            self._fail(failure)

    async def _record(self) -> None:
        waiting = self._patient
        for _ in range(_ROUNDS):
            if waiting and (ending := await self._ledger.follow()):
                if self._read_end and self._read_end.status == ending.finished.status:  # the readers have all of it
                    await self._end(self._read_end)
                    return
                seen = {(file.path, file.sha256) for file in self._capture.reported}
                files = [file for file in ending.files if (file.path, file.sha256) not in seen]
                for event in (*await self._committed(self._kept), *files):
                    await self._give(event)
                await self._end(ending.finished)
                return
            self._resume()
            try:
                await self._read_or_give_up()
            except RecordedElsewhereError:
                waiting = True
            else:
                return
        raise Unavailable("Another gateway records this execution and does not get on; its outcome is not known yet.")

    def _resume(self) -> None:
        """Begin after what is committed, by whomever."""
        self._batch = OutputBatch()
        self._forget_uncommitted()
        self._source.resume(self._ledger.last_n)

    async def _read_or_give_up(self) -> None:
        try:
            await self._read_to_end()
        except ExecutionLostError:
            await self._give_up()
        except CarrelError as error:
            if not self._source.is_sent:
                await self._ledger.refuse(error)
            raise

    async def _read_to_end(self) -> None:
        reader = TimedReader(self._source.events())
        try:
            while True:
                event = await reader.next(self._seconds_to_wait())
                if event is None:
                    await self._do_what_is_due()
                elif isinstance(event, Finished):
                    await self._commit_end(event)
                    return
                else:
                    await self._take(event)
        finally:
            await reader.aclose()

    async def _take(self, event: ExecutionEvent) -> None:
        if isinstance(event, Artifact):
            self._capture.note(event)
        elif isinstance(event, Started):
            self._ran_in = event.incarnation
            if self._on_started:
                await self._on_started(event)
        self._batch.add(event)
        self._uncommitted.append(event)
        if self._oldest is None and self._batch.size_bytes:
            self._oldest = asyncio.get_running_loop().time()
        if event.n > self._delivered_n:  # what is read a second time after another's failure has been given out
            self._delivered_n = event.n
            await self._give(event)
            if not (self.cell.silent or isinstance(event, Started | Artifact)):
                self._unshown.append(event)
                self._show_at = self._show_at or asyncio.get_running_loop().time() + SHOW_SECONDS
        await self._do_what_is_due()

    async def _do_what_is_due(self) -> None:
        now = asyncio.get_running_loop().time()
        commit_at = self._commit_at()
        if self._batch.size_bytes >= COMMIT_BYTES or (commit_at is not None and now >= commit_at):
            await self._commit_outputs()
        elif self._show_at is not None and now >= self._show_at:
            shown, self._unshown, self._show_at = self._unshown, [], None
            for event in shown:
                await self._publish(event)

    def _commit_at(self) -> float | None:
        return None if self._oldest is None or self.cell.silent else self._oldest + COMMIT_SECONDS

    def _seconds_to_wait(self) -> float | None:
        """Return after how many seconds something is due when nothing comes."""
        due = [at for at in (self._commit_at(), self._show_at) if at is not None]
        return max(0.0, min(due) - asyncio.get_running_loop().time()) if due else None

    def _forget_uncommitted(self) -> None:
        """What was not shown is seen with what is committed."""
        self._uncommitted.clear()
        self._unshown.clear()
        self._oldest = self._show_at = None

    async def _commit_outputs(self) -> None:
        if self.cell.silent:
            self._batch.take()
            self._forget_uncommitted()
            return
        n = self._source.seen_n
        async with self._commit:
            outputs = self._batch.take()
            await self._ledger.outputs(outputs, n)
            self._kept += len(outputs)
            self._forget_uncommitted()
        self._source.settle(n)

    async def _commit_end(self, finished: Finished) -> None:
        connection = self._source.connection
        # A kernel that was found instead of the one that ran it has been spoken of when it was found.
        told = bool(connection and self._ran_in and connection.incarnation not in (None, self._ran_in))
        if finished.lost_state and connection and not told:
            connection.incarnation = None  # the end itself says that the kernel is another one
        if not self.cell.silent:
            problems = await self._capture.store(self._source)
            if problems:
                message = "\n".join([*([finished.message] if finished.message else []), *problems])
                finished = msgspec.structs.replace(finished, message=message)
            self._read_end = finished
            async with self._commit:
                await self._ledger.finish(self._batch.take(), finished, told=told)
                self._forget_uncommitted()
        if finished.lost_state and connection and not told:
            connection.prepared = (
                False  # code is only sent to a kernel that is known: the next caller looks which it is
            )
        await self._end(finished)
        self._source.settle(finished.n)

    async def _give_up(self) -> None:
        """Record what cannot be found out."""
        started = self._source.started
        message = _DIED_WITH_HOST if started else OUTCOME_UNKNOWN
        finished = Finished(
            n=self._source.seen_n + 1, status="kernel_died", wall_seconds=0.0, message=message, lost_state=True
        )
        if not self.cell.silent:
            async with self._commit:
                await self._ledger.finish(self._batch.take(), finished, unknown=not started, told=True)
                self._forget_uncommitted()
        await self._end(finished)

    async def _end(self, finished: Finished) -> None:
        self._ended = finished
        await self._give(finished)

    async def _give(self, event: ExecutionEvent) -> None:
        for reader in tuple(self._readers):  # one that joins meanwhile has the event already
            await reader.put(event)

    def _fail(self, error: BaseException) -> None:
        if self._source.connection:
            self._source.connection.prepared = False  # the next caller's look at the host finds the execution again
        self._ended = error
        for reader in self._readers:
            reader.fail(error)
