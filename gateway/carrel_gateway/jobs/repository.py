"""Queries of jobs: those of one tenant, and those by which a gateway takes jobs of all tenants.

The latter work as the worker's role, which sees live jobs alone and can change nothing of them but who has them. All
times are the database's, so that gateways' clocks need not agree.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Insert, and_, delete, func, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from carrel_gateway.jobs.model import Fence, Job, Status
from carrel_gateway.jobs.tables import LIVE, jobs
from carrel_gateway.storage.database import Transaction
from carrel_gateway.storage.dialect import Dialect


@dataclass(frozen=True, slots=True)
class NewJob:
    """A job to add."""

    id: UUID
    kind: str
    payload: dict[str, Any]
    max_attempts: int
    priority: int
    key: str | None = None
    delay_seconds: float = 0.0
    request_id: str | None = None


@dataclass(frozen=True, slots=True)
class Filter:
    """Which jobs; none means all."""

    status: Status | None = None
    kind: str | None = None


@dataclass(frozen=True, slots=True)
class Held:
    """A job whose lease was renewed."""

    fence: Fence
    cancel_requested: bool


# ---------------------------------------------------------------------- of all tenants


async def claim(
    connection: AsyncConnection,
    dialect: Dialect,
    gateway_id: UUID,
    *,
    kinds: Collection[str],
    limit: int,
    lease_seconds: float,
) -> list[Job]:
    """Take jobs that are due, or whose owner is gone; of several that try, one gets each."""
    due = (
        select(jobs.c.tenant_id, jobs.c.id)
        .where(LIVE, jobs.c.kind.in_(sorted(kinds)), _is_free(dialect, gateway_id))
        .order_by(jobs.c.priority, jobs.c.due_at, jobs.c.id)
        .limit(limit)
        .with_for_update(skip_locked=True)  # SQLite has one writer, and leaves this out
        .cte("due")  # a subquery could be carried out again for each row, beyond its limit
    )
    statement = (
        update(jobs)
        .where(jobs.c.tenant_id == due.c.tenant_id, jobs.c.id == due.c.id)
        .values(
            status="running",
            owner=gateway_id,
            generation=jobs.c.generation + 1,
            attempts=jobs.c.attempts + 1,
            due_at=dialect.later(lease_seconds),
            started_at=dialect.now(),
        )
        .returning(*jobs.c)
    )
    found = [_job(row) for row in (await connection.execute(statement)).mappings()]
    return sorted(found, key=lambda job: (job.priority, job.id))


async def renew(
    connection: AsyncConnection, dialect: Dialect, gateway_id: UUID, ids: Collection[UUID], *, lease_seconds: float
) -> list[Held]:
    """Hold the leases of these jobs for so many seconds from now; those that are missing are held no longer."""
    statement = (
        update(jobs)
        .where(jobs.c.owner == gateway_id, jobs.c.status == "running", jobs.c.id.in_(ids))
        .values(due_at=dialect.later(lease_seconds))
        .returning(jobs.c.tenant_id, jobs.c.id, jobs.c.generation, jobs.c.cancel_requested)
    )
    return [
        Held(Fence(tenant_id, job_id, generation), cancel_requested)
        for tenant_id, job_id, generation, cancel_requested in await connection.execute(statement)
    ]


async def horizon(
    connection: AsyncConnection, dialect: Dialect, kinds: Collection[str]
) -> tuple[datetime | None, datetime]:
    """Return when the next job is due, or was, and the time by the database's clock."""
    query = select(func.min(jobs.c.due_at), dialect.now()).where(LIVE, jobs.c.kind.in_(sorted(kinds)))
    due_at, now = (await connection.execute(query)).one()
    return due_at, now


def _is_free(dialect: Dialect, gateway_id: UUID) -> ColumnElement[bool]:
    # As a query of its own the clock is read once, and not for each row.
    is_due = jobs.c.due_at <= select(dialect.now()).scalar_subquery()
    if dialect.shared:
        return is_due
    # Nobody else can have the database: whoever it was, is gone.
    return or_(is_due, and_(jobs.c.status == "running", jobs.c.owner != gateway_id))


# ---------------------------------------------------------------------- of one tenant


