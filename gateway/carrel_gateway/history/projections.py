"""How events fill the read models, in the transaction that appends them.

Each event becomes a statement or a few. Whoever adds an event type that a read model shows adds it here. Statements
are built once and kept: building one takes longer than SQLite takes to carry it out.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from functools import cache
from typing import Any, Final, TypeAlias
from uuid import UUID

from sqlalchemy import Executable, bindparam, delete, update
from sqlalchemy.dialects import postgresql, sqlite

from carrel_gateway.history.events import StoredEvent
from carrel_gateway.history.tables import cells, messages
from carrel_gateway.sessions.tables import sessions
from carrel_gateway.storage.database import Transaction
from carrel_gateway.storage.steps import Steps
from carrel_gateway.usage import repository as usage
from carrel_wire.log import (
    AssistantMessage,
    CellEdited,
    CellFinished,
    CellIntended,
    CellOutputs,
    HeadMoved,
    KernelChanged,
    ModelCalled,
    UserMessage,
)

Change: TypeAlias = tuple[Executable, dict[str, Any]]
"""A statement and its values."""

_EDITED: Final = frozenset({"code", "status", "outputs_after", "execution_count"})
_RUNNING: Final = frozenset({"status"})
_NOTHING: Final = frozenset[str]()
_ADD_MESSAGE: Final = messages.insert()
_FINISH: Final = update(cells).where(
    cells.c.tenant_id == bindparam("tenant_id_of"),
    cells.c.session_id == bindparam("of_session"),
    cells.c.execution_id == bindparam("of_execution"),
)

_LEAVE_BEHIND: Final = tuple(
    update(table).where(
        table.c.tenant_id == bindparam("tenant_id_of"),
        table.c.session_id == bindparam("of_session"),
        table.c.seq > bindparam("head"),
        table.c.seq < bindparam("moved"),
        table.c.superseded_seq.is_(None),
    )
    for table in (messages, cells)
)
_MARK_KERNEL: Final = update(sessions).where(
    sessions.c.tenant_id == bindparam("tenant_id_of"), sessions.c.id == bindparam("of_session")
)


def project(dialect: str, tenant_id: UUID, events: Sequence[StoredEvent]) -> Steps[None]:
    """Bring the read models up to these events, which are the last of the session's log.

    The rows do not depend on which events come together.
    """
    ends = {event.payload.execution_id for event in events if isinstance(event.payload, CellFinished)}
    began: dict[UUID, StoredEvent] = {}
    for event in events:
        if isinstance(event.payload, CellOutputs) and event.payload.execution_id in ends:
            began.setdefault(event.payload.execution_id, event)
            continue  # the end says all of it, but when it began
        if isinstance(event.payload, HeadMoved):
            yield from _leave_behind(tenant_id, event, event.payload)
        elif isinstance(event.payload, KernelChanged):
            yield from _mark_kernel(tenant_id, event.session_id, None)
        elif isinstance(event.payload, ModelCalled):
            yield usage.entry(dialect, tenant_id, event, event.payload)
        elif (change := _change(dialect, tenant_id, event, began)) is not None:
            yield change


async def rebuild(tx: Transaction, session_id: UUID, events: AsyncIterator[StoredEvent]) -> None:
    """Make a session's rows anew from its whole log; the caller holds the session."""
    for table in (messages, cells):
        mine = (table.c.tenant_id == tx.tenant_id, table.c.session_id == session_id)
        await tx.connection.execute(delete(table).where(*mine))
    async for event in events:
        await tx.run(project(tx.dialect.name, tx.tenant_id, [event]))


def _leave_behind(tenant_id: UUID, event: StoredEvent, payload: HeadMoved) -> Steps[None]:
    """Take what came between HEAD and this event out of the conversation."""
    key = {"tenant_id_of": tenant_id, "of_session": event.session_id, "head": payload.head, "moved": event.seq}
    for statement in _LEAVE_BEHIND:
        yield statement, {**key, "superseded_seq": event.seq}
    if payload.kernel_stale:
        yield from _mark_kernel(tenant_id, event.session_id, event.seq)


