"""The kernel host of one session, made ready: connected, uploads in place, nothing of an earlier process left over."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Final
from uuid import UUID

from carrel_gateway.artifacts.service import ArtifactService
from carrel_gateway.context import Principal, ProcessContext
from carrel_gateway.errors import Conflict
from carrel_gateway.execution.placement import place_missing
from carrel_gateway.execution.waking import Waking
from carrel_gateway.executors.base import SessionRef
from carrel_gateway.history.service import HistoryService
from carrel_gateway.kernels.connection import MAIN
from carrel_gateway.kernels.pool import HeldConnection
from carrel_gateway.sessions.service import Session, SessionService
from carrel_wire.host import HostState
from carrel_wire.log import KernelChanged, SessionResumed

_RECENT: Final = 200

Adopt = Callable[[SessionRef, HeldConnection, HostState], Awaitable[None]]


class SessionHosts:
    """Ready connections for one principal."""

    def __init__(self, context: ProcessContext, principal: Principal, adopt: Adopt) -> None:
        self._context = context
        self._principal = principal
        self._adopt = adopt
        self._waking = Waking(context, principal)

    async def ref(self, session_id: UUID) -> SessionRef:
        """Return the session as executors know it.

        Raises
        ------
        NotFound
            There is no such session, or it is another tenant's.
        Conflict
            It is archived.
        """
        held = self._context.kernels.held(session_id)
        if held and held.session.tenant_id == self._principal.tenant_id:
            return held.session
        session = await self._active(session_id)
        return SessionRef(
            tenant_id=session.tenant_id,
            session_id=session.id,
            owner_id=session.owner_id,
            session_class=self._context.settings.session_class,
        )

    async def _active(self, session_id: UUID) -> Session:
        session = await SessionService(self._context, self._principal).get(session_id)
        if session.status != "active":
            raise Conflict("The session is archived; nothing runs in it any more.", code="archived")
        return session

    async def ready(self, session: SessionRef, failed: HeldConnection | None = None) -> HeldConnection:
        """Return a connection on which code may be run; another than `failed`.

        Raises
        ------
        ExecutorFailed
            No kernel host could be had.
        """
        pool = self._context.kernels
        held = pool.held(session.session_id)
        if held and held is not failed and held.prepared:
            return held
        async with pool.lock(session.session_id):
            held = pool.held(session.session_id)
            if held and held is failed:
                await pool.forget(session.session_id)
                held = None
            if held and held.prepared:
                return held
            # One that was deleted meanwhile gets no new host; one that was suspended gets its state.
            connection, restored_from = await self._waking.open(session, await self._active(session.session_id))
            await self._prepare(session, connection, restored_from)
            return connection

    async def find(self, session: SessionRef) -> HeldConnection | None:
        """Return a connection when a host is there; starts and prepares nothing."""
        return await self._context.kernels.find(session)

    async def _prepare(self, session: SessionRef, connection: HeldConnection, restored_from: datetime | None) -> None:
        state = await connection.state()
        artifacts = ArtifactService(self._context, self._principal)
        await place_missing(artifacts, session.session_id, connection, since=restored_from)
        if restored_from is None:
            await self._look_at_kernel(session, connection, state)
        await self._adopt(session, connection, state)
        connection.fresh = False
        connection.prepared = True

    async def _look_at_kernel(self, session: SessionRef, connection: HeldConnection, state: HostState) -> None:
        kernel = next((kernel for kernel in state.kernels if kernel.id == MAIN), None)
        connection.incarnation = kernel.incarnation if kernel else None
        if connection.fresh:
            await self._note(session, connection.incarnation)
        elif kernel and kernel.execution_count == 0 and await self._last_noted(session) != kernel.incarnation:
            await self._note(session, kernel.incarnation)  # bound by the operator: nobody else says that it is new

    async def saw_kernel(self, session: SessionRef, connection: HeldConnection, incarnation: str) -> None:
        """Take note of the kernel that has begun a cell: a host can be replaced without a connection being lost."""
        known, connection.incarnation = connection.incarnation, incarnation
        if known not in (None, incarnation) and await self._last_noted(session) != incarnation:
            await self._note(session, incarnation)

    async def _note(self, session: SessionRef, incarnation: str | None) -> None:
        history = HistoryService(self._context, self._principal)
        lost_state = await history.has_cells(session.session_id)
        reason = "host_lost" if lost_state else "started"
        change = KernelChanged(reason=reason, incarnation=incarnation, lost_state=lost_state)
        await history.append(session.session_id, [change], actor="kernel")

    async def _last_noted(self, session: SessionRef) -> str | None:
        """Return the incarnation that the log named last, if it did so lately."""
        last_seq = (await SessionService(self._context, self._principal).get(session.session_id)).last_seq
        history = HistoryService(self._context, self._principal)
        recent = await history.events(session.session_id, after=max(0, last_seq - _RECENT), limit=_RECENT)
        changes = [event.payload for event in recent if isinstance(event.payload, KernelChanged | SessionResumed)]
        return changes[-1].incarnation if changes else None
