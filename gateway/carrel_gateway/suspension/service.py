"""Suspend, resume and fork: a session's state leaves its kernel as a snapshot, and comes back in another.

The order of a suspension makes it safe to die in: the snapshot is stored and named by the session, then the kernel is
sealed, then the session is said to be suspended, then the host is given up. Until the kernel is sealed it is the truth
and goes on; from then on the snapshot is. Whoever uses the session next sees how far it came (`execution.waking`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final, TypeVar
from uuid import UUID

import structlog

from carrel_gateway.context import Principal, ProcessContext
from carrel_gateway.errors import CarrelError, Conflict, KernelLost, PermissionDenied, SessionBusy
from carrel_gateway.execution.service import ExecutionService
from carrel_gateway.execution.waking import Waking, saved_in
from carrel_gateway.executors.base import Saved, SessionRef
from carrel_gateway.history.service import HistoryService
from carrel_gateway.kernels.connection import main_of
from carrel_gateway.kernels.pool import HeldConnection
from carrel_gateway.runs.service import RunService
from carrel_gateway.sessions.service import Session, SessionService
from carrel_gateway.snapshots.service import Snapshot, SnapshotService
from carrel_gateway.suspension.forking import Forking
from carrel_wire.log import SessionResumed, StateLoss
from carrel_wire.snapshots import Manifest, Unsaved

_ATTEMPTS: Final = 3
DRAIN_SECONDS: Final = 30.0
"""What cells put out is committed within about a second of their end."""
_AWAY_SECONDS: Final = 5.0
"""A host that is given up is found to be gone within about a second."""
_PAUSE_SECONDS: Final = 0.1
_RECENT: Final = 200

_T = TypeVar("_T")

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class SavedState:
    """A snapshot, as people see it."""

    id: UUID
    created_at: datetime
    size: int
    variables: list[str]
    files: list[str]
    not_saved: list[Unsaved]

    @classmethod
    def of(cls, snapshot: Snapshot, manifest: Manifest) -> SavedState:
        """Describe a snapshot."""
        variables, workspace = manifest.variables, manifest.workspace
        return cls(
            id=snapshot.id,
            created_at=snapshot.created_at,
            size=manifest.size,
            variables=[item.name for item in (*variables.imports, *variables.variables)],
            files=[file.path for file in workspace.files],
            not_saved=manifest.not_saved,
        )


@dataclass(frozen=True, slots=True)
class Suspended:
    """A session that is suspended."""

    session: Session
    snapshot: SavedState


@dataclass(frozen=True, slots=True)
class Resumed:
    """A session that has its state again."""

    session: Session
    variables: int
    files: int
    not_restored: list[StateLoss]
    not_restored_count: int


@dataclass(frozen=True, slots=True)
class Forked:
    """A new session, and the state that it begins with."""

    session: Session
    snapshot: SavedState | None


class SuspensionService:
    """Suspensions and forks of one principal's sessions."""

    def __init__(self, context: ProcessContext, principal: Principal) -> None:
        self._context = context
        self._principal = principal
        self._tenant_id = principal.tenant_id
        self._history = HistoryService(context, principal)
        self._sessions = SessionService(context, principal)
        self._snapshots = SnapshotService(context, principal)
        self._executions = ExecutionService(context, principal)
        self._runs = RunService(context, principal)
        self._waking = Waking(context, principal)
        self._forking = Forking(context, principal)

    async def suspend(
        self, session_id: UUID, *, attempts: int = _ATTEMPTS, wanted: Callable[[], bool] = lambda: True
    ) -> Suspended:
        """Store the session's state and give its kernel up; nothing happens when that has been done.

        Parameters
        ----------
        attempts
            Snapshots that are taken at most, while cells come in between.
        wanted
            Whether it still shall be; asked for the last time before it cannot be taken back.

        Raises
        ------
        NotFound
            There is no such session.
        SessionBusy
            A run is going on, cells come all the time, or their output is not stored yet.
        Conflict
            The session is archived, has no kernel (`no_kernel`), or a cell runs (`kernel_busy`).
        CarrelError
            Something that is needed is away. The session goes on.
        """
        session = await self._at_rest(session_id)
        if session.suspended_at is None:

            async def act(ref: SessionRef) -> None:
                await self._suspend(ref, attempts, wanted)

            await self._with_kernel(session_id, act)
            session = await self._sessions.get(session_id)
        else:
            try:
                await self.finish(session)
            except CarrelError as error:  # its state is kept: what is left of it is found by whoever uses it next
                _log.info("suspended_host_not_ended", session=str(session_id), code=error.code)
        return Suspended(session, await self._state_of(session))

    async def finish(self, session: Session) -> bool:
        """Give up the host of a suspended session, where somebody died before it or the platform made another one.

        False when it has none, or one that is being given the session's state just now.
        """
        if session.snapshot_id is None:
            return False
        ref = await self._executions.ref(session.id)
        return await self.end_unused(ref, saved_in(await self._snapshots.find(session.snapshot_id)))

    async def end_unused(self, ref: SessionRef, saved: Saved) -> bool:
        """Give up a host whose kernel has run nothing and has no state; false when there is no such host.

        The kernel is sealed first, so that nothing can begin to run in it meanwhile.
        """
        async with self._context.kernels.lock(ref.session_id):
            connection = await self._context.kernels.find(ref)
            if connection is None or not await _seal_unused(connection):
                return False
            await self._context.kernels.forget(ref.session_id)
            await self._context.executor.suspend(ref, connection.endpoint.audience, saved)
        return True

    async def resume(self, session_id: UUID) -> Resumed:
        """Give the session a kernel with its state, and return what is back; as before when that has been done.

        Raises
        ------
        NotFound
            There is no such session.
        Conflict
            The session is archived, or was never suspended (`not_suspended`).
        CarrelError
            No kernel could be had, or it could not be given the state. The session stays suspended.
        """
        session = await self._active(session_id)
        if session.snapshot_id is not None:
            await self._executions.awake(session_id)
            session = await self._sessions.get(session_id)
        resumed = await self._last_resumed(session)
        return Resumed(
            session=session,
            variables=resumed.variables,
            files=resumed.files,
            not_restored=resumed.not_restored,
            not_restored_count=resumed.not_restored_count,
        )

    async def fork(self, session_id: UUID, *, title: str | None = None) -> Forked:
        """Open a session of the same owner with this one's history, files and state.

        Raises
        ------
        NotFound
            There is no such session.
        PermissionDenied
            It is another user's: a snapshot is loaded for its owner alone (`not_owner`).
        SessionBusy
            A run is going on.
        Conflict
            The session is archived, or a cell runs (`kernel_busy`).
        CarrelError
            Something that is needed is away; no session was made.
        """
        if (await self._at_rest(session_id)).owner_id != self._principal.user_id:
            raise PermissionDenied("only the owner of a session can fork it", code="not_owner")

        async def fork(ref: SessionRef) -> Forked:
            session = await self._sessions.get(session_id)
            found = await self._saved(session, ref)
            made = await self._forking.fork(session, title=title, snapshot=found[0] if found else None)
            return Forked(made, SavedState.of(*found) if found else None)

        return await self._with_kernel(session_id, fork)

    # ------------------------------------------------------------------ suspend

    async def _suspend(self, ref: SessionRef, attempts: int, wanted: Callable[[], bool]) -> None:
        """Suspend, under the session's lock in the pool."""
        session = await self._sessions.get(ref.session_id)
        if session.suspended_at is not None:
            return  # meanwhile
        connection = await self._context.kernels.find(ref)
        if connection is None:
            raise Conflict("the session has no kernel: there is nothing to suspend", code="no_kernel")
        for _ in range(attempts):
            await self._drain(ref, connection)
            snapshot, manifest = await self._snapshots.save(ref.session_id, connection, suspends=True)
            if not wanted():
                await self._take_back(ref, snapshot)
                raise Conflict("the session is used again; it is not suspended", code="not_wanted")
            if await self._seal(ref, connection, snapshot):
                if await self._waking.say(ref, snapshot, manifest):
                    await self._give_up(ref, connection, snapshot)
                return
        raise SessionBusy("cells are run in the session all the time; wait for their end", retry_after_seconds=1)

    async def _finish_begun(self, ref: SessionRef) -> None:
        """Finish or take back a suspension that somebody began who is gone, or is at it."""
        session = await self._sessions.get(ref.session_id)
        if session.snapshot_id is None or session.suspended_at is not None:
            return
        snapshot = await self._snapshots.find(session.snapshot_id)
        if not await self._waking.goes_on(ref, snapshot):  # whoever looked has given the host up
            await self._waking.say(ref, snapshot, await self._snapshots.manifest(snapshot))

    async def _drain(self, ref: SessionRef, connection: HeldConnection) -> None:
        """Wait until the output of all cells is committed: the host's spool may go with it."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + DRAIN_SECONDS
        while (state := await connection.state()).unacknowledged or state.busy:
            if state.busy:
                raise Conflict("a cell is running; wait for its end, or interrupt it", code="kernel_busy")
            if loop.time() > deadline:
                raise SessionBusy("the output of earlier cells is still being stored", retry_after_seconds=5)
            await self._context.kernels.in_flight.wait(ref.session_id, seconds=deadline - loop.time())
            await asyncio.sleep(_PAUSE_SECONDS)

    async def _seal(self, ref: SessionRef, connection: HeldConnection, snapshot: Snapshot) -> bool:
        """Seal the kernel; false, and the suspension taken back, when something has run meanwhile."""
        try:
            await connection.seal(snapshot.digest)
        except Conflict:
            await self._take_back(ref, snapshot)
            return False
        return True

    async def _take_back(self, ref: SessionRef, snapshot: Snapshot) -> None:
        """Say that the state lies in the kernel, which goes on."""
        async with self._context.database.transaction(self._tenant_id) as tx:
            await self._history.hold(tx, ref.session_id)
            if (await self._sessions.require(tx, ref.session_id)).snapshot_id == snapshot.id:
                await self._sessions.place_state(tx, ref.session_id, None)

    async def _give_up(self, ref: SessionRef, connection: HeldConnection, snapshot: Snapshot) -> None:
        await self._context.kernels.forget(ref.session_id)
        try:
            await self._context.executor.suspend(ref, connection.endpoint.audience, saved_in(snapshot))
        except CarrelError as error:  # it runs nothing any more, and is given up when the session is resumed
            _log.warning("sealed_host_not_given_up", session=str(ref.session_id), code=error.code)

    # ------------------------------------------------------------------ helpers

    async def _with_kernel(self, session_id: UUID, act: Callable[[SessionRef], Awaitable[_T]]) -> _T:
        """Act under the session's lock when all that its kernel has run is recorded, and no suspension half done.

        Again when the host is away or sealed: another gateway is giving it up just now.
        """
        ref = await self._executions.ref(session_id)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _AWAY_SECONDS
        while True:
            try:
                await self._executions.recover(session_id)
                async with self._context.kernels.lock(session_id):
                    await self._finish_begun(ref)
                    return await act(ref)
            except (KernelLost, Conflict) as error:
                passes = isinstance(error, KernelLost) or error.code == "sealed"
                if not passes or loop.time() > deadline:
                    raise
                self._context.kernels.doubt(session_id)
                await asyncio.sleep(_PAUSE_SECONDS)

    async def _active(self, session_id: UUID) -> Session:
        session = await self._sessions.get(session_id)
        if session.status != "active":
            raise Conflict("the session is archived; it can be read and not changed", code="archived")
        return session

    async def _at_rest(self, session_id: UUID) -> Session:
        session = await self._active(session_id)
        run = await self._runs.active(session_id)
        if run is not None:
            raise SessionBusy(
                "a run is going on in this session; wait for its end, or cancel it",
                retry_after_seconds=1,
                run_id=str(run.id),
            )
        return session

    async def _saved(self, session: Session, ref: SessionRef) -> tuple[Snapshot, Manifest] | None:
        """Return a snapshot with the session's state as it is now; none when it has no kernel."""
        if session.suspended_at is not None and session.snapshot_id is not None:
            snapshot = await self._snapshots.find(session.snapshot_id)
            return snapshot, await self._snapshots.manifest(snapshot)
        connection = await self._context.kernels.find(ref)
        if connection is None:
            return None
        await self._drain(ref, connection)
        return await self._snapshots.save(session.id, connection, suspends=False)

    async def _state_of(self, session: Session) -> SavedState:
        if session.snapshot_id is None:
            raise Conflict("the session was resumed at the same moment", code="resumed")
        snapshot = await self._snapshots.find(session.snapshot_id)
        return SavedState.of(snapshot, await self._snapshots.manifest(snapshot))

    async def _last_resumed(self, session: Session) -> SessionResumed:
        after = max(0, session.last_seq - _RECENT)
        found = await self._history.latest(session.id, SessionResumed, after=after)
        if isinstance(found, SessionResumed):
            return found
        raise Conflict("the session is not suspended", code="not_suspended")


async def _seal_unused(connection: HeldConnection) -> bool:
    """Seal a kernel that has run nothing and has no variables; true also when it is sealed already."""
    state = await connection.state()
    kernel = main_of(state)
    if kernel is None or kernel.sealed:
        return kernel is not None
    if kernel.execution_count or state.busy or state.unacknowledged:
        return False
    manifest = await connection.snapshot()
    variables = manifest.variables
    if variables.imports or variables.variables or variables.not_saved:
        return False
    try:
        await connection.seal(manifest.digest)
    except Conflict:
        return False
    return True
