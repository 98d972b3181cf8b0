"""Table of runs. The partial unique index is what keeps a session at one active run."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, CheckConstraint, Column, ForeignKeyConstraint, Index, String, Table, text

from carrel_gateway.storage.schema import metadata, tenant_column, uuid_column
from carrel_gateway.storage.types import PlainText, UtcDateTime

runs = Table(
    "runs",
    metadata,
    tenant_column(),
    uuid_column("id", primary_key=True),
    uuid_column("session_id"),
    uuid_column("user_id"),
    Column("kind", String(16), nullable=False),
    Column("model", PlainText, nullable=True),
    Column("status", String(16), nullable=False),
    uuid_column("owner"),
    Column("generation", BigInteger, nullable=False),
    Column("lease_until", UtcDateTime, nullable=False),
    Column("cancel_requested", Boolean, nullable=False),
    Column("started_at", UtcDateTime, nullable=False),
    Column("finished_at", UtcDateTime, nullable=True),
    CheckConstraint("status IN ('running', 'succeeded', 'failed', 'cancelled')", name="status"),
    ForeignKeyConstraint(["tenant_id", "session_id"], ["sessions.tenant_id", "sessions.id"], ondelete="CASCADE"),
    ForeignKeyConstraint(["tenant_id", "user_id"], ["users.tenant_id", "users.id"]),
)

ACTIVE = text("status = 'running'")

Index(
    "uq_runs_active",
    runs.c.tenant_id,
    runs.c.session_id,
    unique=True,
    postgresql_where=ACTIVE,
    sqlite_where=ACTIVE,
)
Index("ix_runs_lease", runs.c.lease_until, postgresql_where=ACTIVE, sqlite_where=ACTIVE)
