"""Table of the MCP servers of sessions; the values of what a server is given are encrypted in it."""

from __future__ import annotations

from sqlalchemy import Boolean, CheckConstraint, Column, ForeignKeyConstraint, String, Table, Text

from carrel_gateway.storage.schema import metadata, tenant_column, uuid_column
from carrel_gateway.storage.types import JsonText, UtcDateTime

mcp_servers = Table(
    "mcp_servers",
    metadata,
    tenant_column(),
    uuid_column("session_id", primary_key=True),
    Column("name", String(40), primary_key=True),
    Column("transport", String(8), nullable=False),
    Column("target", JsonText, nullable=False),
    Column("secrets", JsonText, nullable=False),
    Column("sealed", Text, nullable=True),
    Column("permission", String(8), nullable=False),
    Column("enabled", Boolean, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),
    ForeignKeyConstraint(["tenant_id", "session_id"], ["sessions.tenant_id", "sessions.id"], ondelete="CASCADE"),
    CheckConstraint("transport IN ('stdio', 'http')", name="transport"),
    CheckConstraint("permission IN ('allow', 'ask', 'deny')", name="permission"),
)
"""`target` is the command (stdio) or the address (http); `secrets` names what is in `sealed`, none where it is null."""
