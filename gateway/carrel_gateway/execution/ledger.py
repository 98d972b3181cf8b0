"""Commits of one execution: its intent, its outputs and its end, each once, whoever records it.

The row of the execution has the number of the last committed event. Every commit moves it on from the number that this
process saw last, in the transaction that appends to the log; when another process was there first, nothing is written.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final, NamedTuple

from carrel_gateway.context import Principal, ProcessContext
from carrel_gateway.errors import CarrelError, NotFound
from carrel_gateway.execution import repository
from carrel_gateway.execution.cell import Cell, RecordedElsewhereError
from carrel_gateway.history.service import Actor, Appended, HistoryService
from carrel_gateway.storage.database import DatabaseAway
from carrel_gateway.storage.steps import Steps
from carrel_wire.events import Artifact, Finished, Outcome
from carrel_wire.log import CellFinished, CellIntended, CellOutputs, CellStatus, KernelChanged, LogPayload

OUTCOME_UNKNOWN: Final = (
    "The kernel host was lost before it confirmed the cell: whether the code ran cannot be known. It is not run again."
)

_POLL_SECONDS: Final = 0.25
_DATABASE_PATIENCE_SECONDS: Final = 60.0
"""Time for a database to come back; after it the kernel host's spool still has what is not committed."""
_DATABASE_PAUSE_SECONDS: Final = 0.5


class Ending(NamedTuple):
    """How an execution ended: the files that it made, and its last event."""

    files: list[Artifact]
    finished: Finished