async def add(tx: Transaction, new: Sequence[NewJob]) -> set[UUID]:
    """Insert jobs, and return the ids of those that are new: their id is not known, and their key has no live job."""
    now = datetime.now(UTC)
    rows = [
        {
            "tenant_id": tx.tenant_id,
            "id": job.id,
            "kind": job.kind,
            "key": job.key,
            "payload": job.payload,
            "priority": job.priority,
            "status": "queued",
            "attempts": 0,
            "max_attempts": job.max_attempts,
            "due_at": tx.dialect.later(job.delay_seconds),
            "generation": 0,
            "cancel_requested": False,
            "request_id": job.request_id,
            "created_at": now,
        }
        for job in new
    ]
    insert = postgresql.insert if tx.dialect.name == "postgresql" else sqlite.insert
    statement: Insert = insert(jobs).values(rows).on_conflict_do_nothing()
    return set((await tx.connection.scalars(statement.returning(jobs.c.id))).all())


async def find(tx: Transaction, job_id: UUID) -> Job | None:
    """Return a job."""
    query = select(jobs).where(jobs.c.tenant_id == tx.tenant_id, jobs.c.id == job_id)
    row = (await tx.connection.execute(query)).mappings().first()
    return _job(row) if row else None


async def page(tx: Transaction, wanted: Filter, *, before: UUID | None, limit: int) -> list[Job]:
    """Return jobs, newest first."""
    query = select(jobs).where(jobs.c.tenant_id == tx.tenant_id)
    if wanted.status is not None:
        query = query.where(jobs.c.status == wanted.status)
    if wanted.kind is not None:
        query = query.where(jobs.c.kind == wanted.kind)
    if before is not None:
        query = query.where(jobs.c.id < before)
    rows = (await tx.connection.execute(query.order_by(jobs.c.id.desc()).limit(limit))).mappings()
    return [_job(row) for row in rows]


async def settle(tx: Transaction, fence: Fence, status: Status, **values: Any) -> bool:
    """Say how an attempt ended; false when the job is over, or another gateway's."""
    if status != "queued":
        values["finished_at"] = tx.dialect.now()
    statement = (
        update(jobs)
        .where(
            jobs.c.tenant_id == tx.tenant_id,
            jobs.c.id == fence.id,
            jobs.c.generation == fence.generation,
            jobs.c.status == "running",
        )
        .values(status=status, **values)
    )
    return await tx.connection.scalar(statement.returning(jobs.c.id)) is not None


async def put_back(tx: Transaction, fence: Fence) -> bool:
    """Let another gateway take the job at once, as if this attempt had not been; false as of `settle`."""
    return await settle(tx, fence, "queued", due_at=tx.dialect.now(), attempts=jobs.c.attempts - 1)


async def revive(tx: Transaction, job_id: UUID, request_id: str | None) -> bool:
    """Queue a job again that is dead or was cancelled, with all of its attempts before it; false when it is neither.

    Raises
    ------
    IntegrityError
        Another job with its key is live.
    """
    statement = (
        update(jobs)
        .where(jobs.c.tenant_id == tx.tenant_id, jobs.c.id == job_id, jobs.c.status.in_(("dead", "cancelled")))
        .values(
            status="queued",
            attempts=0,
            due_at=tx.dialect.now(),
            cancel_requested=False,
            finished_at=None,
            request_id=request_id,
        )
    )
    return await tx.connection.scalar(statement.returning(jobs.c.id)) is not None


async def cancel(tx: Transaction, job_id: UUID) -> Status | None:
    """Cancel a queued job, or ask the owner of a running one to stop; returns its status, none of one that is over."""
    live = (jobs.c.tenant_id == tx.tenant_id, jobs.c.id == job_id)
    queued = update(jobs).where(*live, jobs.c.status == "queued")
    ended = queued.values(status="cancelled", cancel_requested=True, finished_at=tx.dialect.now())
    if await tx.connection.scalar(ended.returning(jobs.c.id)) is not None:
        return "cancelled"
    asked = update(jobs).where(*live, jobs.c.status == "running").values(cancel_requested=True)
    return "running" if await tx.connection.scalar(asked.returning(jobs.c.id)) is not None else None


async def remove_old(tx: Transaction, *, succeeded: timedelta, others: timedelta) -> int:
    """Delete jobs that ended so long ago, and return how many."""
    statement = delete(jobs).where(
        jobs.c.tenant_id == tx.tenant_id,
        or_(
            and_(jobs.c.status == "succeeded", jobs.c.finished_at < tx.dialect.later(-succeeded.total_seconds())),
            and_(
                jobs.c.status.in_(("dead", "cancelled")),
                jobs.c.finished_at < tx.dialect.later(-others.total_seconds()),
            ),
        ),
    )
    return len((await tx.connection.scalars(statement.returning(jobs.c.id))).all())


def _job(row: Any) -> Job:
    return Job(**{name: row[name] for name in Job.__slots__})
