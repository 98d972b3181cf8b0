"""Snapshots of sessions: what they hold, where their contents are, and which sessions' state lies in one.

Columns are added and no constraint is changed: SQLite would have to make the table of sessions anew for that, and with
it lose everything that refers to it.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from carrel_gateway.migrations.postgres import protect

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

TABLES = ("snapshots", "snapshot_blobs")


def upgrade() -> None:
    op.add_column("sessions", sa.Column("snapshot_id", sa.Uuid(), nullable=True))
    op.add_column("sessions", sa.Column("suspended_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("sessions", sa.Column("forked_from", sa.Uuid(), nullable=True))
    _snapshots()
    _blobs()
    if op.get_bind().dialect.name == "postgresql":
        for table in TABLES:
            protect(table)


def _snapshots() -> None:
    op.create_table(
        "snapshots",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("session_id", sa.Uuid(), nullable=False),
        sa.Column("session_uid", sa.Text(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("boot_id", sa.Text(), nullable=False),
        sa.Column("incarnation", sa.Text(), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("manifest", sa.Text(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "id", name="pk_snapshots"),
        _of_session("snapshots"),
    )
    op.create_index("ix_snapshots_session", "snapshots", ["tenant_id", "session_id"])


def _blobs() -> None:
    op.create_table(
        "snapshot_blobs",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("session_id", sa.Uuid(), nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "id", name="pk_snapshot_blobs"),
        _of_session("snapshot_blobs"),
        sa.CheckConstraint("state IN ('pending', 'ready', 'unused')", name="ck_snapshot_blobs_state"),
    )
    op.create_index("ix_snapshot_blobs_content", "snapshot_blobs", ["tenant_id", "session_id", "sha256"])
    unsettled = sa.text("state IN ('pending', 'unused')")
    op.create_index(
        "ix_snapshot_blobs_unsettled",
        "snapshot_blobs",
        ["tenant_id", "created_at"],
        postgresql_where=unsettled,
        sqlite_where=unsettled,
    )


def _of_session(table: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(
        ["tenant_id", "session_id"],
        ["sessions.tenant_id", "sessions.id"],
        name=f"fk_{table}_sessions",
        ondelete="CASCADE",
    )
