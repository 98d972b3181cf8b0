"""Queries of executions: each id is taken once, and its recording only moves on."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Executable, bindparam, select, update
from sqlalchemy.dialects import postgresql, sqlite

from carrel_gateway.execution.tables import executions
from carrel_gateway.storage.database import Transaction
from carrel_gateway.storage.steps import Steps, scalar
from carrel_wire.log import CellStatus

_UNFINISHED: Final = frozenset({"intended", "running"})
# Statements of every execution are built once: building one takes longer than SQLite takes to carry it out.
_MARK: Final = (
    update(executions)
    .where(
        executions.c.tenant_id == bindparam("tenant_id_of"),
        executions.c.id == bindparam("of_execution"),
        executions.c.finished_at.is_(None),
    )
    .returning(executions.c.id)
)
_MARK_SEEN: Final = _MARK.where(executions.c.last_n == bindparam("seen_n"))


@dataclass(frozen=True, slots=True)
class ExecutionRow:
    """How far an execution is recorded."""

    id: UUID
    session_id: UUID
    run_id: UUID | None
    code: str
    status: CellStatus
    last_n: int
    """Number of the last event that is committed."""
    created_at: datetime
    finished_at: datetime | None

    @property
    def is_finished(self) -> bool:
        """Whether its end is committed."""
        return self.finished_at is not None


_FIND: Final = select(*(executions.c[name] for name in ExecutionRow.__slots__)).where(
    executions.c.tenant_id == bindparam("tenant_id"), executions.c.id == bindparam("execution_id")
)


def find(tenant_id: UUID, execution_id: UUID) -> Steps[ExecutionRow | None]:
    """Return an execution of the tenant."""
    rows = yield _FIND, {"tenant_id": tenant_id, "execution_id": execution_id}
    return ExecutionRow(*rows[0]) if rows else None


async def open_of_session(tx: Transaction, session_id: UUID) -> list[ExecutionRow]:
    """Return the session's executions whose end is not committed, oldest first."""
    query = (
        select(executions)
        .where(
            executions.c.tenant_id == tx.tenant_id,
            executions.c.session_id == session_id,
            executions.c.finished_at.is_(None),
        )
        .order_by(executions.c.id)
    )
    return [_row(row) for row in (await tx.connection.execute(query)).mappings()]


def intend(
    dialect: str,
    tenant_id: UUID,
    execution_id: UUID,
    *,
    session_id: UUID,
    code: str,
    run_id: UUID | None = None,
    status: CellStatus = "intended",
    last_n: int = 0,
) -> Steps[bool]:
    """Begin the record of an execution; false when the id is taken."""
    now = datetime.now(UTC)
    row = {
        "tenant_id": tenant_id,
        "id": execution_id,
        "session_id": session_id,
        "run_id": run_id,
        "code": code,
        "status": status,
        "last_n": last_n,
        "created_at": now,
        "finished_at": None if status in _UNFINISHED else now,
    }
    return (yield from scalar(_insert(dialect), row)) is not None


def mark(
    tenant_id: UUID, execution_id: UUID, *, status: CellStatus, last_n: int, seen_n: int | None = None
) -> Steps[bool]:
    """Move the record of an unfinished execution on; false when it is finished.

    Parameters
    ----------
    seen_n
        Number up to which the caller has seen it recorded; when it is further by now, nothing is changed.
    """
    values = {
        "tenant_id_of": tenant_id,
        "of_execution": execution_id,
        "status": status,
        "last_n": last_n,
        "finished_at": None if status in _UNFINISHED else datetime.now(UTC),
    }
    if seen_n is None:
        return (yield from scalar(_MARK, values)) is not None
    return (yield from scalar(_MARK_SEEN, {**values, "seen_n": seen_n})) is not None


@cache
def _insert(dialect: str) -> Executable:
    insert = postgresql.insert if dialect == "postgresql" else sqlite.insert
    return insert(executions).on_conflict_do_nothing().returning(executions.c.id)


def _row(row: Any) -> ExecutionRow:
    return ExecutionRow(**{name: row[name] for name in ExecutionRow.__slots__})
