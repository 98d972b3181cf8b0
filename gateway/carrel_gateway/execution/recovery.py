"""A session whose kernel host was lost gets back what its last snapshot has, and the log says honestly what that is.

The host's boot tells: the session's row has that of the host with its state. Another boot is a new host, or the old one
after its container has ended; there the workspace has outlived it, and its files are newer than the snapshot's.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

import structlog

from carrel_gateway.context import Principal, ProcessContext
from carrel_gateway.errors import CarrelError, InvalidInput, NotFound
from carrel_gateway.execution.restoring import MAX_LOSSES, Restoring, losses
from carrel_gateway.executors.base import SessionRef
from carrel_gateway.history.service import HistoryService
from carrel_gateway.kernels.connection import main_of
from carrel_gateway.kernels.pool import HeldConnection
from carrel_gateway.sessions.service import SessionService
from carrel_gateway.snapshots.service import Snapshot, SnapshotService
from carrel_wire.host import HostState
from carrel_wire.log import CellFinished, KernelChanged, SessionRecovered
from carrel_wire.snapshots import RestoreReply

_NEVER: Final = frozenset({"snapshot_damaged", "snapshot_unreadable", "snapshot_refused"})
"""Codes of what waiting does not help against: the session goes on without its snapshot."""
_RESTARTED: Final = "The kernel was restarted after the snapshot: its files are back, and no variables."

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Since:
    """What the log has after a snapshot."""

    cells: list[UUID]
    restarted: bool = False


class Recovery:
    """Recoveries for one principal. Called under the session's lock in the pool."""

    def __init__(self, context: ProcessContext, principal: Principal) -> None:
        self._context = context
        self._tenant_id = principal.tenant_id
        self._history = HistoryService(context, principal)
        self._sessions = SessionService(context, principal)
        self._snapshots = SnapshotService(context, principal)
        self._restoring = Restoring(context, principal)

    async def recover(self, ref: SessionRef, connection: HeldConnection) -> datetime | None:
        """Restore the last snapshot where the host is not the one that had the state; returns from when that is.

        Raises
        ------
        CarrelError
            Something that is needed is away; the session's state is still where it was.
        """
        state = await connection.state()
        kernel, known = main_of(state), (await self._sessions.get(ref.session_id)).boot_id
        if known in (None, state.boot_id) or kernel is None or kernel.execution_count:
            return None
        snapshot = await self._snapshots.latest(ref.session_id)
        if snapshot is None:
            return None

        async def is_done() -> bool:
            return (await self._sessions.get(ref.session_id)).boot_id == state.boot_id

        if await is_done():  # while this one waited for the host
            return None
        try:
            reply = await self._restoring.restore(ref, connection, snapshot, is_done, keep_files=True)
        except CarrelError as error:
            if error.code not in _NEVER and not isinstance(error, InvalidInput | NotFound):
                raise
            _log.warning("session_not_recovered", session=str(ref.session_id), code=error.code)
            await self._say_lost(ref, state, f"The last snapshot could not be brought back: {error.message}")
            return None
        if reply is None:
            return None
        connection.fresh = False
        return await self._go_on(ref, connection, state, snapshot, reply)

    async def _go_on(
        self, ref: SessionRef, connection: HeldConnection, state: HostState, snapshot: Snapshot, reply: RestoreReply
    ) -> datetime:
        await self._restoring.remove_deleted(ref, connection, snapshot)
        since = await self._since(ref, snapshot)
        connection.incarnation = (await connection.restart()).incarnation if since.restarted else reply.incarnation
        lost = [] if since.restarted else reply.not_restored
        not_restored = [*lost, *reply.files_not_restored]
        recovered = SessionRecovered(
            snapshot_id=snapshot.id,
            as_of_seq=snapshot.seq,
            as_of=snapshot.created_at,
            incarnation=connection.incarnation,
            variables=0 if since.restarted else len(reply.restored),
            files=reply.files,
            not_restored=losses(not_restored),
            not_restored_count=len(not_restored),
            lost_cells=since.cells[:MAX_LOSSES],
            lost_cells_count=len(since.cells),
            message=_RESTARTED if since.restarted else None,
        )
        await self._say(ref, state, recovered)
        _log.info("session_recovered", session=str(ref.session_id), lost_cells=len(since.cells))
        return snapshot.created_at

    async def _since(self, ref: SessionRef, snapshot: Snapshot) -> _Since:
        since, after = _Since([]), snapshot.seq
        while page := await self._history.events(ref.session_id, after=after):
            after = page[-1].seq
            for event in page:
                if isinstance(event.payload, CellFinished):
                    since.cells.append(event.payload.execution_id)
                elif isinstance(event.payload, KernelChanged) and event.payload.reason == "restarted":
                    since.restarted = True
        return since

    async def _say_lost(self, ref: SessionRef, state: HostState, message: str) -> None:
        kernel = main_of(state)
        incarnation = kernel.incarnation if kernel else None
        change = KernelChanged(reason="host_lost", incarnation=incarnation, lost_state=True, message=message)
        await self._say(ref, state, change)

    async def _say(self, ref: SessionRef, state: HostState, payload: SessionRecovered | KernelChanged) -> None:
        """Commit what became of the state; once, whoever found the new host too."""
        async with self._context.database.transaction(self._tenant_id) as tx:
            await self._history.hold(tx, ref.session_id)
            if (await self._sessions.require(tx, ref.session_id)).boot_id != state.boot_id:
                await self._sessions.place_host(tx, ref.session_id, state.boot_id)
                await self._history.append(ref.session_id, [payload], actor="kernel", tx=tx)
