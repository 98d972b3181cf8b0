"""How events fill the read models, in the transaction that appends them.

Each event becomes at most one statement. Whoever adds an event type that a read model shows adds it here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Executable, update
from sqlalchemy.dialects import postgresql, sqlite

from carrel_gateway.history.events import StoredEvent
from carrel_gateway.history.tables import cells, messages
from carrel_gateway.storage.database import Transaction
from carrel_wire.log import AssistantMessage, CellEdited, CellFinished, CellIntended, CellOutputs, UserMessage


async def project(tx: Transaction, events: Sequence[StoredEvent]) -> None:
    """Bring the read models up to these events, which are the last of the session's log."""
    for event in events:
        statement = _statement(tx, event)
        if statement is not None:
            await tx.connection.execute(statement)


def _statement(tx: Transaction, event: StoredEvent) -> Executable | None:
    match event.payload:
        case UserMessage() | AssistantMessage() as payload:
            return messages.insert().values(**_message(tx.tenant_id, event, payload))
        case CellIntended() as payload:
            return _upsert(
                tx, _cell(tx.tenant_id, event, payload.execution_id, payload.code, run_id=payload.run_id), set()
            )
        case CellOutputs() as payload:
            # A plain request has no intent: its cell begins with its first outputs, and its code comes at its end.
            return _upsert(tx, _cell(tx.tenant_id, event, payload.execution_id, "", status="running"), {"status"})
        case CellFinished() as payload:
            return _finished(tx, event, payload)
        case CellEdited() as payload:
            row = _cell(tx.tenant_id, event, payload.execution_id, payload.code, status="edited")
            row["outputs_after"] = event.seq
            return _upsert(tx, row, {"code", "status", "outputs_after", "execution_count"})
        case _:
            return None


def _finished(tx: Transaction, event: StoredEvent, payload: CellFinished) -> Executable:
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
        return (
            update(cells)
            .where(
                cells.c.tenant_id == tx.tenant_id,
                cells.c.session_id == event.session_id,
                cells.c.execution_id == payload.execution_id,
            )
            .values(**result)
        )
    row = _cell(tx.tenant_id, event, payload.execution_id, payload.code, run_id=payload.run_id)
    return _upsert(tx, {**row, **result}, {*result, "code", "run_id"})


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
        "created_at": event.created_at,
        "finished_at": None,
    }


def _upsert(tx: Transaction, row: dict[str, Any], changed: set[str]) -> Executable:
    """Insert the cell or, when it is there, change these columns of it."""
    key = ["tenant_id", "session_id", "execution_id"]
    insert = postgresql.insert if tx.dialect.name == "postgresql" else sqlite.insert
    statement = insert(cells).values(**row)
    if not changed:
        return statement.on_conflict_do_nothing(index_elements=key)
    return statement.on_conflict_do_update(
        index_elements=key, set_={name: statement.excluded[name] for name in changed}
    )
