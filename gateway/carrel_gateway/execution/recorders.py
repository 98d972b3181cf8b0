"""Begins recordings: of new executions, of known ones that another process left, of all that a host still holds."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any
from uuid import UUID

import msgspec
import structlog

from carrel_gateway.artifacts.service import ArtifactService
from carrel_gateway.context import Principal, ProcessContext
from carrel_gateway.errors import Conflict, KernelLost, NotFound
from carrel_gateway.execution import repository
from carrel_gateway.execution.captured import FileCapture
from carrel_gateway.execution.cell import Cell
from carrel_gateway.execution.hosts import SessionHosts
from carrel_gateway.execution.ledger import Ledger
from carrel_gateway.execution.recording import Recording
from carrel_gateway.execution.source import EventSource
from carrel_gateway.execution.subscription import Subscription
from carrel_gateway.executors.base import SessionRef
from carrel_gateway.history.service import HistoryService, LiveEvent
from carrel_gateway.kernels.connection import main_of
from carrel_gateway.kernels.outputs import events_of
from carrel_gateway.kernels.pool import HeldConnection
from carrel_wire.events import ExecutionEvent, Started
from carrel_wire.host import ExecuteRequest, HostState

_log = structlog.get_logger(__name__)


class Recorders:
    """Recordings of one principal's executions; the process keeps them (`kernels.in_flight`)."""

    def __init__(self, context: ProcessContext, principal: Principal) -> None:
        self._context = context
        self._principal = principal
        self._history = HistoryService(context, principal)
        self.hosts = SessionHosts(context, principal, self._adopt_all)

    def begin(self, cell: Cell, request: ExecuteRequest) -> Recording:
        """Send new code and record it."""
        return self._start(cell, Ledger(self._context, self._principal, cell), request=request)

    async def begin_durable(self, cell: Cell, request: ExecuteRequest) -> Recording:
        """Commit the intent, then send and record.

        The kernel host is there before the intent is: what becomes of an intent whose gateway was killed cannot be
        known, so there must be next to no time between committing it and sending the code.

        Raises
        ------
        RecordedElsewhereError
            The id is taken.
        ExecutorFailed
            No kernel host could be had; nothing is committed.
        """
        with suppress(KernelLost):  # the recording itself tries again
            await self.hosts.ready(cell.session)
        ledger = Ledger(self._context, self._principal, cell)
        await ledger.intend()
        return self._start(cell, ledger, request=request)

    async def join(self, cell: Cell) -> Subscription | None:
        """Return the events of an execution that is known already; none when it is not.

        Raises
        ------
        Conflict
            The id belongs to another session, or to other code.
        """
        recording = self._context.kernels.in_flight.get(cell.execution_id)
        if not isinstance(recording, Recording):
            ledger = Ledger(self._context, self._principal, cell)
            row = await ledger.row()
            if row is None:
                return None
            _require_same(row.session_id, row.code, cell)
            if row.is_finished:
                reader = Subscription()
                ending = await ledger.ending(row)
                reader.prefill([*(await self._committed(cell, 0)), *ending.files, ending.finished])
                return reader
            # A run's own fence says that whoever had it before is out; anybody else may still be at it.
            recording = self._start(cell, ledger, patient=cell.fence is None, resumed=True)
        _require_same(recording.cell.session.session_id, recording.cell.code, cell)
        return await recording.join()

    async def recover(self, session: SessionRef) -> None:
        """Record everything that the session's host holds, and what it should hold and does not.

        A sealed kernel holds nothing: its output was committed before. The session is not woken for it.
        """
        open_rows = await self._open_rows(session)
        connection = await self.hosts.find(session)
        if not open_rows and (connection is None or await _is_sealed(connection)):
            return
        connection = await self.hosts.ready(session)
        state = await connection.state()
        recordings = await self._adopt(session, connection, state, patient=False)
        ended_there = {UUID(item.id) for item in state.unacknowledged if item.finished and _is_uuid(item.id)}
        held = {UUID(item.id) for item in state.unacknowledged if _is_uuid(item.id)}
        wait_for = [
            recording.task
            for recording in recordings
            if recording.cell.execution_id in ended_there or recording.cell.execution_id not in held
        ]
        if wait_for:
            await asyncio.wait(wait_for)

    # ------------------------------------------------------------------ adoption

    async def _adopt_all(self, session: SessionRef, connection: HeldConnection, state: HostState) -> None:
        await self._adopt(session, connection, state, patient=True)

    async def _adopt(
        self, session: SessionRef, connection: HeldConnection, state: HostState, *, patient: bool
    ) -> list[Recording]:
        """Begin recordings of what this process does not record yet; acknowledge what is committed."""
        in_flight = self._context.kernels.in_flight
        cells = {row.id: Cell(session, row.id, row.code, run_id=row.run_id) for row in await self._open_rows(session)}
        ran_in = {item.id: item.incarnation for item in state.unacknowledged}
        adopted: list[Recording] = []
        for item in state.unacknowledged:
            if not _is_uuid(item.id):
                continue
            cell = cells.setdefault(UUID(item.id), Cell(session, UUID(item.id), item.code))
            row = await Ledger(self._context, self._principal, cell).row()
            if row and row.is_finished:
                del cells[cell.execution_id]
                if item.finished:
                    with suppress(Conflict, NotFound):  # its own recording did it meanwhile
                        await connection.ack(cell.execution_id, item.last_n)
        for cell in cells.values():
            recording = in_flight.get(cell.execution_id)
            if recording is None:
                _log.info("execution_adopted", execution=str(cell.execution_id), session=str(session.session_id))
                ledger = Ledger(self._context, self._principal, cell)
                row = await ledger.row()
                if row and row.is_finished:  # meanwhile
                    continue
                recording = in_flight.get(cell.execution_id) or self._start(
                    cell, ledger, patient=patient, resumed=True, ran_in=ran_in.get(str(cell.execution_id))
                )
            if isinstance(recording, Recording):
                adopted.append(recording)
        return adopted

    async def _open_rows(self, session: SessionRef) -> list[repository.ExecutionRow]:
        async with self._context.database.transaction(session.tenant_id, write=False) as tx:
            return await repository.open_of_session(tx, session.session_id)

    # ------------------------------------------------------------------ beginning

    def _start(
        self,
        cell: Cell,
        ledger: Ledger,
        *,
        request: ExecuteRequest | None = None,
        patient: bool = False,
        resumed: bool = False,
        ran_in: str | None = None,
    ) -> Recording:
        settings = self._context.settings
        source = EventSource(
            cell,
            lambda failed: self.hosts.ready(cell.session, failed),
            request=request,
            patience_seconds=settings.kernel_start_seconds,
        )
        capture = FileCapture(
            ArtifactService(self._context, self._principal),
            cell,
            max_bytes=settings.upload_max_bytes,
            resumed=resumed,
        )

        async def on_started(event: Started) -> None:
            if source.connection:
                await self.hosts.saw_kernel(cell.session, source.connection, event.incarnation)

        recording = Recording(
            cell,
            ledger,
            source,
            capture,
            self._publisher(cell),
            lambda first: self._committed(cell, first),
            on_started=None if resumed else on_started,
            patient=patient,
            ran_in=ran_in,
        )
        self._context.kernels.in_flight.add(cell.execution_id, recording)
        return recording

    def _publisher(self, cell: Cell) -> Any:
        async def publish(event: ExecutionEvent) -> None:
            data = {
                **({"run_id": str(cell.run_id)} if cell.run_id else {}),
                "execution_id": str(cell.execution_id),
                "event": msgspec.to_builtins(event, str_keys=True),
            }
            live = LiveEvent(type="output", id=f"{cell.execution_id}.{event.n}", data=data)
            await self._history.publish_live(cell.session.session_id, live)

        return publish

    async def _committed(self, cell: Cell, first: int) -> list[ExecutionEvent]:
        """Return the committed outputs of an execution as events, without the first so many."""
        found = await self._history.cells(cell.session.session_id, execution_id=cell.execution_id)
        return events_of(found[0].outputs[first:]) if found else []


def _require_same(session_id: UUID, code: str, cell: Cell) -> None:
    if session_id != cell.session.session_id or code != cell.code:
        raise Conflict("This execution id is taken; choose another one.", code="execution_id_taken")


async def _is_sealed(connection: HeldConnection) -> bool:
    kernel = main_of(await connection.state())
    return kernel is not None and kernel.sealed


def _is_uuid(text: str) -> bool:
    try:
        UUID(text)
    except ValueError:
        return False
    return True
