"""Snapshots of sessions at rest, so that little is lost with a kernel host: taken in the background, and never sealed.

Every gateway looks, and one at a time takes a session's. It takes no lock of the session: a cell that comes meanwhile
waits for no more than the snapshot itself, while the kernel is asked for its variables, and not for the store.
"""

from __future__ import annotations

import asyncio
import time
from typing import Final, Literal, TypeAlias
from uuid import UUID

import structlog

from carrel_gateway.context import Principal, ProcessContext
from carrel_gateway.errors import CarrelError, Conflict, ExecutorFailed, KernelLost
from carrel_gateway.execution.service import ExecutionService
from carrel_gateway.executors.base import SessionRef
from carrel_gateway.history.service import HistoryService
from carrel_gateway.identity.tenants import all_tenants, worker_of
from carrel_gateway.kernels.connection import main_of
from carrel_gateway.kernels.pool import HeldConnection
from carrel_gateway.runs.service import RunService
from carrel_gateway.sessions.leasing import leased
from carrel_gateway.sessions.service import Session, SessionService
from carrel_gateway.snapshots.service import SnapshotService
from carrel_gateway.snapshots.transfer import ContentChanged
from carrel_gateway.storage.database import DatabaseAway
from carrel_gateway.storage.objects import ObjectsAway
from carrel_gateway.suspension import metrics
from carrel_wire.log import ArtifactStored, CellFinished, FileDeleted, KernelChanged

LOOK_SECONDS: Final = 15.0
FIRST_PAUSE_SECONDS: Final = 15.0
LONGEST_PAUSE_SECONDS: Final = 600.0
_LOOKS_PER_REST: Final = 4
"""A session is saved at most a quarter of the time late."""
_AT_ONCE: Final = 2
_LIMIT: Final = 100

_CHANGES: Final = (CellFinished, KernelChanged, ArtifactStored, FileDeleted)

Outcome: TypeAlias = Literal["taken", "nothing", "in_use", "elsewhere", "failed"]

_log = structlog.get_logger(__name__)


class Checkpoints:
    """The looks of one process at one tenant's sessions."""

    def __init__(self, context: ProcessContext, principal: Principal) -> None:
        self._context = context
        self._principal = principal
        self._put_off: dict[UUID, tuple[float, float]] = {}
        """Sessions that could not be saved: when to look again, by the monotonic clock, and after how long."""

    async def look(self) -> list[Outcome]:
        """Save the sessions that are at rest now, and return what became of each."""
        sessions = SessionService(self._context, self._principal)
        found = await sessions.at_rest(seconds=self._context.settings.checkpoint_seconds, limit=_LIMIT)
        now = time.monotonic()
        ids = {session.id for session in found}
        self._put_off = {key: value for key, value in self._put_off.items() if key in ids}
        due = [session for session in found if self._put_off.get(session.id, (now, 0.0))[0] <= now]
        at_once = asyncio.Semaphore(_AT_ONCE)

        async def one(session: Session) -> Outcome:
            async with at_once:
                outcome = await Checkpoint(self._context, session).take()
            metrics.CHECKPOINTS.labels(outcome).inc()
            if outcome in ("taken", "nothing"):
                self._put_off.pop(session.id, None)
            else:
                pause = min(2 * self._put_off.get(session.id, (0.0, FIRST_PAUSE_SECONDS / 2))[1], LONGEST_PAUSE_SECONDS)
                self._put_off[session.id] = time.monotonic() + pause, pause
            return outcome

        return list(await asyncio.gather(*map(one, due)))


async def checkpoint_for_ever(context: ProcessContext) -> None:
    """Save sessions of all tenants that have come to rest, until cancelled; comes back at once when it is off."""
    rest = context.settings.checkpoint_seconds
    looks: dict[UUID, Checkpoints] = {}
    while rest:
        try:
            tenants = await all_tenants(context.database)
        except CarrelError as error:
            _log.warning("tenants_not_seen", code=error.code)
            tenants = list(looks)
        looks = {one: looks.get(one) or Checkpoints(context, worker_of(one)) for one in tenants}
        for tenant_id, look in looks.items():
            try:
                await look.look()
            except CarrelError as error:
                _log.warning("sessions_at_rest_not_seen", tenant=str(tenant_id), code=error.code)
            except Exception:  # noqa: BLE001 - the other tenants, and the next look, must come
                _log.exception("sessions_at_rest_not_seen", tenant=str(tenant_id))
        await asyncio.sleep(min(LOOK_SECONDS, rest / _LOOKS_PER_REST))


