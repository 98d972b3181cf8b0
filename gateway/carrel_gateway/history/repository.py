"""Queries of the log and of its read models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy import exists, insert, select

from carrel_gateway.history.events import Cell, Fence, Message, StoredEvent, encode_payload
from carrel_gateway.history.tables import cells, events, messages
from carrel_gateway.runs.tables import runs
from carrel_gateway.sessions.tables import sessions
from carrel_gateway.storage.database import Transaction
from carrel_wire.log import CellOutputs, decode_payload


async def has_session(tx: Transaction, session_id: UUID) -> bool:
    """Return whether the tenant has this session."""
    condition = (
        (sessions.c.tenant_id == tx.tenant_id) & (sessions.c.id == session_id) & (sessions.c.status != "deleted")
    )
    return bool(await tx.connection.scalar(select(exists().where(condition))))


async def lock_session(tx: Transaction, session_id: UUID) -> bool:
    """Keep others from appending until the transaction ends; false when there is no such session."""
    query = select(sessions.c.id).where(
        sessions.c.tenant_id == tx.tenant_id, sessions.c.id == session_id, sessions.c.status != "deleted"
    )
    return await tx.connection.scalar(query.with_for_update(key_share=True)) is not None


async def lock_run(tx: Transaction, fence: Fence) -> bool:
    """Keep others from taking the run over until the transaction ends; false when one has."""
    query = select(runs.c.id).where(
        runs.c.tenant_id == tx.tenant_id,
        runs.c.id == fence.run_id,
        runs.c.generation == fence.generation,
        runs.c.status == "running",
    )
    return await tx.connection.scalar(query.with_for_update(read=True)) is not None


async def insert_events(tx: Transaction, stored: Sequence[StoredEvent]) -> None:
    """Insert events as they are."""
    rows = [
        {
            "tenant_id": tx.tenant_id,
            "session_id": event.session_id,
            "seq": event.seq,
            "id": event.id,
            "parent_id": event.parent_id,
            "type": event.type,
            "actor": event.actor,
            "payload": encode_payload(event.payload),
            "created_at": event.created_at,
        }
        for event in stored
    ]
    await tx.connection.execute(insert(events), rows)


async def tail(tx: Transaction, session_id: UUID, *, after: int, limit: int) -> list[StoredEvent]:
    """Return the events after a number, in order."""
    query = (
        select(
            events.c.seq,
            events.c.id,
            events.c.parent_id,
            events.c.type,
            events.c.actor,
            events.c.payload,
            events.c.created_at,
        )
        .where(events.c.tenant_id == tx.tenant_id, events.c.session_id == session_id, events.c.seq > after)
        .order_by(events.c.seq)
        .limit(limit)
    )
    rows = await tx.connection.execute(query)
    return [
        StoredEvent(session_id, seq, own, parent, kind, actor, decode_payload(payload), created_at)
        for seq, own, parent, kind, actor, payload, created_at in rows
    ]


async def last_messages(
    tx: Transaction,
    session_id: UUID,
    *,
    limit: int,
    before_id: UUID | None = None,
    before_seq: int | None = None,
    offset: int = 0,
) -> list[Message]:
    """Return the last messages, or the last before one, the newest first."""
    mine = (messages.c.tenant_id == tx.tenant_id) & (messages.c.session_id == session_id)
    query = select(messages).where(mine).order_by(messages.c.seq.desc()).limit(limit).offset(offset)
    if before_seq is not None:
        query = query.where(messages.c.seq < before_seq)
    if before_id is not None:
        place = select(messages.c.seq).where(mine, messages.c.id == before_id).scalar_subquery()
        query = query.where(messages.c.seq < place)
    rows = (await tx.connection.execute(query)).mappings().all()
    return [_message(row) for row in rows]


async def cells_of(tx: Transaction, session_id: UUID, *, execution_id: UUID | None = None) -> list[Cell]:
    """Return the cells in the order in which they began, with their outputs."""
    query = (
        select(cells).where(cells.c.tenant_id == tx.tenant_id, cells.c.session_id == session_id).order_by(cells.c.seq)
    )
    if execution_id is not None:
        query = query.where(cells.c.execution_id == execution_id)
    rows = (await tx.connection.execute(query)).mappings().all()
    outputs = await _outputs(tx, session_id, rows, execution_id)
    return [_cell(row, outputs[row["execution_id"]]) for row in rows]


async def has_cells(tx: Transaction, session_id: UUID) -> bool:
    """Return whether code was ever run in the session."""
    condition = (cells.c.tenant_id == tx.tenant_id) & (cells.c.session_id == session_id)
    return bool(await tx.connection.scalar(select(exists().where(condition))))


async def _outputs(
    tx: Transaction, session_id: UUID, rows: Sequence[Any], execution_id: UUID | None
) -> dict[UUID, list[dict[str, Any]]]:
    """Return the outputs by execution, from the log: they are stored once."""
    found: dict[UUID, list[dict[str, Any]]] = {row["execution_id"]: [] for row in rows}
    if not found:
        return found
    begins = {row["execution_id"]: row["outputs_after"] for row in rows}
    query = (
        select(events.c.seq, events.c.payload)
        .where(
            events.c.tenant_id == tx.tenant_id,
            events.c.session_id == session_id,
            events.c.type == "cell.outputs",
            events.c.seq > min(begins.values()),
        )
        .order_by(events.c.seq)
    )
    if execution_id is not None:
        query = query.where(events.c.parent_id == execution_id)
    for seq, payload in await tx.connection.execute(query):
        part = decode_payload(payload)
        if isinstance(part, CellOutputs) and seq > begins.get(part.execution_id, seq):
            found[part.execution_id].extend(part.outputs)
    return found


def _message(row: Any) -> Message:
    return Message(
        id=row["id"],
        seq=row["seq"],
        role=row["role"],
        content=row["content"],
        run_id=row["run_id"],
        artifact_ids=msgspec.convert(row["artifact_ids"], list[UUID]),
        created_at=row["created_at"],
    )


def _cell(row: Any, outputs: list[dict[str, Any]]) -> Cell:
    return Cell(
        outputs=outputs,
        **{name: row[name] for name in row if name not in {"tenant_id", "session_id", "outputs_after"}},
    )
