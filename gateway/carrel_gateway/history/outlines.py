"""Queries for whoever wants a part of the log: all of it without outputs, one cell's outputs, how one cell ended."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import case, func, literal, select

from carrel_gateway.history.events import EventText, StoredEvent
from carrel_gateway.history.repository import decode
from carrel_gateway.history.tables import cells, events
from carrel_gateway.storage.database import Transaction
from carrel_wire.log import CellOutputs


async def outline(
    tx: Transaction, session_id: UUID, types: Sequence[str], *, after: int, limit: int, size: int
) -> list[EventText]:
    """Return a page of the events of some types, and of outputs with an empty payload.

    It has at most so many events, and no further one when they have `size` bytes.
    """
    mine = (
        events.c.tenant_id == tx.tenant_id,
        events.c.session_id == session_id,
        events.c.seq > after,
        events.c.type.in_(("cell.outputs", *types)),
    )
    payload = case((events.c.type == "cell.outputs", literal("")), else_=events.c.payload)
    sizes = (
        select(events.c.seq, tx.dialect.octets(payload).label("octets"))
        .where(*mine)
        .order_by(events.c.seq)
        .limit(limit)
        .subquery()
    )
    before = func.sum(sizes.c.octets).over(order_by=sizes.c.seq) - sizes.c.octets
    sums = select(sizes.c.seq, before.label("before")).subquery()
    last = select(func.max(sums.c.seq)).where(sums.c.before < size).scalar_subquery()
    columns = [payload if name == "payload" else events.c[name] for name in EventText.__slots__]
    query = select(*columns).where(*mine, events.c.seq <= last).order_by(events.c.seq)
    return [EventText(*row) for row in await tx.connection.execute(query)]


async def outputs(
    tx: Transaction, session_id: UUID, execution_id: UUID, *, first: int, last: int
) -> list[dict[str, Any]]:
    """Return the parts of a cell's outputs from one event to another; decoded so that others have their turn."""
    query = (
        select(*(events.c[name] for name in EventText.__slots__))
        .where(
            events.c.tenant_id == tx.tenant_id,
            events.c.session_id == session_id,
            events.c.seq.between(first, last),
            events.c.type == "cell.outputs",
            events.c.parent_id == execution_id,
        )
        .order_by(events.c.seq)
    )
    parts = await decode(session_id, [EventText(*row) for row in await tx.connection.execute(query)])
    return [output for part in parts if isinstance(part.payload, CellOutputs) for output in part.payload.outputs]


async def ending(tx: Transaction, session_id: UUID, execution_id: UUID) -> list[StoredEvent]:
    """Return the files that a cell made, as they were stored, and its end; nothing while it goes on."""
    began = (
        select(cells.c.seq)
        .where(
            cells.c.tenant_id == tx.tenant_id, cells.c.session_id == session_id, cells.c.execution_id == execution_id
        )
        .scalar_subquery()
    )
    query = (
        select(*(events.c[name] for name in EventText.__slots__))
        .where(
            events.c.tenant_id == tx.tenant_id,
            events.c.session_id == session_id,
            events.c.seq >= began,
            events.c.type.in_(("artifact.stored", "cell.finished")),
            events.c.parent_id == execution_id,
        )
        .order_by(events.c.seq)
    )
    return await decode(session_id, [EventText(*row) for row in await tx.connection.execute(query)])
