"""Table of artifacts: one row for each version of a name, whose life says how far the object has come.

`pending` (row, maybe an object) → `ready` → `deleted` (object to be removed) → `removed` (the row stays, so that a
version number is never given twice).
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKeyConstraint,
    Index,
    Integer,
    String,
    Table,
    Text,
    text,
)

from carrel_gateway.storage.schema import metadata, tenant_column, uuid_column
from carrel_gateway.storage.types import UtcDateTime

artifacts = Table(
    "artifacts",
    metadata,
    tenant_column(),
    uuid_column("id", primary_key=True),
    uuid_column("session_id"),
    Column("name", Text, nullable=False),
    Column("category", String(16), nullable=False),
    Column("version", Integer, nullable=True),
    Column("state", String(16), nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("content_type", Text, nullable=False),
    Column("sha256", String(64), nullable=False),
    uuid_column("execution_id", nullable=True),
    uuid_column("run_id", nullable=True),
    Column("created_at", UtcDateTime, nullable=False),
    CheckConstraint("state IN ('pending', 'ready', 'deleted', 'removed')", name="state"),
    ForeignKeyConstraint(["tenant_id", "session_id"], ["sessions.tenant_id", "sessions.id"], ondelete="CASCADE"),
)

# Pending rows have no version yet; both databases hold nulls for different from one another.
Index(
    "uq_artifacts_version",
    artifacts.c.tenant_id,
    artifacts.c.session_id,
    artifacts.c.category,
    artifacts.c.name,
    artifacts.c.version,
    unique=True,
)
_UNSETTLED = text("state IN ('pending', 'deleted')")
Index(
    "ix_artifacts_unsettled",
    artifacts.c.tenant_id,
    artifacts.c.created_at,
    postgresql_where=_UNSETTLED,
    sqlite_where=_UNSETTLED,
)
