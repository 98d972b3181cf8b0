"""Table of stored agents. Sessions hold a copy of what they began with, and no reference."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, ForeignKeyConstraint, Table

from carrel_gateway.storage.schema import metadata, tenant_column, uuid_column
from carrel_gateway.storage.types import JsonText, PlainText, UtcDateTime

agents = Table(
    "agents",
    metadata,
    tenant_column(),
    uuid_column("id", primary_key=True),
    uuid_column("owner_id"),
    Column("name", PlainText, nullable=False),
    Column("description", PlainText, nullable=False),
    Column("model", PlainText, nullable=False),
    Column("config", JsonText, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),
    ForeignKeyConstraint(["tenant_id", "owner_id"], ["users.tenant_id", "users.id"], ondelete="CASCADE"),
)
"""`config` as that of a session; `version` counts the changes."""
