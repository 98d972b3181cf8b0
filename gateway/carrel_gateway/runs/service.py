"""Runs: one active per session, driven by one gateway under a lease, taken over when the lease runs out.

Times of leases are the database's, so that gateways' clocks need not agree. Messages may wait for the end of the run
that is going on: the transaction that ends it begins the next one, which is a run like any other from then on. Driving
a run is the supervisor's.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import Final, Literal, TypeAlias
from uuid import UUID

from carrel_gateway.context import Principal, ProcessContext
from carrel_gateway.errors import NotFound, SessionBusy, StaleRun, TooMany
from carrel_gateway.history.service import Fence, HistoryService, QueuedMessage
from carrel_gateway.runs import queue, repository
from carrel_gateway.runs.metrics import QUEUED
from carrel_gateway.runs.repository import Run
from carrel_gateway.sessions.access import may_send_now
from carrel_gateway.sessions.service import SessionService
from carrel_gateway.storage.database import Transaction
from carrel_gateway.storage.ids import new_id
from carrel_wire.log import LogPayload, MessageQueued, RunFinished, RunKind, RunStarted, RunTakenOver, UserMessage

__all__ = ["MAX_QUEUED", "Beginning", "Fence", "Run", "RunService", "claim_expired"]

Beginning: TypeAlias = Callable[[Transaction], Awaitable[Sequence[LogPayload]]]
_Why: TypeAlias = Literal["withdrawn", "archived", "permission_denied"]
CLAIMS: Final = 50
"""Runs that one look takes over at most; the others go to other gateways, or to the next look."""
MAX_QUEUED: Final = 10
"""Messages that wait in a session at most: more is a program that does not look at what it is answered."""


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
        run = self._new(session_id, run_id or new_id(), self._principal.user_id, kind=kind, model=model)
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

    async def finish(self, session_id: UUID, fence: Fence, payload: RunFinished) -> Run | None:
        """End the run with its last event, and begin the next one that waits, owned by this gateway; return that.

        Raises
        ------
        StaleRun
            The run is over, or another gateway's.
        """
        async with self._database.transaction(self._principal.tenant_id) as tx:
            if not await repository.finish(tx, fence, payload.status):
                raise _stale()
            waiting = await queue.hold(tx, session_id)
            await self._history.append(session_id, [payload], actor="agent", tx=tx)
            return await self._begin_next(tx, session_id, waiting) if waiting else None

    async def enqueue(self, session_id: UUID, question: MessageQueued, *, model: str | None) -> QueuedMessage | None:
        """Have a question wait for the end of the run that is going on; it is committed when this returns.

        Returns none when nothing is going on that it would have to wait for, or when its run is known already.

        Raises
        ------
        TooMany
            So many wait already.
        """
        async with self._database.transaction(self._principal.tenant_id) as tx:
            if not await queue.hold_active(tx, session_id) or await queue.is_known(tx, question.run_id):
                return None
            if await queue.count(tx, session_id) >= MAX_QUEUED:
                QUEUED.labels("refused").inc()
                raise TooMany(
                    f"{MAX_QUEUED} messages wait in this session; send it again when one has begun, or withdraw one "
                    "with DELETE …/messages/{id}",
                    code="too_many_queued",
                    retry_after_seconds=5,
                )
            (event,) = await self._history.append(session_id, [question], actor="user", tx=tx)
            message = QueuedMessage(
                id=question.message_id,
                run_id=question.run_id,
                seq=event.seq,
                user_id=self._principal.user_id,
                content=question.content,
                model=model,
                created_at=event.created_at,
            )
            await queue.add(tx, session_id, message)
        QUEUED.labels("queued").inc()
        return message

    async def queued(self, session_id: UUID, run_id: UUID) -> QueuedMessage | None:
        """Return the message that waits to begin a run, or was withdrawn before it did."""
        async with self._database.transaction(self._principal.tenant_id, write=False) as tx:
            return await queue.find(tx, session_id, run_id)

    async def withdraw(self, session_id: UUID, message_id: UUID) -> bool:
        """Have a message wait no longer, and end its run, which never began; false when it does not wait."""
        async with self._database.transaction(self._principal.tenant_id) as tx:
            run_id = await queue.withdraw(tx, session_id, message_id)
            if run_id is None:
                return False
            await self._history.append(session_id, [_never_begun(run_id, "withdrawn")], actor="user", tx=tx)
        QUEUED.labels("withdrawn").inc()
        return True

    async def request_cancel(self, session_id: UUID, run_id: UUID | None = None) -> UUID | None:
        """Ask the session's active run, or that one alone, to stop, and return its id; none when it is not going on."""
        async with self._database.transaction(self._principal.tenant_id) as tx:
            return await repository.request_cancel(tx, session_id, run_id)

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

    async def _begin_next(self, tx: Transaction, session_id: UUID, waiting: Sequence[QueuedMessage]) -> Run | None:
        """Begin the run of the first message that waits, and end before it those that may not begin any more."""
        session = await SessionService(self._context, self._principal).require(tx, session_id)
        for message in waiting:
            if session.status == "archived":
                await self._drop(tx, session_id, message, "archived")
            elif not await may_send_now(tx, session_id, session.owner_id, message.user_id):
                await self._drop(tx, session_id, message, "permission_denied")
            else:
                return await self._begin(tx, session_id, message)
        return None

    async def _drop(self, tx: Transaction, session_id: UUID, message: QueuedMessage, why: _Why) -> None:
        await queue.withdraw(tx, session_id, message.id)
        await self._history.append(session_id, [_never_begun(message.run_id, why)], actor="system", tx=tx)
        QUEUED.labels("withdrawn").inc()

    async def _begin(self, tx: Transaction, session_id: UUID, message: QueuedMessage) -> Run:
        run = self._new(session_id, message.run_id, message.user_id, kind="chat", model=message.model)
        await queue.remove(tx, run.id)
        await repository.start(tx, run, lease_seconds=self._context.settings.run_lease_seconds)
        begun: list[LogPayload] = [
            UserMessage(message_id=message.id, content=message.content, run_id=run.id),
            RunStarted(run_id=run.id, kind="chat", model=run.model),
        ]
        await self._history.append(session_id, begun, actor="user", tx=tx)
        QUEUED.labels("begun").inc()
        return run

    def _new(self, session_id: UUID, run_id: UUID, user_id: UUID, *, kind: RunKind, model: str | None) -> Run:
        now = datetime.now(UTC)
        return Run(
            id=run_id,
            session_id=session_id,
            user_id=user_id,
            kind=kind,
            model=model,
            status="running",
            owner=self._context.gateway_id,
            generation=1,
            lease_until=now,
            cancel_requested=False,
            started_at=now,
        )


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


def _never_begun(run_id: UUID, code: _Why) -> RunFinished:
    said: dict[_Why, str] = {
        "withdrawn": "the message was withdrawn before its turn came",
        "archived": "the session was archived before the message's turn came",
        "permission_denied": "whoever sent the message may not send any to this session any more",
    }
    return RunFinished(run_id=run_id, status="cancelled", code=code, message=said[code])


def _stale() -> StaleRun:
    return StaleRun("the run is over, or another gateway has taken it over")
