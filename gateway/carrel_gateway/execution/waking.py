"""A session whose state lies in a snapshot gets it back when it is used.

A suspension may have been begun by a gateway that is gone, or be under way in another. The kernel host decides: a
kernel that was sealed never runs again, and one that was not cannot be sealed any more once it was told so. Whoever
finds a suspension that nobody has told yet tells it, so that the log has each of them before its resumption.
"""

from __future__ import annotations

from datetime import datetime

import structlog

from carrel_gateway.context import Principal, ProcessContext
from carrel_gateway.errors import Conflict
from carrel_gateway.execution.recovery import Recovery
from carrel_gateway.execution.restoring import Restoring, losses
from carrel_gateway.executors.base import Saved, SessionRef
from carrel_gateway.history.service import HistoryService
from carrel_gateway.kernels.connection import main_of
from carrel_gateway.kernels.pool import HeldConnection
from carrel_gateway.sessions.service import Session, SessionService
from carrel_gateway.snapshots.service import Snapshot, SnapshotService
from carrel_wire.log import SessionResumed, SessionSuspended
from carrel_wire.snapshots import Manifest, RestoreReply

_log = structlog.get_logger(__name__)


def saved_in(snapshot: Snapshot) -> Saved:
    """Return where the state of a sealed kernel lies."""
    return Saved(ref=str(snapshot.id), digest=snapshot.digest)


class Waking:
    """Brings state back, for one principal. Called under the session's lock in the pool."""

    def __init__(self, context: ProcessContext, principal: Principal) -> None:
        self._context = context
        self._tenant_id = principal.tenant_id
        self._history = HistoryService(context, principal)
        self._sessions = SessionService(context, principal)
        self._snapshots = SnapshotService(context, principal)
        self._restoring = Restoring(context, principal)
        self._recovery = Recovery(context, principal)

    async def open(self, ref: SessionRef, session: Session) -> tuple[HeldConnection, datetime | None]:
        """Return a connection to a host that has the session's state, and from when that is if it was restored.

        Raises
        ------
        CarrelError
            No host could be had, or it could not be given the state: the session stays suspended.
        """
        if session.snapshot_id is None:
            connection = await self._connect(ref)
            return connection, await self._recovery.recover(ref, connection)
        snapshot = await self._snapshots.find(session.snapshot_id)
        if await self.goes_on(ref, snapshot):
            return await self._context.kernels.connect(ref), None
        if session.suspended_at is None:  # whoever began it has not come so far
            await self.say(ref, snapshot, await self._snapshots.manifest(snapshot))
        connection = await self._context.kernels.connect(ref)
        boot_id = (await connection.state()).boot_id

        async def is_done() -> bool:
            return (await self._sessions.get(ref.session_id)).snapshot_id != snapshot.id

        reply = await self._restoring.restore(ref, connection, snapshot, is_done)
        connection.fresh = False  # also when this process has bound it: whoever restored has said what became of it
        if reply is None:  # another gateway has done it, and more
            return connection, None
        await self._restoring.remove_deleted(ref, connection, snapshot)
        await self._note(ref, snapshot, reply, boot_id)
        connection.incarnation = reply.incarnation
        return connection, snapshot.created_at

    async def _connect(self, ref: SessionRef) -> HeldConnection:
        """Return a connection to a host whose kernel runs: one that was never used may have been sealed unsaved."""
        connection = await self._context.kernels.connect(ref)
        kernel = main_of(await connection.state())
        if kernel is None or not kernel.sealed:
            return connection
        await self._give_up(ref, connection, Saved())
        return await self._context.kernels.connect(ref)

    # ------------------------------------------------------------------ the host before

    async def goes_on(self, ref: SessionRef, snapshot: Snapshot) -> bool:
        """Whether the kernel that the snapshot was taken of goes on; one that was sealed is given up.

        A suspension that was begun and not finished is then finished or taken back, whoever began it.
        """
        connection = await self._context.kernels.find(ref)
        if connection is None:
            return False
        state = await connection.state()
        kernel = main_of(state)
        if kernel is None or state.boot_id != snapshot.boot_id:
            return False  # a new host, perhaps one that somebody was about to give the state
        if kernel.sealed:
            await self._give_up(ref, connection, saved_in(snapshot))
            return False
        if kernel.incarnation != snapshot.incarnation and not kernel.execution_count:
            return False  # it has been replaced, and has run nothing yet
        return await self._take_back(ref, connection, snapshot)

    async def _take_back(self, ref: SessionRef, connection: HeldConnection, snapshot: Snapshot) -> bool:
        """Take a suspension back that was begun and not finished."""
        try:
            await connection.unseal()
        except Conflict as error:
            if error.code != "sealed":
                raise
            await self._give_up(ref, connection, saved_in(snapshot))
            return False
        async with self._context.database.transaction(self._tenant_id) as tx:
            await self._history.hold(tx, ref.session_id)
            if (await self._sessions.require(tx, ref.session_id)).snapshot_id == snapshot.id:
                await self._sessions.place_state(tx, ref.session_id, None)
        _log.info("suspension_taken_back", session=str(ref.session_id))
        return True

    async def _give_up(self, ref: SessionRef, connection: HeldConnection, saved: Saved) -> None:
        await self._context.kernels.forget(ref.session_id)
        await self._context.executor.suspend(ref, connection.endpoint.audience, saved)

    async def say(self, ref: SessionRef, snapshot: Snapshot, manifest: Manifest) -> bool:
        """Commit that the session is suspended; false when somebody else has done so, or has resumed it already.

        Whoever did either has given the host up.
        """
        variables = manifest.variables
        suspended = SessionSuspended(
            snapshot_id=snapshot.id,
            size=manifest.size,
            variables=len(variables.imports) + len(variables.variables),
            files=len(manifest.workspace.files),
            not_saved=losses(manifest.not_saved),
            not_saved_count=len(manifest.not_saved),
        )
        async with self._context.database.transaction(self._tenant_id) as tx:
            await self._history.hold(tx, ref.session_id)
            session = await self._sessions.require(tx, ref.session_id)
            if session.snapshot_id != snapshot.id or session.suspended_at is not None:
                return False
            await self._sessions.place_state(tx, ref.session_id, snapshot.id, suspended=True)
            await self._history.append(ref.session_id, [suspended], actor="system", tx=tx)
        return True

    # ------------------------------------------------------------------ the new host

    async def _note(self, ref: SessionRef, snapshot: Snapshot, reply: RestoreReply, boot_id: str) -> None:
        """Commit that the session's state is in its kernel again; once, whoever restored it too."""
        not_restored = [*reply.not_restored, *reply.files_not_restored]
        resumed = SessionResumed(
            snapshot_id=snapshot.id,
            variables=len(reply.restored),
            files=reply.files,
            incarnation=reply.incarnation,
            not_restored=losses(not_restored),
            not_restored_count=len(not_restored),
        )
        async with self._context.database.transaction(self._tenant_id) as tx:
            await self._history.hold(tx, ref.session_id)
            if (await self._sessions.require(tx, ref.session_id)).snapshot_id == snapshot.id:
                await self._sessions.place_state(tx, ref.session_id, None)
                await self._sessions.place_host(tx, ref.session_id, boot_id)
                await self._history.append(ref.session_id, [resumed], actor="kernel", tx=tx)
