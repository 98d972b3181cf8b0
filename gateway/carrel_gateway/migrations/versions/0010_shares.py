"""Teams that sessions are shared with, and links that show a session."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from carrel_gateway.migrations.postgres import protect

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def _refer(table: str, column: str, other: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(
        ["tenant_id", column], [f"{other}.tenant_id", f"{other}.id"], name=f"fk_{table}_{other}", ondelete="CASCADE"
    )


def upgrade() -> None:
    op.create_table(
        "session_shares",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("session_id", sa.Uuid(), nullable=False),
        sa.Column("team_id", sa.Uuid(), nullable=False),
        sa.Column("access", sa.String(8), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "session_id", "team_id", name="pk_session_shares"),
        _refer("session_shares", "session_id", "sessions"),
        _refer("session_shares", "team_id", "teams"),
        sa.CheckConstraint("access IN ('read', 'write')", name="ck_session_shares_access"),
    )
    op.create_index("ix_session_shares_tenant_id_team_id", "session_shares", ["tenant_id", "team_id"])
    op.create_table(
        "share_links",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("session_id", sa.Uuid(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("tenant_id", "id", name="pk_share_links"),
        _refer("share_links", "session_id", "sessions"),
        _refer("share_links", "user_id", "users"),
        sa.UniqueConstraint("tenant_id", "digest", name="uq_share_links_tenant_id_digest"),
    )
    op.create_index("ix_share_links_tenant_id_session_id", "share_links", ["tenant_id", "session_id"])
    if op.get_bind().dialect.name == "postgresql":
        protect("session_shares")
        protect("share_links")
