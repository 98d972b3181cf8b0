"""The first schema: identity, sessions, the log with its read models, runs, executions, artifacts.

Written out, not taken from the tables of the day, so that it stays what it was.
"""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

import sqlalchemy as sa
from alembic import op
from carrel_gateway.migrations.postgres import create_roles, partition_by_session, protect

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

PARTITIONS = 16
TABLES = ("tenants", "users", "sessions", "runs", "events", "messages", "cells", "executions", "artifacts")

TENANT_ID = "00000000-0000-7000-8000-000000000001"
USER_ID = "00000000-0000-7000-8000-000000000002"


def _uuid(name: str, nullable: bool = False) -> sa.Column:
    return sa.Column(name, sa.Uuid(), nullable=nullable)


def _time(name: str, nullable: bool = False) -> sa.Column:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=nullable)


def _text(name: str, nullable: bool = False) -> sa.Column:
    return sa.Column(name, sa.Text(), nullable=nullable)


def _string(name: str, length: int) -> sa.Column:
    return sa.Column(name, sa.String(length), nullable=False)


def _big(name: str, nullable: bool = False) -> sa.Column:
    return sa.Column(name, sa.BigInteger(), nullable=nullable, autoincrement=False)


def _key(table: str, *columns: str) -> sa.PrimaryKeyConstraint:
    return sa.PrimaryKeyConstraint("tenant_id", *columns, name=f"pk_{table}")


def _refer(table: str, column: str, other: str, cascade: bool = True) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(
        ["tenant_id", column],
        [f"{other}.tenant_id", f"{other}.id"],
        name=f"fk_{table}_{other}",
        ondelete="CASCADE" if cascade else None,
    )


def upgrade() -> None:
    postgres = op.get_bind().dialect.name == "postgresql"
    if postgres:
        create_roles()
    _identity()
    _sessions()
    _runs()
    _history()
    _executions()
    _artifacts()
    _default_account()
    if postgres:
        partition_by_session("events", PARTITIONS)
        for table in TABLES:
            protect(table)
        op.execute("CREATE POLICY expired ON runs FOR SELECT TO carrel_worker"
                   " USING (status = 'running' AND lease_until < clock_timestamp())")
        op.execute("GRANT SELECT ON runs TO carrel_worker")
        op.execute("GRANT SELECT ON alembic_version TO carrel_app")


def _identity() -> None:
    op.create_table("tenants", _uuid("tenant_id"), _text("name"), _time("created_at"), _key("tenants"))
    op.create_table(
        "users",
        _uuid("tenant_id"),
        _uuid("id"),
        _text("name"),
        _time("created_at"),
        _key("users", "id"),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.tenant_id"], name="fk_users_tenants", ondelete="CASCADE"),
    )


def _sessions() -> None:
    op.create_table(
        "sessions",
        _uuid("tenant_id"),
        _uuid("id"),
        _uuid("owner_id"),
        _text("title"),
        _string("status", 16),
        _text("model"),
        _text("config"),
        _big("last_seq"),
        _time("created_at"),
        _time("updated_at"),
        _key("sessions", "id"),
        _refer("sessions", "owner_id", "users", cascade=False),
        sa.CheckConstraint("status IN ('active', 'archived', 'deleted')", name="ck_sessions_status"),
    )


def _runs() -> None:
    op.create_table(
        "runs",
        _uuid("tenant_id"),
        _uuid("id"),
        _uuid("session_id"),
        _uuid("user_id"),
        _string("kind", 16),
        _text("model", nullable=True),
        _string("status", 16),
        _uuid("owner"),
        _big("generation"),
        _time("lease_until"),
        sa.Column("cancel_requested", sa.Boolean(), nullable=False),
        _time("started_at"),
        _time("finished_at", nullable=True),
        _key("runs", "id"),
        _refer("runs", "session_id", "sessions"),
        _refer("runs", "user_id", "users", cascade=False),
        sa.CheckConstraint("status IN ('running', 'succeeded', 'failed', 'cancelled')", name="ck_runs_status"),
    )
    _index("uq_runs_active", "runs", ["tenant_id", "session_id"], unique=True, where="status = 'running'")
    _index("ix_runs_lease", "runs", ["lease_until"], where="status = 'running'")