class Checkpoint:
    """One snapshot, as the session's own tenant and owner."""

    def __init__(self, context: ProcessContext, session: Session) -> None:
        principal = Principal(session.tenant_id, session.owner_id)
        self._context = context
        self._session = session
        self._sessions = SessionService(context, principal)
        self._snapshots = SnapshotService(context, principal)
        self._executions = ExecutionService(context, principal)
        self._runs = RunService(context, principal)
        self._history = HistoryService(context, principal)

    async def take(self) -> Outcome:
        """Take it, or say why not; raises nothing that one session is to blame for."""
        session = self._session
        log = _log.bind(session=str(session.id))
        try:
            async with leased(self._context, session.tenant_id, session.id) as mine:
                return await self._take() if mine else "elsewhere"
        except (DatabaseAway, ObjectsAway, ExecutorFailed, KernelLost) as error:  # the kernel is not to blame
            self._context.kernels.doubt(session.id)
            log.warning("checkpoint_failed", code=error.code, error=error.message)
        except (Conflict, ContentChanged) as error:
            log.info("checkpoint_put_off", code=error.code)
            return "in_use"
        except CarrelError as error:
            # A kernel that cannot be saved, or dies of it, is not asked again before something has run in it.
            log.warning("checkpoint_failed", code=error.code, error=error.message)
            await self._checked()
        return "failed"

    async def _take(self) -> Outcome:
        session = self._session
        if await self._runs.active(session.id):
            return "in_use"
        connection = await self._context.kernels.find(SessionRef(session.tenant_id, session.id, session.owner_id))
        if connection is None:
            await self._checked()
            return "nothing"
        if not await self._is_quiet(connection):
            return "in_use"
        if not (await self._has_state(connection) and await self._has_run()):
            await self._checked()
            return "nothing"
        began = time.perf_counter()
        snapshot, manifest = await self._snapshots.save(session.id, connection, suspends=False)
        seconds = time.perf_counter() - began
        metrics.CHECKPOINT_SECONDS.observe(seconds)
        await self._sessions.checked(session.id, snapshot.seq)
        _log.info("checkpoint_taken", session=str(session.id), bytes=manifest.size, seconds=round(seconds, 3))
        return "taken"

    async def _is_quiet(self, connection: HeldConnection) -> bool:
        """Whether nothing runs, and all that ran is recorded; what a dead gateway left is recorded first."""
        state = await connection.state()
        if state.unacknowledged and not state.busy:
            await self._executions.recover(self._session.id)
            state = await connection.state()
        return not state.busy and not state.unacknowledged

    async def _has_state(self, connection: HeldConnection) -> bool:
        """Whether the kernel has run something on the host that has the session's state.

        On another one nothing has been brought back yet: saving it would replace what is to come back.
        """
        state = await connection.state()
        kernel = main_of(state)
        known = (await self._sessions.get(self._session.id)).boot_id
        return kernel is not None and not kernel.sealed and state.boot_id == known

    async def _has_run(self) -> bool:
        """Whether the kernel or its workspace has changed since the last snapshot, as far as the log says."""
        snapshot = await self._snapshots.latest(self._session.id)
        if snapshot is None:
            return await self._history.has_cells(self._session.id)
        after = snapshot.seq
        while page := await self._history.events(self._session.id, after=after):
            after = page[-1].seq
            if any(isinstance(event.payload, _CHANGES) for event in page):
                return True
        return False

    async def _checked(self) -> None:
        try:
            await self._sessions.checked(self._session.id, self._session.last_seq)
        except CarrelError as error:
            _log.warning("checkpoint_not_noted", session=str(self._session.id), code=error.code)
