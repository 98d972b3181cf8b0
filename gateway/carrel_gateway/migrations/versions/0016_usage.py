"""The ledger of usage: calls of models, which the application can only add."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from carrel_gateway.migrations.postgres import protect_appended

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "usage",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("session_id", sa.Uuid(), nullable=False),
        sa.Column("run_id", sa.Uuid(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("day", sa.String(10), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("input_tokens", sa.BigInteger(), nullable=False),
        sa.Column("output_tokens", sa.BigInteger(), nullable=False),
        sa.Column("cost_micros", sa.BigInteger(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "id", name="pk_usage"),
    )
    op.create_index("ix_usage_tenant_id_day", "usage", ["tenant_id", "day"])
    op.create_index("ix_usage_tenant_id_user_id_day", "usage", ["tenant_id", "user_id", "day"])
    op.create_index("ix_usage_tenant_id_session_id", "usage", ["tenant_id", "session_id"])
    if op.get_bind().dialect.name == "postgresql":
        protect_appended("usage")
