"""Queries of runs."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Update, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from carrel_gateway.history.service import Fence
from carrel_gateway.runs.tables import runs
from carrel_gateway.storage.database import Transaction
from carrel_gateway.storage.dialect import Dialect
from carrel_wire.log import RunKind, RunStatus


@dataclass(frozen=True, slots=True)
class Run:
    """A run of the agent in a session."""

    id: UUID
    session_id: UUID
    user_id: UUID
    kind: RunKind
    model: str | None
    status: RunStatus
    owner: UUID
    """Gateway that drives it."""
    generation: int
    """Grows by one with every takeover."""
    lease_until: datetime
    cancel_requested: bool
    started_at: datetime
    finished_at: datetime | None = None


async def start(tx: Transaction, run: Run, *, lease_seconds: float) -> bool:
    """Insert an active run; false when the session has one."""
    insert = postgresql.insert if tx.dialect.name == "postgresql" else sqlite.insert
    values = {name: getattr(run, name) for name in Run.__slots__}
    values |= {"tenant_id": tx.tenant_id, "lease_until": tx.dialect.later(lease_seconds)}
    statement = insert(runs).values(**values).on_conflict_do_nothing().returning(runs.c.id)
    return await tx.connection.scalar(statement) is not None


async def active(tx: Transaction, session_id: UUID) -> Run | None:
    """Return the session's active run."""
    query = select(runs).where(
        runs.c.tenant_id == tx.tenant_id, runs.c.session_id == session_id, runs.c.status == "running"
    )
    row = (await tx.connection.execute(query)).mappings().first()
    return _run(row) if row else None


async def renew(tx: Transaction, fence: Fence, seconds: float) -> bool:
    """Hold the lease for so many seconds from now; false when the run is over or another's."""
    return await _moved(tx, _held(tx, fence).values(lease_until=tx.dialect.later(seconds)))


async def finish(tx: Transaction, fence: Fence, status: RunStatus) -> bool:
    """End the run; false when it is over or another's."""
    return await _moved(tx, _held(tx, fence).values(status=status, finished_at=datetime.now(UTC)))


async def is_cancel_requested(tx: Transaction, fence: Fence) -> bool | None:
    """Return whether someone asked to stop the run; none when it is over or another's."""
    query = select(runs.c.cancel_requested).where(
        runs.c.tenant_id == tx.tenant_id,
        runs.c.id == fence.run_id,
        runs.c.generation == fence.generation,
        runs.c.status == "running",
    )
    return await tx.connection.scalar(query)


async def request_cancel(tx: Transaction, session_id: UUID, run_id: UUID | None = None) -> UUID | None:
    """Ask the session's active run, or that one alone, to stop, and return its id."""
    statement = (
        update(runs)
        .where(runs.c.tenant_id == tx.tenant_id, runs.c.session_id == session_id, runs.c.status == "running")
        .values(cancel_requested=True)
        .returning(runs.c.id)
    )
    if run_id is not None:
        statement = statement.where(runs.c.id == run_id)
    return await tx.connection.scalar(statement)


async def expired(
    connection: AsyncConnection, dialect: Dialect, gateway_id: UUID, *, limit: int
) -> list[tuple[UUID, UUID]]:
    """Return tenant and id of the runs of all tenants whose owner is gone; the one query across tenants."""
    query = (
        select(runs.c.tenant_id, runs.c.id)
        .where(runs.c.status == "running", _is_orphan(dialect, gateway_id))
        .order_by(runs.c.lease_until)
        .limit(limit)
    )
    return [(tenant_id, run_id) for tenant_id, run_id in await connection.execute(query)]


async def claim(tx: Transaction, run_id: UUID, gateway_id: UUID, *, lease_seconds: float) -> Run | None:
    """Take a run over when its owner is still gone; of several that try, one gets it."""
    statement = (
        update(runs)
        .where(
            runs.c.tenant_id == tx.tenant_id,
            runs.c.id == run_id,
            runs.c.status == "running",
            _is_orphan(tx.dialect, gateway_id),
        )
        .values(owner=gateway_id, generation=runs.c.generation + 1, lease_until=tx.dialect.later(lease_seconds))
        .returning(*runs.c)
    )
    row = (await tx.connection.execute(statement)).mappings().first()
    return _run(row) if row else None


def _is_orphan(dialect: Dialect, gateway_id: UUID) -> Any:
    expired_lease = runs.c.lease_until < dialect.now()
    if dialect.shared:
        return expired_lease
    # Nobody else can have the database: whoever it was, is gone.
    return or_(expired_lease, runs.c.owner != gateway_id)


def _held(tx: Transaction, fence: Fence) -> Update:
    return update(runs).where(
        runs.c.tenant_id == tx.tenant_id,
        runs.c.id == fence.run_id,
        runs.c.generation == fence.generation,
        runs.c.status == "running",
    )


async def _moved(tx: Transaction, statement: Update) -> bool:
    return await tx.connection.scalar(statement.returning(runs.c.id)) is not None


def _run(row: Any) -> Run:
    return Run(**{name: row[name] for name in Run.__slots__})
