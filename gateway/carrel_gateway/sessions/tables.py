"""Table of sessions. `last_seq` is the number of the last event of the session's log."""

from __future__ import annotations

from sqlalchemy import BigInteger, CheckConstraint, Column, ForeignKeyConstraint, String, Table

from carrel_gateway.storage.schema import metadata, tenant_column, uuid_column
from carrel_gateway.storage.types import JsonText, PlainText, UtcDateTime

sessions = Table(
    "sessions",
    metadata,
    tenant_column(),
    uuid_column("id", primary_key=True),
    uuid_column("owner_id"),
    Column("title", PlainText, nullable=False),
    Column("status", String(16), nullable=False),
    Column("model", PlainText, nullable=False),
    Column("config", JsonText, nullable=False),
    Column("last_seq", BigInteger, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),
    CheckConstraint("status IN ('active', 'archived', 'deleted')", name="status"),
    ForeignKeyConstraint(["tenant_id", "owner_id"], ["users.tenant_id", "users.id"]),
)
