"""Runs: one active per session, driven by one gateway under a lease, taken over when the lease runs out.

Times of leases are the database's, so that gateways' clocks need not agree. Driving a run is the supervisor's.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import Final, TypeAlias
from uuid import UUID

from carrel_gateway.context import Principal, ProcessContext
from carrel_gateway.errors import NotFound, SessionBusy, StaleRun
from carrel_gateway.history.service import Fence, HistoryService
from carrel_gateway.runs import repository
from carrel_gateway.runs.repository import Run
from carrel_gateway.sessions.service import SessionService
from carrel_gateway.storage.database import Transaction
from carrel_gateway.storage.ids import new_id
from carrel_wire.log import LogPayload, RunFinished, RunKind, RunTakenOver

__all__ = ["Beginning", "Fence", "Run", "RunService", "claim_expired"]

Beginning: TypeAlias = Callable[[Transaction], Awaitable[Sequence[LogPayload]]]
CLAIMS: Final = 50
"""Runs that one look takes over at most; the others go to other gateways, or to the next look."""


class RunService:
    """Runs of one tenant's sessions."""

    def __init__(self, context: ProcessContext, principal: Principal) -> None:
        self._context = context
        self._principal = principal
        self._database = context.database
        self._history = HistoryService(context, principal)

    async def start(
        self,
        session_id: UUID,
        *,
        kind: RunKind,
        first: Sequence[LogPayload] | Beginning,
        model: str | None,
        run_id: UUID | None = None,
    ) -> Run:
        """Start a run, owned by this gateway, and append its first events; both or nothing.

        Parameters
        ----------
        first
            The events, or what gives them within the transaction: nobody else can start a run from then on.

        Raises
        ------
        NotFound
            There is no such session.
        SessionBusy
            A run is going on; `run_id` in the detail names it.
        """
        now = datetime.now(UTC)
        run = Run(
            id=run_id or new_id(),
            session_id=session_id,
            user_id=self._principal.user_id,
            kind=kind,
            model=model,
            status="running",
            owner=self._context.gateway_id,
            generation=1,
            lease_until=now,
            cancel_requested=False,
            started_at=now,
        )
        await SessionService(self._context, self._principal).get(session_id)
        lease = self._context.settings.run_lease_seconds
        async with self._database.transaction(self._principal.tenant_id) as tx:
            if not await repository.start(tx, run, lease_seconds=lease):
                other = await repository.active(tx, session_id)
                raise SessionBusy(
                    "a run is going on in this session; wait for its end, or cancel it",
                    retry_after_seconds=1,
                    run_id=str(other.id) if other else None,
                )
            payloads = await first(tx) if callable(first) else first
            await self._history.append(session_id, payloads, actor="user", tx=tx)
            found = await repository.active(tx, session_id)
        if found is None:
            raise NotFound("there is no such session", code="session_not_found")
        return found

    async def renew(self, fence: Fence) -> None:
        """Hold the lease from now on for as long as the settings say.

        Raises
        ------
        StaleRun
            The run is over, or another gateway's.
        """
        async with self._database.transaction(self._principal.tenant_id) as tx:
            if not await repository.renew(tx, fence, self._context.settings.run_lease_seconds):
                raise _stale()

    async def hand_over(self, fence: Fence) -> None:
        """Let the lease run out now, so that another gateway goes on at once.

        Raises
        ------
        StaleRun
            The run is over, or another gateway's.
        """
        async with self._database.transaction(self._principal.tenant_id) as tx:
            if not await repository.renew(tx, fence, 0.0):
                raise _stale()

    async def finish(self, session_id: UUID, fence: Fence, payload: RunFinished) -> None:
        """End the run with its last event.

        Raises
        ------
        StaleRun
            The run is over, or another gateway's.
        """
        async with self._database.transaction(self._principal.tenant_id) as tx:
            if not await repository.finish(tx, fence, payload.status):
                raise _stale()
            await self._history.append(session_id, [payload], actor="agent", tx=tx)

    async def request_cancel(self, session_id: UUID) -> UUID | None:
        """Ask the session's active run to stop, and return its id; none when nothing is going on."""
        async with self._database.transaction(self._principal.tenant_id) as tx:
            return await repository.request_cancel(tx, session_id)

    async def active(self, session_id: UUID) -> Run | None:
        """Return the session's active run."""
        async with self._database.transaction(self._principal.tenant_id, write=False) as tx:
            return await repository.active(tx, session_id)

    async def is_cancel_requested(self, fence: Fence) -> bool:
        """Return whether someone asked to stop the run.

        Raises
        ------
        StaleRun
            The run is over, or another gateway's.
        """
        async with self._database.transaction(self._principal.tenant_id, write=False) as tx:
            requested = await repository.is_cancel_requested(tx, fence)
        if requested is None:
            raise _stale()
        return requested


async def claim_expired(context: ProcessContext) -> list[tuple[Principal, Run]]:
    """Take over runs whose owner is silent, of all tenants, each with a `run.taken_over` in its log."""
    async with context.database.worker_transaction() as connection:
        found = await repository.expired(connection, context.database.dialect, context.gateway_id, limit=CLAIMS)
    claimed: list[tuple[Principal, Run]] = []
    for tenant_id, run_id in found:
        run = await _claim(context, tenant_id, run_id)
        if run is not None:
            claimed.append((Principal(tenant_id=tenant_id, user_id=run.user_id), run))
    return claimed


async def _claim(context: ProcessContext, tenant_id: UUID, run_id: UUID) -> Run | None:
    lease = context.settings.run_lease_seconds
    async with context.database.transaction(tenant_id) as tx:
        run = await repository.claim(tx, run_id, context.gateway_id, lease_seconds=lease)
        if run is not None:
            history = HistoryService(context, Principal(tenant_id=tenant_id, user_id=run.user_id))
            taken = RunTakenOver(run_id=run.id, generation=run.generation)
            try:
                await history.append(run.session_id, [taken], actor="system", tx=tx)
            except NotFound:  # the session is being deleted, and the run with it
                return None
        return run


def _stale() -> StaleRun:
    return StaleRun("the run is over, or another gateway has taken it over")
