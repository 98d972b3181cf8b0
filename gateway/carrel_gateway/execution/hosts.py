"""The kernel host of one session, made ready: connected, uploads in place, nothing of an earlier process left over."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from typing import Final, TypeAlias, get_args
from uuid import UUID

from carrel_gateway.artifacts.service import ArtifactService
from carrel_gateway.context import Principal, ProcessContext
from carrel_gateway.errors import Conflict, KernelLost
from carrel_gateway.execution.placement import place_missing
from carrel_gateway.execution.waking import Waking
from carrel_gateway.executors.base import SessionRef
from carrel_gateway.history.service import HistoryService, LiveEvent
from carrel_gateway.kernels.connection import main_of
from carrel_gateway.kernels.pool import HeldConnection
from carrel_gateway.sessions.service import Session, SessionService
from carrel_gateway.storage.ids import new_id
from carrel_wire.host import HostState
from carrel_wire.log import KernelChanged, SessionRecovered, SessionResumed

_RECENT: Final = 200

_Change: TypeAlias = KernelChanged | SessionResumed | SessionRecovered
Adopt = Callable[[SessionRef, HeldConnection, HostState], Awaitable[None]]


class SessionHosts:
    """Ready connections for one principal."""

    def __init__(self, context: ProcessContext, principal: Principal, adopt: Adopt) -> None:
        self._context = context
        self._principal = principal
        self._adopt = adopt
        self._history = HistoryService(context, principal)
        self._sessions = SessionService(context, principal)
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
        session = await self._sessions.get(session_id)
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
            try:
                async with self._telling(session.session_id):
                    connection, restored_from = await self._waking.open(session, await self._active(session.session_id))
                    await self._prepare(session, connection, restored_from)
            except KernelLost:  # what is held may be a host that is gone: whoever comes next asks for it
                await pool.forget(session.session_id)
                raise
            return connection

    @asynccontextmanager
    async def _telling(self, session_id: UUID) -> AsyncGenerator[None]:
        """Tell whoever follows the session that its kernel is waited for, when that takes long."""

        async def tell() -> None:
            while True:
                await asyncio.sleep(self._context.settings.wake_hold_seconds)
                data = {"message": "the session's kernel is being made ready"}
                await self._history.publish_live(session_id, LiveEvent("kernel.waking", str(new_id()), data))

        telling = asyncio.create_task(tell(), name=f"waking-{session_id}")
        try:
            yield
        finally:
            telling.cancel()
            with suppress(asyncio.CancelledError):
                await telling

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
        """Take note of a host or kernel that nobody has spoken of yet."""
        kernel = main_of(state)
        connection.incarnation = kernel.incarnation if kernel else None
        known = (await self._active(session.session_id)).boot_id
        last = await self._last_change(session)
        same_host = known == state.boot_id
        if same_host and (kernel is None or kernel.execution_count):
            return
        if same_host and last and last.incarnation in (None, connection.incarnation):
            return  # it is known, or its predecessor's end was told with the cell that ended it
        told = (
            not connection.fresh
            and kernel is not None
            and (kernel.execution_count > 0 or (last is not None and last.incarnation == kernel.incarnation))
        )
        change = None if told else await self._change(session, connection.incarnation, last, same_host=same_host)
        async with self._context.database.transaction(session.tenant_id) as tx:
            await self._history.hold(tx, session.session_id)
            row = await self._sessions.require(tx, session.session_id)
            if row.boot_id == state.boot_id and not same_host:
                return  # another gateway was first
            await self._sessions.place_host(tx, session.session_id, state.boot_id)
            if change:
                await self._history.append(session.session_id, [change], actor="kernel", tx=tx)

    async def saw_kernel(self, session: SessionRef, connection: HeldConnection, incarnation: str) -> None:
        """Take note of the kernel that has begun a cell: a host can be replaced without a connection being lost."""
        known, connection.incarnation = connection.incarnation, incarnation
        if known in (None, incarnation):
            return
        last = await self._last_change(session)
        if last is None or last.incarnation != incarnation:
            change = await self._change(session, incarnation, last, same_host=False)
            await self._history.append(session.session_id, [change], actor="kernel")

    async def _change(
        self, session: SessionRef, incarnation: str | None, last: _Change | None, *, same_host: bool
    ) -> KernelChanged:
        begins_anew = isinstance(last, KernelChanged) and last.reason == "reset"
        lost_state = not begins_anew and await self._history.has_cells(session.session_id)
        reason = ("died" if same_host else "host_lost") if lost_state else "started"
        return KernelChanged(reason=reason, incarnation=incarnation, lost_state=lost_state)

    async def _last_change(self, session: SessionRef) -> _Change | None:
        """Return what the log said last of the session's kernel, if it did so lately."""
        last_seq = (await self._sessions.get(session.session_id)).last_seq
        after = max(0, last_seq - _RECENT)
        found = await self._history.latest(session.session_id, *get_args(_Change), after=after)
        return found if isinstance(found, _Change) else None
