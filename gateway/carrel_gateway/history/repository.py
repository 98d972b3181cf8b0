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
    Table,
    and_,
    bindparam,
    exists,
    func,
    insert,
    null,
    select,
    tuple_,
)

from carrel_gateway.history.events import (
    Cell,
    EventText,
    Fence,
    Message,
    QueuedMessage,
    StoredEvent,
    encode_payload,
)
from carrel_gateway.history.tables import cells, events, messages
from carrel_gateway.runs.tables import QUEUED, queued_messages, runs
from carrel_gateway.sessions.tables import sessions
from carrel_gateway.storage.database import Transaction
from carrel_gateway.storage.dialect import Dialect
from carrel_gateway.storage.search import Found
from carrel_gateway.storage.steps import Steps, scalar
from carrel_wire.log import CellOutputs, decode_payload

_DECODED_AT_ONCE: Final = 256 * 1024
"""Bytes of payloads that are decoded in one go: about a millisecond's work."""

# What every reader asks is built once: building a statement takes longer than Postgres or SQLite takes to carry it out.
_MESSAGE: Final = (
    messages.c.id,
    messages.c.seq,
    messages.c.role,
    messages.c.content,
    messages.c.run_id,
    messages.c.artifact_ids,
    messages.c.superseded_seq,
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


_PLACE: Final = select(messages.c.seq).where(_mine(messages), messages.c.id == bindparam("before_id"))
_ONE_MESSAGE: Final = select(*_MESSAGE).where(_mine(messages), messages.c.id == bindparam("message_id"))
_QUESTION: Final = select(*_MESSAGE).where(
    _mine(messages), messages.c.run_id == bindparam("run_id"), messages.c.role == "user"
)
_WAITING: Final = (
    select(*QUEUED)
    .where(_mine(queued_messages), queued_messages.c.withdrawn.is_(False))
    .order_by(queued_messages.c.seq)
)
_WAITS: Final = exists(_WAITING.order_by(None)).label("waits")
"""Asked with the messages, so that who reads those asks a second time only where something waits."""
_NO_END: Final = 2**63 - 1


@cache
def _last(*, before: bool, role: bool) -> Any:
    query = select(*_MESSAGE, _WAITS).where(
        _mine(messages),
        messages.c.seq < bindparam("before_seq"),
        messages.c.superseded_seq.is_(None),
        exists(_HAS_SESSION),
    )
    if before:
        query = query.where(messages.c.seq < _PLACE.scalar_subquery())
    if role:
        query = query.where(messages.c.role == bindparam("role"))
    return query.order_by(messages.c.seq.desc()).limit(bindparam("limit")).offset(bindparam("offset"))


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


def tail(
    dialect: Dialect, tenant_id: UUID, session_id: UUID, *, after: int, limit: int, size: int, there: bool = False
) -> Steps[list[EventText]]:
    """Return the events after a number, in order: at most so many, and no further one when they have `size` bytes.

    Parameters
    ----------
    there
        Return none of a session that is about to be deleted, or that is a fork that nobody sees yet.
    """
    values = {"tenant_id": tenant_id, "session_id": session_id, "after": after, "most": limit, "size": size}
    rows = yield _page(dialect.name, dialect.octets, there=there), values
    return [EventText(*row) for row in rows]


def page(
    dialect: Dialect, tenant_id: UUID, session_id: UUID, *, after: int, limit: int, size: int
) -> Steps[list[EventText] | None]:
    """Return what `tail` does; None when the tenant has no such session."""
    found = yield from tail(dialect, tenant_id, session_id, after=after, limit=limit, size=size, there=True)
    if found or (yield from has_session(tenant_id, session_id)):
        return found
    return None


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
def _page(_dialect: str, octets: Callable[[ColumnElement[str]], ColumnElement[int]], *, there: bool) -> Select[Any]:
    """Return the statement of a page, which is built once: sizes are looked at before any payload is read."""
    mine = (_mine(events), events.c.seq > bindparam("after"))
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
    query = select(*columns).where(*mine, events.c.seq <= last).order_by(events.c.seq)
    return query.where(exists(_HAS_SESSION)) if there else query


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


def conversation(
    tenant_id: UUID,
    session_id: UUID,
    *,
    limit: int,
    before_id: UUID | None = None,
    before_seq: int | None = None,
    offset: int = 0,
    role: str | None = None,
) -> Steps[tuple[list[Message], bool] | None]:
    """Return the last messages that the conversation has, or the last before one, the newest first.

    With them, whether others wait for their turn; none when the tenant has no such session.
    """
    values: dict[str, Any] = {
        "tenant_id": tenant_id,
        "session_id": session_id,
        "before_seq": _NO_END if before_seq is None else before_seq,
        "limit": limit,
        "offset": offset,
        **({} if before_id is None else {"before_id": before_id}),
        **({} if role is None else {"role": role}),
    }
    rows = yield _last(before=before_id is not None, role=role is not None), values
    if rows:
        return [_message(row[:-1]) for row in rows], bool(rows[0][-1])
    return ([], True) if (yield from has_session(tenant_id, session_id)) else None


def waiting(tenant_id: UUID, session_id: UUID) -> Steps[list[QueuedMessage]]:
    """Return the messages that wait for the end of the run that is going on, in the order of their turn."""
    rows = yield _WAITING, {"tenant_id": tenant_id, "session_id": session_id}
    return [QueuedMessage(*row) for row in rows]


def question_of(tenant_id: UUID, session_id: UUID, run_id: UUID) -> Steps[Message | None]:
    """Return the message of a person that a run answers."""
    rows = yield _QUESTION, {"tenant_id": tenant_id, "session_id": session_id, "run_id": run_id}
    return _message(rows[0]) if rows else None


def message(tenant_id: UUID, session_id: UUID, message_id: UUID) -> Steps[Message | None]:
    """Return a message, also one that was replaced."""
    rows = yield _ONE_MESSAGE, {"tenant_id": tenant_id, "session_id": session_id, "message_id": message_id}
    return _message(rows[0]) if rows else None


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


def _message(row: Sequence[Any]) -> Message:
    own, seq, role, content, run_id, artifact_ids, superseded_seq, created_at = row
    artifacts = msgspec.convert(artifact_ids, list[UUID]) if artifact_ids else []
    return Message(own, seq, role, content, run_id, artifacts, superseded_seq=superseded_seq, created_at=created_at)


def _cell(row: Any, outputs: list[dict[str, Any]]) -> Cell:
    return Cell(
        outputs=outputs,
        **{
            name: row[name]
            for name in row
            if name not in {"tenant_id", "session_id", "outputs_after", "superseded_seq"}
        },
    )
