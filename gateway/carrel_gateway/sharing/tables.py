"""Tables of what is shared with teams. A share goes with the team, and with what is shared."""

from __future__ import annotations

from sqlalchemy import CheckConstraint, Column, ForeignKeyConstraint, Index, String, Table

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
