"""The jobs of one tenant: stored, looked at, cancelled, and tried again when they are dead. `worker` does them.

A job is done at least once: whoever works on it may die before it can say so. Its fence makes sure that of several
owners only the last one says how it ended.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

import structlog
from sqlalchemy.exc import IntegrityError

from carrel_gateway.audit.service import Action, AuditService
from carrel_gateway.context import Principal, ProcessContext
from carrel_gateway.errors import Conflict, NotFound, StaleJob
from carrel_gateway.identity.rights import Right
from carrel_gateway.jobs import repository
from carrel_gateway.jobs.model import ATTEMPTS, NORMAL, Fence, Job, Status
from carrel_gateway.jobs.repository import Filter, NewJob
from carrel_gateway.storage.database import Transaction
from carrel_gateway.storage.ids import new_id
from carrel_gateway.storage.paging import Cursors, Page

__all__ = ["CHANNEL", "WAKE", "Filter", "Job", "JobService", "NewJob", "put_back", "settle", "try_later"]

CHANNEL: Final = "jobs"
"""News of jobs: `WAKE`, or the id of one that is to be cancelled."""
WAKE: Final = b"+"
KEEP_SUCCEEDED: Final = timedelta(days=2)
KEEP_OTHERS: Final = timedelta(days=30)
_CURSORS: Final = Cursors[UUID]("jobs", UUID)


class JobService:
    """Jobs of one tenant."""

    def __init__(self, context: ProcessContext, principal: Principal) -> None:
        self._context = context
        self._principal = principal
        self._database = context.database
        self._audit = AuditService(context, principal)

    async def enqueue(
        self,
        kind: str,
        payload: Mapping[str, Any] | None = None,
        *,
        key: str | None = None,
        priority: int = NORMAL,
        delay_seconds: float = 0.0,
        max_attempts: int = ATTEMPTS,
        tx: Transaction | None = None,
    ) -> UUID | None:
        """Store a job, and return its id; none when a job of this kind with this key is live.

        Parameters
        ----------
        tx
            Store it with what else is done there, or not at all.
        """
        job = NewJob(
            id=new_id(),
            kind=kind,
            payload=dict(payload or {}),
            max_attempts=max_attempts,
            priority=priority,
            key=key,
            delay_seconds=delay_seconds,
            request_id=_request_id(),
        )
        return job.id if await self.add([job], tx=tx) else None

    async def add(self, new: Sequence[NewJob], *, tx: Transaction | None = None) -> int:
        """Store jobs, and return how many are new."""
        if not new:
            return 0
        if tx is None:
            async with self._database.transaction(self._principal.tenant_id) as own:
                return await self.add(new, tx=own)
        added = await repository.add(tx, new)
        if any(job.delay_seconds <= 0 for job in new if job.id in added):
            tx.after_commit(self._wake)
        return len(added)

    async def get(self, job_id: UUID) -> Job:
        """Return a job.

        Raises
        ------
        NotFound
            There is none of this id.
        """
        self._principal.require(Right.TENANT_ADMIN)
        async with self._database.transaction(self._principal.tenant_id, write=False) as tx:
            return _required(await repository.find(tx, job_id))

    async def list(self, wanted: Filter, *, limit: int = 50, cursor: str | None = None) -> Page[Job]:
        """Return a page of jobs, newest first.

        Raises
        ------
        InvalidInput
            The cursor is not one that a page had.
        """
        self._principal.require(Right.TENANT_ADMIN)
        scope = (wanted.status, wanted.kind)
        before = _CURSORS.read(cursor, *scope) if cursor else None
        async with self._database.transaction(self._principal.tenant_id, write=False) as tx:
            found = await repository.page(tx, wanted, before=before, limit=limit + 1)
        return _CURSORS.page(found, limit, lambda last: last.id, *scope)

    async def retry(self, job_id: UUID) -> Job:
        """Queue a job again that is dead or was cancelled.

        Raises
        ------
        NotFound
            There is none of this id.
        Conflict
            It is neither, or another one with its key is live.
        """
        self._principal.require(Right.TENANT_ADMIN)
        try:
            async with self._database.transaction(self._principal.tenant_id) as tx:
                revived = await repository.revive(tx, job_id, _request_id())
                job = _required(await repository.find(tx, job_id))
                if not revived:
                    raise Conflict(
                        f"the job is {job.status}; only a dead or cancelled one is tried again", code="job_live"
                    )
                tx.after_commit(self._wake)
                await self._audit.record(tx, Action.JOB_RETRIED, job_id, kind=job.kind)
                return job
        except IntegrityError as error:
            raise Conflict("another job for the same is queued or running; wait for it", code="job_live") from error

    async def cancel(self, job_id: UUID) -> Job:
        """Cancel a queued job, or have the owner of a running one stop; that one is cancelled a moment later.

        Raises
        ------
        NotFound
            There is none of this id.
        Conflict
            It is over.
        """
        self._principal.require(Right.TENANT_ADMIN)
        async with self._database.transaction(self._principal.tenant_id) as tx:
            status = await repository.cancel(tx, job_id)
            job = _required(await repository.find(tx, job_id))
            if status is None:
                raise Conflict(f"the job is {job.status}; there is nothing to cancel", code="job_over")
            if status == "running":
                tx.after_commit(lambda: self._context.bus.publish(CHANNEL, job_id.bytes))
            await self._audit.record(tx, Action.JOB_CANCELLED, job_id, kind=job.kind)
            return job

    async def sweep(self) -> int:
        """Delete jobs that ended long ago, and return how many."""
        async with self._database.transaction(self._principal.tenant_id) as tx:
            return await repository.remove_old(tx, succeeded=KEEP_SUCCEEDED, others=KEEP_OTHERS)

    async def _wake(self) -> None:
        await self._context.bus.publish(CHANNEL, WAKE)


async def settle(context: ProcessContext, fence: Fence, status: Status, **values: Any) -> None:
    """Say how an attempt at a job ended, as its owner.

    Raises
    ------
    StaleJob
        The job is over, or another gateway's.
    """
    async with context.database.transaction(fence.tenant_id) as tx:
        if not await repository.settle(tx, fence, status, **values):
            raise _stale()


async def try_later(context: ProcessContext, fence: Fence, seconds: float, **values: Any) -> None:
    """Queue a job again after an attempt that failed, as its owner; raises as `settle`."""
    async with context.database.transaction(fence.tenant_id) as tx:
        if not await repository.settle(tx, fence, "queued", due_at=tx.dialect.later(seconds), **values):
            raise _stale()


async def put_back(context: ProcessContext, fence: Fence) -> None:
    """Let another gateway take a job at once, as its owner, as if this attempt had not been; raises as `settle`."""
    async with context.database.transaction(fence.tenant_id) as tx:
        if not await repository.put_back(tx, fence):
            raise _stale()
    await context.bus.publish(CHANNEL, WAKE)


def _request_id() -> str | None:
    bound = structlog.contextvars.get_contextvars().get("request_id")
    return str(bound)[:64] if bound else None


def _required(job: Job | None) -> Job:
    if job is None:
        raise NotFound("there is no such job", code="job_not_found")
    return job


def _stale() -> StaleJob:
    return StaleJob("the job is over, or another gateway has taken it")