def _history() -> None:
    op.create_table(
        "events",
        _uuid("tenant_id"),
        _uuid("session_id"),
        _big("seq"),
        _uuid("id"),
        _uuid("parent_id", nullable=True),
        _string("type", 64),
        _string("actor", 16),
        _text("payload"),
        _time("created_at"),
        _key("events", "session_id", "seq"),
        _refer("events", "session_id", "sessions"),
        postgresql_partition_by="HASH (session_id)",
    )
    op.create_table(
        "messages",
        _uuid("tenant_id"),
        _uuid("session_id"),
        _big("seq"),
        _uuid("id"),
        _string("role", 16),
        _text("content"),
        _uuid("run_id", nullable=True),
        _text("artifact_ids"),
        _time("created_at"),
        _key("messages", "session_id", "seq"),
        _refer("messages", "session_id", "sessions"),
    )
    op.create_index("uq_messages_id", "messages", ["tenant_id", "id"], unique=True)
    op.create_table(
        "cells",
        _uuid("tenant_id"),
        _uuid("session_id"),
        _uuid("execution_id"),
        _big("seq"),
        _text("code"),
        _string("status", 32),
        _uuid("run_id", nullable=True),
        sa.Column("execution_count", sa.Integer(), nullable=True),
        sa.Column("wall_seconds", sa.Float(), nullable=True),
        sa.Column("cpu_seconds", sa.Float(), nullable=True),
        _big("peak_memory_bytes", nullable=True),
        _big("bytes_out"),
        _text("message", nullable=True),
        _big("outputs_after"),
        _time("created_at"),
        _time("finished_at", nullable=True),
        _key("cells", "session_id", "execution_id"),
        _refer("cells", "session_id", "sessions"),
    )


def _executions() -> None:
    op.create_table(
        "executions",
        _uuid("tenant_id"),
        _uuid("id"),
        _uuid("session_id"),
        _uuid("run_id", nullable=True),
        _text("code"),
        _string("status", 32),
        _big("last_n"),
        _time("created_at"),
        _time("finished_at", nullable=True),
        _key("executions", "id"),
        _refer("executions", "session_id", "sessions"),
    )
    _index("ix_executions_open", "executions", ["tenant_id", "session_id"], where="finished_at IS NULL")


def _artifacts() -> None:
    op.create_table(
        "artifacts",
        _uuid("tenant_id"),
        _uuid("id"),
        _uuid("session_id"),
        _text("name"),
        _string("category", 16),
        sa.Column("version", sa.Integer(), nullable=True),
        _string("state", 16),
        _big("size"),
        _text("content_type"),
        _string("sha256", 64),
        _uuid("execution_id", nullable=True),
        _uuid("run_id", nullable=True),
        _time("created_at"),
        _key("artifacts", "id"),
        _refer("artifacts", "session_id", "sessions"),
        sa.CheckConstraint("state IN ('pending', 'ready', 'deleted', 'removed')", name="ck_artifacts_state"),
    )
    version = ["tenant_id", "session_id", "category", "name", "version"]
    op.create_index("uq_artifacts_version", "artifacts", version, unique=True)
    unsettled = "state IN ('pending', 'deleted')"
    _index("ix_artifacts_unsettled", "artifacts", ["tenant_id", "created_at"], where=unsettled)


def _index(name: str, table: str, columns: list[str], *, where: str, unique: bool = False) -> None:
    condition = sa.text(where)
    op.create_index(name, table, columns, unique=unique, postgresql_where=condition, sqlite_where=condition)


def _default_account() -> None:
    """Make the account of the one API key (`carrel_gateway.identity.service` has the same ids)."""
    now = datetime.now(UTC).replace(tzinfo=None)
    if op.get_bind().dialect.name == "postgresql":
        now = now.replace(tzinfo=UTC)
    tenant = {"tenant_id": UUID(TENANT_ID), "name": "default", "created_at": now}
    op.bulk_insert(_row_of("tenants"), [tenant])
    op.bulk_insert(_row_of("users", sa.column("id", sa.Uuid())), [{**tenant, "id": UUID(USER_ID)}])


def _row_of(table: str, *more: sa.ColumnClause) -> sa.TableClause:
    created_at = sa.column("created_at", sa.DateTime(timezone=True))
    return sa.table(table, sa.column("tenant_id", sa.Uuid()), sa.column("name"), created_at, *more)
