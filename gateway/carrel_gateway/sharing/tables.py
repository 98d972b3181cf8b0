"""Tables of what is shared with teams and by links. A share goes with the team, and with what is shared."""

from __future__ import annotations

from sqlalchemy import CheckConstraint, Column, ForeignKeyConstraint, Index, String, Table, UniqueConstraint

from carrel_gateway.storage.schema import metadata, tenant_column, uuid_column
from carrel_gateway.storage.types import UtcDateTime


def _shares(name: str, what: str, target: str) -> Table:
    return Table(
        name,
        metadata,
        tenant_column(),
        uuid_column(what, primary_key=True),
        uuid_column("team_id", primary_key=True),
        Column("access", String(8), nullable=False),
        Column("created_at", UtcDateTime, nullable=False),
        ForeignKeyConstraint(["tenant_id", what], [f"{target}.tenant_id", f"{target}.id"], ondelete="CASCADE"),
        ForeignKeyConstraint(["tenant_id", "team_id"], ["teams.tenant_id", "teams.id"], ondelete="CASCADE"),
        Index(None, "tenant_id", "team_id"),
        CheckConstraint("access IN ('read', 'write')", name="access"),
    )


agent_shares = _shares("agent_shares", "agent_id", "agents")
session_shares = _shares("session_shares", "session_id", "sessions")

share_links = Table(
    "share_links",
    metadata,
    tenant_column(),
    uuid_column("id", primary_key=True),
    uuid_column("session_id"),
    uuid_column("user_id"),
    Column("digest", String(64), nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("expires_at", UtcDateTime, nullable=False),
    Column("revoked_at", UtcDateTime),
    uuid_column("maker_id", nullable=True),
    ForeignKeyConstraint(["tenant_id", "session_id"], ["sessions.tenant_id", "sessions.id"], ondelete="CASCADE"),
    ForeignKeyConstraint(["tenant_id", "user_id"], ["users.tenant_id", "users.id"], ondelete="CASCADE"),
    UniqueConstraint("tenant_id", "digest"),
    Index(None, "tenant_id", "session_id"),
)
"""`digest` is the SHA-256 of the token; `user_id` is who made the link, `maker_id` the person behind them."""