def _mark_kernel(tenant_id: UUID, session_id: UUID, seq: int | None) -> Steps[None]:
    """Say since which event the kernel remembers what the conversation does not have; a new one remembers nothing."""
    yield _MARK_KERNEL, {"tenant_id_of": tenant_id, "of_session": session_id, "stale_seq": seq}


def _change(dialect: str, tenant_id: UUID, event: StoredEvent, began: Mapping[UUID, StoredEvent]) -> Change | None:
    match event.payload:
        case UserMessage() | AssistantMessage() as payload:
            return _ADD_MESSAGE, _message(tenant_id, event, payload)
        case CellIntended() as payload:
            row = _cell(tenant_id, event, payload.execution_id, payload.code, run_id=payload.run_id)
            return _upsert(dialect, _NOTHING), row
        case CellOutputs() as payload:
            # A plain request has no intent: its cell begins with its first outputs, and its code comes at its end.
            row = _cell(tenant_id, event, payload.execution_id, "", status="running")
            return _upsert(dialect, _RUNNING), row
        case CellFinished() as payload:
            return _finished(dialect, tenant_id, event, payload, began.get(payload.execution_id, event))
        case CellEdited() as payload:
            row = _cell(tenant_id, event, payload.execution_id, payload.code, status="edited")
            row["outputs_after"] = event.seq
            return _upsert(dialect, _EDITED), row
        case _:
            return None


def _finished(dialect: str, tenant_id: UUID, event: StoredEvent, payload: CellFinished, began: StoredEvent) -> Change:
    result = {
        "status": payload.status,
        "execution_count": payload.execution_count,
        "wall_seconds": payload.wall_seconds,
        "cpu_seconds": payload.cpu_seconds,
        "peak_memory_bytes": payload.peak_memory_bytes,
        "bytes_out": payload.bytes_out,
        "message": payload.message,
        "finished_at": event.created_at,
    }
    if payload.code is None:  # it was intended: the row is there
        key = {"tenant_id_of": tenant_id, "of_session": event.session_id, "of_execution": payload.execution_id}
        return _FINISH, {**key, **result}
    row = _cell(tenant_id, began, payload.execution_id, payload.code, run_id=payload.run_id)
    return _upsert(dialect, frozenset({*result, "code", "run_id"})), {**row, **result}


def _message(tenant_id: UUID, event: StoredEvent, payload: UserMessage | AssistantMessage) -> dict[str, Any]:
    artifacts = payload.artifact_ids if isinstance(payload, AssistantMessage) else []
    return {
        "tenant_id": tenant_id,
        "session_id": event.session_id,
        "seq": event.seq,
        "id": payload.message_id,
        "role": "user" if isinstance(payload, UserMessage) else "assistant",
        "content": payload.content,
        "run_id": payload.run_id,
        "artifact_ids": [str(artifact_id) for artifact_id in artifacts],
        "superseded_seq": None,
        "created_at": event.created_at,
    }


def _cell(
    tenant_id: UUID,
    event: StoredEvent,
    execution_id: UUID,
    code: str,
    *,
    status: str = "intended",
    run_id: UUID | None = None,
) -> dict[str, Any]:
    return {
        "tenant_id": tenant_id,
        "session_id": event.session_id,
        "execution_id": execution_id,
        "seq": event.seq,
        "code": code,
        "status": status,
        "run_id": run_id,
        "execution_count": None,
        "wall_seconds": None,
        "cpu_seconds": None,
        "peak_memory_bytes": None,
        "bytes_out": 0,
        "message": None,
        "outputs_after": 0,
        "superseded_seq": None,
        "created_at": event.created_at,
        "finished_at": None,
    }


@cache
def _upsert(dialect: str, changed: frozenset[str]) -> Executable:
    """Insert the cell or, when it is there, change these columns of it."""
    key = ["tenant_id", "session_id", "execution_id"]
    statement = (postgresql.insert if dialect == "postgresql" else sqlite.insert)(cells)
    if not changed:
        return statement.on_conflict_do_nothing(index_elements=key)
    return statement.on_conflict_do_update(
        index_elements=key, set_={name: statement.excluded[name] for name in changed}
    )
