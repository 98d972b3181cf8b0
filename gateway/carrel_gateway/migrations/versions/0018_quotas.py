"""Quotas: limits of users, teams and tenants, what is counted against them, and an index of who has sessions."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from carrel_gateway.migrations.postgres import protect

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "quotas",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("scope", sa.String(8), nullable=False),
        sa.Column("scope_id", sa.Uuid(), nullable=False),
        sa.Column("resource", sa.String(16), nullable=False),
        sa.Column("most", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "scope", "scope_id", "resource", name="pk_quotas"),
        sa.CheckConstraint("scope IN ('tenant', 'team', 'user')", name="ck_quotas_scope"),
        sa.CheckConstraint("most >= 0", name="ck_quotas_most"),
    )
    op.create_table(
        "quota_counters",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("scope", sa.String(8), nullable=False),
        sa.Column("scope_id", sa.Uuid(), nullable=False),
        sa.Column("resource", sa.String(16), nullable=False),
        sa.Column("period", sa.String(10), nullable=False),
        sa.Column("used", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "scope", "scope_id", "resource", "period", name="pk_quota_counters"),
    )
    is_open = sa.text("status = 'active'")
    op.create_index(
        "ix_sessions_open", "sessions", ["tenant_id", "owner_id"], postgresql_where=is_open, sqlite_where=is_open
    )
    if op.get_bind().dialect.name == "postgresql":
        protect("quotas")
        protect("quota_counters")
