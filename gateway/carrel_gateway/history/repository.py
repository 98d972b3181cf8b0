"""Queries of the log and of its read models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final
from uuid import UUID

import msgspec
from sqlalchemy import Table, and_, bindparam, exists, insert, select

from carrel_gateway.history.events import Cell, Fence, Message, StoredEvent, encode_payload
from carrel_gateway.history.tables import cells, events, messages
from carrel_gateway.runs.tables import runs
from carrel_gateway.sessions.tables import sessions
from carrel_gateway.storage.database import Transaction
from carrel_gateway.storage.steps import Steps, scalar
from carrel_wire.log import CellOutputs, decode_payload

# What every reader asks is built once: building a statement takes longer than Postgres or SQLite takes to carry it out.
_EVENT: Final = (
    events.c.seq,
    events.c.id,
    events.c.parent_id,
    events.c.type,
    events.c.actor,
    events.c.payload,
    events.c.created_at,
)
_MESSAGE: Final = (
    messages.c.id,
    messages.c.seq,
    messages.c.role,
    messages.c.content,
    messages.c.run_id,
    messages.c.artifact_ids,
    messages.c.created_at,
)
_IS_THERE: Final = and_(
    sessions.c.tenant_id == bindparam("tenant_id"),
    sessions.c.id == bindparam("session_id"),
    sessions.c.status != "deleted",
)
_HAS_SESSION: Final = select(sessions.c.id).where(_IS_THERE)


def _mine(table: Table) -> Any:
    return and_(table.c.tenant_id == bindparam("tenant_id"), table.c.session_id == bindparam("session_id"))


def _beside_session(columns: Sequence[Any], table: Table, *conditions: Any) -> Any:
    """Return the rows of a session; one without values when there are none, and none when there is no session."""
    return select(*columns).select_from(sessions.outerjoin(table, and_(_mine(table), *conditions))).where(_IS_THERE)


_AFTER: Final = events.c.seq > bindparam("after")
_TAIL: Final = select(*_EVENT).where(_mine(events), _AFTER).order_by(events.c.seq).limit(bindparam("limit"))
_PAGE: Final = _beside_session(_EVENT, events, _AFTER).order_by(events.c.seq).limit(bindparam("limit"))
_PLACE: Final = select(messages.c.seq).where(_mine(messages), messages.c.id == bindparam("before_id"))


def _last(*conditions: Any) -> Any:
    found = _beside_session(_MESSAGE, messages, messages.c.seq < bindparam("before_seq"), *conditions)
    return found.order_by(messages.c.seq.desc()).limit(bindparam("limit")).offset(bindparam("offset"))


_MESSAGES: Final = _last()
_MESSAGES_BEFORE: Final = _last(messages.c.seq < _PLACE.scalar_subquery())
_NO_END: Final = 2**63 - 1


def has_session(tenant_id: UUID, session_id: UUID) -> Steps[bool]:
    """Return whether the tenant has this session."""
    return (yield from scalar(_HAS_SESSION, {"tenant_id": tenant_id, "session_id": session_id})) is not None


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


def tail(tenant_id: UUID, session_id: UUID, *, after: int, limit: int) -> Steps[list[StoredEvent]]:
    """Return the events after a number, in order."""
    values = {"tenant_id": tenant_id, "session_id": session_id, "after": after, "limit": limit}
    rows = yield _TAIL, values
    return [_event(session_id, row) for row in rows]


def page(tenant_id: UUID, session_id: UUID, *, after: int, limit: int) -> Steps[list[StoredEvent] | None]:
    """Return the events after a number, in order; None when the tenant has no such session."""
    values = {"tenant_id": tenant_id, "session_id": session_id, "after": after, "limit": limit}
    rows = yield _PAGE, values
    if not rows:
        return None
    return [_event(session_id, row) for row in rows if row[0] is not None]


def last_messages(
    tenant_id: UUID,
    session_id: UUID,
    *,
    limit: int,
    before_id: UUID | None = None,
    before_seq: int | None = None,
    offset: int = 0,
) -> Steps[list[Message] | None]:
    """Return the last messages, or the last before one, the newest first.

    None when no row was found: the tenant has no such session, or `offset` is beyond its first message.
    """
    before = _NO_END if before_seq is None else before_seq
    values = {
        "tenant_id": tenant_id,
        "session_id": session_id,
        "before_seq": before,
        "limit": limit,
        "offset": offset,
    }
    if before_id is None:
        rows = yield _MESSAGES, values
    else:
        rows = yield _MESSAGES_BEFORE, {**values, "before_id": before_id}
    if not rows:
        return None
    return [_message(row) for row in rows if row[0] is not None]


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


def _event(session_id: UUID, row: Sequence[Any]) -> StoredEvent:
    seq, own, parent, kind, actor, payload, created_at = row
    return StoredEvent(session_id, seq, own, parent, kind, actor, decode_payload(payload), created_at)


def _message(row: Sequence[Any]) -> Message:
    own, seq, role, content, run_id, artifact_ids, created_at = row
    return Message(own, seq, role, content, run_id, msgspec.convert(artifact_ids, list[UUID]), created_at)


def _cell(row: Any, outputs: list[dict[str, Any]]) -> Cell:
    return Cell(
        outputs=outputs,
        **{name: row[name] for name in row if name not in {"tenant_id", "session_id", "outputs_after"}},
    )
