"""Table of executions: how far each is recorded. What a cell showed is in the history."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, ForeignKeyConstraint, Index, String, Table, text

from carrel_gateway.storage.schema import metadata, tenant_column, uuid_column
from carrel_gateway.storage.types import PlainText, UtcDateTime

executions = Table(
    "executions",
    metadata,
    tenant_column(),
    uuid_column("id", primary_key=True),
    uuid_column("session_id"),
    uuid_column("run_id", nullable=True),
    Column("code", PlainText, nullable=False),
    Column("status", String(32), nullable=False),
    Column("last_n", BigInteger, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("finished_at", UtcDateTime, nullable=True),
    ForeignKeyConstraint(["tenant_id", "session_id"], ["sessions.tenant_id", "sessions.id"], ondelete="CASCADE"),
)

_OPEN = text("finished_at IS NULL")
Index("ix_executions_open", executions.c.tenant_id, executions.c.session_id, postgresql_where=_OPEN, sqlite_where=_OPEN)
