"""Queries of the audit log. There is none that changes or deletes an entry; the database would refuse it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Select, Uuid, bindparam, func, insert, select, text, update

from carrel_gateway.audit.chain import GENESIS, Entry, Head
from carrel_gateway.audit.tables import audit, audit_heads
from carrel_gateway.storage.database import Transaction

_BATCH: Final = 1000
_FIRST_HEAD: Final = text(
    "INSERT INTO audit_heads (tenant_id, seq, digest) VALUES (:tenant_id, 0, :digest) ON CONFLICT DO NOTHING"
).bindparams(bindparam("tenant_id", type_=Uuid()))


@dataclass(frozen=True, slots=True)
class Filter:
    """Which entries; none means all."""

    actor: str | None = None
    action: str | None = None
    target: str | None = None
    since: str | None = None
    """Not before; RFC 3339 in UTC."""
    until: str | None = None
    """Before."""


async def take_head(tx: Transaction) -> Head:
    """Return the last entry, and have whoever else adds one wait for the end of this transaction."""
    query = (
        select(audit_heads.c.seq, audit_heads.c.digest).where(audit_heads.c.tenant_id == tx.tenant_id).with_for_update()
    )
    row = (await tx.connection.execute(query)).first()
    if row is None:
        await tx.connection.execute(_FIRST_HEAD, {"tenant_id": tx.tenant_id, "digest": GENESIS})
        row = (await tx.connection.execute(query)).one()
    return Head(row.seq, row.digest)


async def kept(tx: Transaction) -> tuple[Head, int]:
    """Return the last entry as the head has it, and the number of the last entry that is there."""
    last = select(func.max(audit.c.seq)).where(audit.c.tenant_id == tx.tenant_id).scalar_subquery()
    query = select(audit_heads.c.seq, audit_heads.c.digest, last).where(audit_heads.c.tenant_id == tx.tenant_id)
    row = (await tx.connection.execute(query)).first()
    return (Head(row[0], row[1]), row[2] or 0) if row else (Head(0, GENESIS), 0)


async def add(tx: Transaction, entry: Entry) -> None:
    """Add an entry after the head that was taken."""
    values = {name: getattr(entry, name) for name in Entry.__slots__}
    await tx.connection.execute(insert(audit).values(tenant_id=tx.tenant_id, **values))
    await tx.connection.execute(
        update(audit_heads).where(audit_heads.c.tenant_id == tx.tenant_id).values(seq=entry.seq, digest=entry.digest)
    )


async def page(tx: Transaction, wanted: Filter, *, before: int | None, limit: int) -> list[Entry]:
    """Return entries, newest first."""
    query = _filtered(wanted, select(audit).where(audit.c.tenant_id == tx.tenant_id))
    if before is not None:
        query = query.where(audit.c.seq < before)
    rows = (await tx.connection.execute(query.order_by(audit.c.seq.desc()).limit(limit))).mappings()
    return [_entry(row) for row in rows]


async def in_order(tx: Transaction, wanted: Filter | None = None) -> AsyncIterator[list[Entry]]:
    """Yield entries, oldest first, some at a time."""
    after = None
    while True:
        query = _filtered(wanted or Filter(), select(audit).where(audit.c.tenant_id == tx.tenant_id))
        if after is not None:
            query = query.where(audit.c.seq > after)
        rows = (await tx.connection.execute(query.order_by(audit.c.seq).limit(_BATCH))).mappings().all()
        if rows:
            yield [_entry(row) for row in rows]
        if len(rows) < _BATCH:
            return
        after = rows[-1]["seq"]


def _filtered(wanted: Filter, query: Select[Any]) -> Select[Any]:
    columns = {"actor": audit.c.actor, "action": audit.c.action, "target": audit.c.target}
    for name, column in columns.items():
        if (value := getattr(wanted, name)) is not None:
            query = query.where(column == value)
    if wanted.since is not None:
        query = query.where(audit.c.at >= wanted.since)
    if wanted.until is not None:
        query = query.where(audit.c.at < wanted.until)
    return query


def _entry(row: Any) -> Entry:
    return Entry(**{name: row[name] for name in Entry.__slots__})
