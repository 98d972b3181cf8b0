"""Jobs; the worker's role may take those that are queued or running, of all tenants."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from carrel_gateway.migrations.postgres import open_to_worker, protect

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

LIVE = sa.text("status IN ('queued', 'running')")


def upgrade() -> None:
    op.create_table(
        "jobs",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.String(64), nullable=False),
        sa.Column("key", sa.String(200), nullable=True),
        sa.Column("payload", sa.Text(), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("max_attempts", sa.Integer(), nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("owner", sa.Uuid(), nullable=True),
        sa.Column("generation", sa.BigInteger(), nullable=False),
        sa.Column("cancel_requested", sa.Boolean(), nullable=False),
        sa.Column("result", sa.Text(), nullable=True),
        sa.Column("error_code", sa.String(64), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("request_id", sa.String(64), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("tenant_id", "id", name="pk_jobs"),
        sa.CheckConstraint("status IN ('queued', 'running', 'succeeded', 'cancelled', 'dead')", name="ck_jobs_status"),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.tenant_id"], name="fk_jobs_tenants", ondelete="CASCADE"),
    )
    live = {"postgresql_where": LIVE, "sqlite_where": LIVE}
    op.create_index("ix_jobs_due", "jobs", ["priority", "due_at", "id"], **live)
    op.create_index("uq_jobs_key", "jobs", ["tenant_id", "kind", "key"], unique=True, **live)
    if op.get_bind().dialect.name == "postgresql":
        protect("jobs")
        columns = "status, owner, generation, attempts, due_at, started_at"
        # written out: what a dump makes of IN is not what stands here
        open_to_worker("jobs", "status = 'queued' OR status = 'running'", columns)
