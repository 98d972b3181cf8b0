"""Queries of sessions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal
from uuid import UUID

from sqlalchemy import ColumnElement, bindparam, delete, exists, func, insert, or_, select, update

from carrel_gateway.runs.tables import runs
from carrel_gateway.sessions.tables import sessions
from carrel_gateway.storage.database import Transaction
from carrel_gateway.storage.schema import metadata
from carrel_gateway.storage.steps import Steps

_AT_ONCE: Final = 1000
"""Databases limit the parameters of a statement."""


@dataclass(frozen=True, slots=True)
class Session:
    """A conversation."""

    id: UUID
    tenant_id: UUID
    owner_id: UUID
    title: str
    status: Literal["active", "archived", "deleted"]
    model: str
    config: dict[str, Any]
    last_seq: int
    snapshot_id: UUID | None
    """Snapshot in which its state lies, or will when it has been suspended."""
    suspended_at: datetime | None
    forked_from: UUID | None
    boot_id: str | None
    """Boot of the kernel host that has its state, where no snapshot has."""
    stale_seq: int | None
    """Event since which its kernel remembers cells that the conversation does not have any more."""
    created_at: datetime
    updated_at: datetime


_FIND: Final = select(*(sessions.c[name] for name in Session.__slots__)).where(
    sessions.c.tenant_id == bindparam("tenant_id"),
    sessions.c.id == bindparam("session_id"),
    sessions.c.status != "deleted",
)


async def add(tx: Transaction, session: Session) -> None:
    """Insert a session."""
    values = {name: getattr(session, name) for name in Session.__slots__}
    await tx.connection.execute(insert(sessions).values(**{**values, "tenant_id": tx.tenant_id}))


def find(tenant_id: UUID, session_id: UUID) -> Steps[Session | None]:
    """Return a session of the tenant that is not deleted."""
    rows = yield _FIND, {"tenant_id": tenant_id, "session_id": session_id}
    return Session(*rows[0]) if rows else None


async def page(
    tx: Transaction,
    which: ColumnElement[bool],
    *,
    status: str | None,
    before: UUID | None,
    limit: int,
    offset: int,
) -> list[Session]:
    """Return sessions, newest first: ids sort by the time they were made."""
    query = select(sessions).where(sessions.c.tenant_id == tx.tenant_id, which)
    query = query.where(sessions.c.status == status) if status else query.where(sessions.c.status != "deleted")
    if before is not None:
        query = query.where(sessions.c.id < before)
    query = query.order_by(sessions.c.id.desc()).limit(limit).offset(offset)
    return [_session(row) for row in (await tx.connection.execute(query)).mappings()]


async def change(tx: Transaction, session_id: UUID, changes: dict[str, Any]) -> bool:
    """Change columns; false when there is no such session."""
    statement = (
        update(sessions)
        .where(sessions.c.tenant_id == tx.tenant_id, sessions.c.id == session_id, sessions.c.status != "deleted")
        .values(**changes, updated_at=datetime.now(UTC))
        .returning(sessions.c.id)
    )
    return await tx.connection.scalar(statement) is not None


async def publish(tx: Transaction, session_id: UUID, *, last_seq: int, snapshot_id: UUID | None) -> bool:
    """Make a fork a session, suspended where it has a snapshot; false when it was taken for a leftover."""
    now = datetime.now(UTC)
    statement = (
        update(sessions)
        .where(
            sessions.c.tenant_id == tx.tenant_id,
            sessions.c.id == session_id,
            sessions.c.status == "deleted",
            sessions.c.last_seq == 0,
        )
        .values(
            status="active",
            last_seq=last_seq,
            snapshot_id=snapshot_id,
            suspended_at=now if snapshot_id else None,
            updated_at=now,
        )
        .returning(sessions.c.id)
    )
    return await tx.connection.scalar(statement) is not None


async def deleted(tx: Transaction, *, forks_before: datetime, limit: int) -> list[Session]:
    """Return sessions whose deletion was begun, and forks that are being made since before a time."""
    query = select(sessions).where(
        sessions.c.tenant_id == tx.tenant_id,
        sessions.c.status == "deleted",
        or_(sessions.c.forked_from.is_(None), sessions.c.last_seq > 0, sessions.c.created_at < forks_before),
    )
    return [_session(row) for row in (await tx.connection.execute(query.limit(limit))).mappings()]


async def known(tx: Transaction, session_ids: Sequence[UUID]) -> set[UUID]:
    """Return which of the sessions have a row, be it that of a deletion that has begun."""
    found = set[UUID]()
    for start in range(0, len(session_ids), _AT_ONCE):
        part = session_ids[start : start + _AT_ONCE]
        query = select(sessions.c.id).where(sessions.c.tenant_id == tx.tenant_id, sessions.c.id.in_(part))
        found.update(await tx.connection.scalars(query))
    return found


async def at_rest(tx: Transaction, *, before: datetime, limit: int) -> list[Session]:
    """Return sessions with a host whose log has grown since they were looked at, but not since a time."""
    query = (
        select(sessions)
        .where(
            sessions.c.tenant_id == tx.tenant_id,
            sessions.c.status == "active",
            sessions.c.snapshot_id.is_(None),
            sessions.c.boot_id.is_not(None),
            sessions.c.updated_at < before,
            sessions.c.last_seq > sessions.c.checked_seq,
        )
        .order_by(sessions.c.updated_at)
        .limit(limit)
    )
    return [_session(row) for row in (await tx.connection.execute(query)).mappings()]


async def checked(tx: Transaction, session_id: UUID, seq: int) -> None:
    """Take note that nothing up to this event asks for another snapshot."""
    await tx.connection.execute(
        update(sessions)
        .where(sessions.c.tenant_id == tx.tenant_id, sessions.c.id == session_id, sessions.c.checked_seq < seq)
        .values(checked_seq=seq)
    )


async def lease(tx: Transaction, session_id: UUID, keeper: UUID, *, seconds: float) -> bool:
    """Make a gateway the session's keeper for a time, by the database's clock; false while another one is."""
    statement = (
        update(sessions)
        .where(
            sessions.c.tenant_id == tx.tenant_id,
            sessions.c.id == session_id,
            or_(sessions.c.keeper.is_(None), sessions.c.keeper == keeper, sessions.c.keeper_until < tx.dialect.now()),
        )
        .values(keeper=keeper, keeper_until=tx.dialect.later(seconds))
        .returning(sessions.c.id)
    )
    return await tx.connection.scalar(statement) is not None


async def end_lease(tx: Transaction, session_id: UUID, keeper: UUID) -> None:
    """Let other gateways be the session's keeper, if this one is."""
    await tx.connection.execute(
        update(sessions)
        .where(sessions.c.tenant_id == tx.tenant_id, sessions.c.id == session_id, sessions.c.keeper == keeper)
        .values(keeper=None, keeper_until=None)
    )


