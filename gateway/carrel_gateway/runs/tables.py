"""Tables of runs, and of messages that wait for one to end.

The partial unique index is what keeps a session at one active run. A message leaves its table when its run begins; one
that was withdrawn stays, so that whoever sends it again under its key hears so.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKeyConstraint,
    Index,
    String,
    Table,
    UniqueConstraint,
    text,
)

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

queued_messages = Table(
    "queued_messages",
    metadata,
    tenant_column(),
    uuid_column("run_id", primary_key=True),
    uuid_column("session_id"),
    Column("seq", BigInteger, nullable=False),
    uuid_column("message_id"),
    uuid_column("user_id"),
    Column("content", PlainText, nullable=False),
    Column("model", PlainText, nullable=True),
    Column("withdrawn", Boolean, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    UniqueConstraint("tenant_id", "session_id", "seq"),
    ForeignKeyConstraint(["tenant_id", "session_id"], ["sessions.tenant_id", "sessions.id"], ondelete="CASCADE"),
    ForeignKeyConstraint(["tenant_id", "user_id"], ["users.tenant_id", "users.id"]),
)
QUEUED: Final = tuple(
    queued_messages.c[name] for name in ("message_id", "run_id", "seq", "user_id", "content", "model", "created_at")
)
"""The columns of a `QueuedMessage`, in its order."""