class Ledger:
    """The history's side of one recording."""

    def __init__(self, context: ProcessContext, principal: Principal, cell: Cell) -> None:
        self._context = context
        self._history = HistoryService(context, principal)
        self._tenant_id = principal.tenant_id
        self._cell = cell
        self._known = False
        self.last_n = 0
        """Number of the last event that is committed."""

    async def row(self) -> repository.ExecutionRow | None:
        """Return the execution's row, and remember how far it is."""
        row = await self._context.database.run(
            self._tenant_id, lambda: repository.find(self._tenant_id, self._cell.execution_id), write=False
        )
        if row:
            self._known, self.last_n = True, row.last_n
        return row

    async def intend(self) -> None:
        """Commit that the code is about to be sent.

        Raises
        ------
        RecordedElsewhereError
            The id is taken.
        """
        cell = self._cell
        intent = CellIntended(execution_id=cell.execution_id, code=cell.code, run_id=cell.run_id)
        await self._append([intent], last_n=0, status="intended", actor="agent" if cell.run_id else "user")

    async def outputs(self, outputs: list[dict[str, Any]], last_n: int) -> None:
        """Commit a part of the outputs, up to and with event `last_n`."""
        if outputs:
            part = CellOutputs(execution_id=self._cell.execution_id, last_n=last_n, outputs=outputs)
            await self._append([part], last_n=last_n, status="running")

    async def finish(
        self, outputs: list[dict[str, Any]], finished: Finished, *, unknown: bool = False, told: bool = False
    ) -> None:
        """Commit the rest of the outputs and the end.

        Parameters
        ----------
        unknown
            Whether the code ran cannot be known.
        told
            The log has said already what became of the kernel.
        """
        cell = self._cell
        status: CellStatus = "outcome_unknown" if unknown else finished.status
        payloads: list[LogPayload] = []
        if outputs:
            payloads.append(CellOutputs(execution_id=cell.execution_id, last_n=finished.n, outputs=outputs))
        payloads.append(
            CellFinished(
                execution_id=cell.execution_id,
                status=status,
                code=cell.code,
                run_id=cell.run_id,
                execution_count=finished.execution_count,
                wall_seconds=finished.wall_seconds,
                cpu_seconds=finished.cpu_seconds,
                peak_memory_bytes=finished.peak_memory_bytes,
                bytes_out=finished.bytes_out,
                message=finished.message,
                lost_state=finished.lost_state,
            )
        )
        if finished.lost_state and not unknown and not told:
            payloads.append(KernelChanged(reason="died", lost_state=True, message=finished.message))
        await self._append(payloads, last_n=finished.n, status=status)

    async def refuse(self, error: CarrelError) -> None:
        """Commit that the intended code was never sent; a plain request leaves no trace."""
        if not self._known:
            return
        cell = self._cell
        end = CellFinished(execution_id=cell.execution_id, status="error", run_id=cell.run_id, message=error.message)
        await self._append([end], last_n=self.last_n, status="error")

    async def ending(self, row: repository.ExecutionRow) -> Ending:
        """Return how an execution ended, for whoever was not there; as whoever was there was told.

        Raises
        ------
        NotFound
            Its session was deleted meanwhile.
        """
        found = await self._history.ending(row.session_id, row.id)
        if found is None:
            raise NotFound("The execution is not there any more.")
        stored, end = found
        files = [Artifact(n=row.last_n, path=item.name, size=item.size, sha256=item.sha256) for item in stored]
        return Ending(files, _finished(row.last_n, end))

    async def follow(self) -> Ending | None:
        """Wait for another process to finish the execution; none when it stands still for as long as a lease.

        Without a bus to others there is no other process, and nobody to wait for.
        """
        settings = self._context.settings
        patience = settings.run_lease_seconds if settings.redis_url else 0.0
        loop = asyncio.get_running_loop()
        moved_at, seen = loop.time(), self.last_n
        while True:
            row = await self.row()
            if row and row.is_finished:
                return await self.ending(row)
            if self.last_n != seen:
                moved_at, seen = loop.time(), self.last_n
            if loop.time() - moved_at >= patience:
                return None
            await asyncio.sleep(_POLL_SECONDS)

    async def _append(
        self, payloads: list[LogPayload], *, last_n: int, status: CellStatus, actor: Actor = "kernel"
    ) -> None:
        """Commit; tries again while the database is away, which is safe: the row is moved on once."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _DATABASE_PATIENCE_SECONDS
        while True:
            try:
                await self._commit(payloads, last_n, status, actor)
            except DatabaseAway:
                if loop.time() + _DATABASE_PAUSE_SECONDS > deadline:
                    raise
                await asyncio.sleep(_DATABASE_PAUSE_SECONDS)
            else:
                break
        self._known, self.last_n = True, last_n

    async def _commit(self, payloads: list[LogPayload], last_n: int, status: CellStatus, actor: Actor) -> None:
        appended = await self._context.database.run(
            self._tenant_id, lambda: self._steps(payloads, last_n, status, actor)
        )
        await self._history.announce(self._cell.session.session_id, appended)

    def _steps(self, payloads: list[LogPayload], last_n: int, status: CellStatus, actor: Actor) -> Steps[Appended]:
        cell, tenant_id = self._cell, self._tenant_id
        if self._known:
            mine = yield from repository.mark(
                tenant_id, cell.execution_id, status=status, last_n=last_n, seen_n=self.last_n
            )
        else:
            mine = yield from repository.intend(
                self._context.database.dialect.name,
                tenant_id,
                cell.execution_id,
                session_id=cell.session.session_id,
                run_id=cell.run_id,
                code=cell.code,
                last_n=last_n,
                status=status,
            )
        if not mine:
            raise RecordedElsewhereError
        return (yield from self._history.appending(cell.session.session_id, payloads, actor=actor, fence=cell.fence))


def _finished(last_n: int, end: CellFinished) -> Finished:
    """Return the end as a caller is told it: `kernel_died` where nobody knows."""
    match end.status:
        case "intended" | "running" | "outcome_unknown":
            status: Outcome = "kernel_died"
        case known:
            status = known
    return Finished(
        n=last_n,
        status=status,
        wall_seconds=end.wall_seconds or 0.0,
        execution_count=end.execution_count,
        cpu_seconds=end.cpu_seconds,
        peak_memory_bytes=end.peak_memory_bytes,
        bytes_out=end.bytes_out,
        message=end.message,
        lost_state=end.lost_state,
    )