async def quiet(tx: Transaction, *, before: datetime, limit: int) -> list[Session]:
    """Return sessions in which nothing has happened since a time and nothing goes on, the quietest first."""
    goes_on = exists().where(
        runs.c.tenant_id == sessions.c.tenant_id, runs.c.session_id == sessions.c.id, runs.c.status == "running"
    )
    query = (
        select(sessions)
        .where(sessions.c.tenant_id == tx.tenant_id, sessions.c.status != "deleted", sessions.c.updated_at < before)
        .where(~goes_on)
        .order_by(sessions.c.updated_at)
        .limit(limit)
    )
    return [_session(row) for row in (await tx.connection.execute(query)).mappings()]


async def expire(tx: Transaction, session_id: UUID, *, before: datetime) -> bool:
    """Begin to delete a session in which nothing has happened since a time; false when something has."""
    statement = (
        update(sessions)
        .where(
            sessions.c.tenant_id == tx.tenant_id,
            sessions.c.id == session_id,
            sessions.c.status != "deleted",
            sessions.c.updated_at < before,
        )
        .values(status="deleted")
        .returning(sessions.c.id)
    )
    return await tx.connection.scalar(statement) is not None


async def count_rows(tx: Transaction, session_id: UUID) -> dict[str, int]:
    """Return how many rows belong to a session, by table; those go with it."""
    found: dict[str, int] = {}
    for _, table in sorted(metadata.tables.items()):
        # By name: the tables that others refer to may not be there, where only a part of the gateway is.
        referred = {key.target_fullname.partition(".")[0] for key in table.foreign_keys}
        if table is not sessions and sessions.name in referred:
            mine = (table.c.tenant_id == tx.tenant_id, table.c.session_id == session_id)
            found[table.name] = await tx.connection.scalar(select(func.count()).select_from(table).where(*mine)) or 0
    return found


async def remove(tx: Transaction, session_id: UUID) -> bool:
    """Delete the row of a session, and with it all that belong to it; false when it is gone already."""
    statement = delete(sessions).where(sessions.c.tenant_id == tx.tenant_id, sessions.c.id == session_id)
    return await tx.connection.scalar(statement.returning(sessions.c.id)) is not None


def _session(row: Any) -> Session:
    return Session(**{name: row[name] for name in Session.__slots__})
