"""Queries of the log and of its read models."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Final
from uuid import UUID

import msgspec
from sqlalchemy import (
    BigInteger,
    ColumnElement,
    RowMapping,
    Select,
    bindparam,
    exists,
    func,
    insert,
    null,
    select,
    tuple_,
)

from carrel_gateway.history.events import Cell, EventText, Fence, Message, StoredEvent, encode_payload
from carrel_gateway.history.tables import cells, events, messages
from carrel_gateway.runs.tables import runs
from carrel_gateway.sessions.tables import sessions
from carrel_gateway.storage.database import Transaction
from carrel_gateway.storage.search import Found
from carrel_wire.log import CellOutputs, decode_payload

_DECODED_AT_ONCE: Final = 256 * 1024
"""Bytes of payloads that are decoded in one go: about a millisecond's work."""


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


async def tail(tx: Transaction, session_id: UUID, *, after: int, limit: int, size: int) -> list[EventText]:
    """Return the events after a number, in order: at most so many, and no further one when they have `size` bytes."""
    values = {"tenant_id_of": tx.tenant_id, "of_session": session_id, "after": after, "most": limit, "size": size}
    return [EventText(*row) for row in await tx.connection.execute(_page(tx.dialect.name, tx.dialect.octets), values)]


async def decode(session_id: UUID, texts: Sequence[EventText]) -> list[StoredEvent]:
    """Return a page decoded; a long one in parts, so that others have their turn between them."""
    found: list[StoredEvent] = []
    decoded = 0
    for event in texts:
        if decoded > _DECODED_AT_ONCE:
            await asyncio.sleep(0)
            decoded = 0
        decoded += len(event.payload)
        found.append(event.decoded(session_id))
    return found


@cache
def _page(_dialect: str, octets: Callable[[ColumnElement[str]], ColumnElement[int]]) -> Select[Any]:
    """Return the statement of a page, which is built once: sizes are looked at before any payload is read."""
    mine = (
        events.c.tenant_id == bindparam("tenant_id_of"),
        events.c.session_id == bindparam("of_session"),
        events.c.seq > bindparam("after"),
    )
    sizes = (
        select(events.c.seq, octets(events.c.payload).label("octets"))
        .where(*mine)
        .order_by(events.c.seq)
        .limit(bindparam("most", type_=BigInteger()))
        .subquery()
    )
    before = func.sum(sizes.c.octets).over(order_by=sizes.c.seq) - sizes.c.octets
    sums = select(sizes.c.seq, before.label("before")).subquery()
    last = select(func.max(sums.c.seq)).where(sums.c.before < bindparam("size", type_=BigInteger())).scalar_subquery()
    columns = [events.c[name] for name in EventText.__slots__]
    return select(*columns).where(*mine, events.c.seq <= last).order_by(events.c.seq)


async def latest(tx: Transaction, session_id: UUID, types: Sequence[str], *, after: int) -> StoredEvent | None:
    """Return the last event of one of these types after a number."""
    query = (
        select(*(events.c[name] for name in EventText.__slots__))
        .where(
            events.c.tenant_id == tx.tenant_id,
            events.c.session_id == session_id,
            events.c.seq > after,
            events.c.type.in_(types),
        )
        .order_by(events.c.seq.desc())
        .limit(1)
    )
    row = (await tx.connection.execute(query)).first()
    return EventText(*row).decoded(session_id) if row else None


async def last_messages(
    tx: Transaction,
    session_id: UUID,
    *,
    limit: int,
    before_id: UUID | None = None,
    before_seq: int | None = None,
    offset: int = 0,
    role: str | None = None,
) -> list[Message]:
    """Return the last messages that the conversation has, or the last before one, the newest first."""
    mine = (messages.c.tenant_id == tx.tenant_id) & (messages.c.session_id == session_id)
    query = select(messages).where(mine, messages.c.superseded_seq.is_(None))
    query = query.order_by(messages.c.seq.desc()).limit(limit).offset(offset)
    if role is not None:
        query = query.where(messages.c.role == role)
    if before_seq is not None:
        query = query.where(messages.c.seq < before_seq)
    if before_id is not None:
        place = select(messages.c.seq).where(mine, messages.c.id == before_id).scalar_subquery()
        query = query.where(messages.c.seq < place)
    rows = (await tx.connection.execute(query)).mappings().all()
    return [_message(row) for row in rows]


async def question_of(tx: Transaction, session_id: UUID, run_id: UUID) -> Message | None:
    """Return the message of a person that a run answers."""
    query = select(messages).where(
        messages.c.tenant_id == tx.tenant_id,
        messages.c.session_id == session_id,
        messages.c.run_id == run_id,
        messages.c.role == "user",
    )
    row = (await tx.connection.execute(query)).mappings().first()
    return _message(row) if row else None


async def message(tx: Transaction, session_id: UUID, message_id: UUID) -> Message | None:
    """Return a message, also one that was replaced."""
    query = select(messages).where(
        messages.c.tenant_id == tx.tenant_id, messages.c.session_id == session_id, messages.c.id == message_id
    )
    row = (await tx.connection.execute(query)).mappings().first()
    return _message(row) if row else None


async def last_cell(tx: Transaction, session_id: UUID, *, after: int) -> int | None:
    """Return the number of the last cell that began after an event and that a kernel was given."""
    query = select(func.max(cells.c.seq)).where(
        cells.c.tenant_id == tx.tenant_id,
        cells.c.session_id == session_id,
        cells.c.seq > after,
        cells.c.superseded_seq.is_(None),
        (cells.c.status != "edited") | cells.c.finished_at.is_not(None),
    )
    return await tx.connection.scalar(query)


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


async def texts_of(tx: Transaction, found: Sequence[Found]) -> dict[tuple[UUID, UUID], RowMapping]:
    """Return what was found, by session and id: title of the session, content, and what else a list shows of it."""
    rows: dict[tuple[UUID, UUID], RowMapping] = {}
    for kind, table, own, text in (("message", messages, "id", "content"), ("code", cells, "execution_id", "code")):
        keys = [(item.session_id, item.id) for item in found if item.kind == kind]
        if not keys:
            continue
        missing = null().label("role" if kind == "code" else "status")
        query = (
            select(
                table.c.session_id,
                table.c[own].label("id"),
                table.c.seq,
                table.c.run_id,
                table.c[text].label("content"),
                table.c.status if kind == "code" else table.c.role,
                missing,
                sessions.c.title,
            )
            .join(sessions, (sessions.c.tenant_id == table.c.tenant_id) & (sessions.c.id == table.c.session_id))
            .where(table.c.tenant_id == tx.tenant_id, tuple_(table.c.session_id, table.c[own]).in_(keys))
        )
        for row in (await tx.connection.execute(query)).mappings():
            rows[row["session_id"], row["id"]] = row
    return rows


def _message(row: Any) -> Message:
    return Message(
        id=row["id"],
        seq=row["seq"],
        role=row["role"],
        content=row["content"],
        run_id=row["run_id"],
        artifact_ids=msgspec.convert(row["artifact_ids"], list[UUID]),
        superseded_seq=row["superseded_seq"],
        created_at=row["created_at"],
    )


def _cell(row: Any, outputs: list[dict[str, Any]]) -> Cell:
    return Cell(
        outputs=outputs,
        **{
            name: row[name]
            for name in row
            if name not in {"tenant_id", "session_id", "outputs_after", "superseded_seq"}
        },
    )
