"""Table of jobs.

`due_at` is when a gateway may take the job: its time while it is queued, the end of its owner's lease while it runs. So
one condition finds what is to be done and what somebody left behind.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import BigInteger, Boolean, CheckConstraint, Column, ForeignKeyConstraint, Index, Integer, String, Table
from sqlalchemy import text as sql

from carrel_gateway.storage.schema import metadata, tenant_column, uuid_column
from carrel_gateway.storage.types import JsonText, PlainText, UtcDateTime

jobs = Table(
    "jobs",
    metadata,
    tenant_column(),
    uuid_column("id", primary_key=True),
    Column("kind", String(64), nullable=False),
    Column("key", String(200), nullable=True),
    Column("payload", JsonText, nullable=False),
    Column("priority", Integer, nullable=False),
    Column("status", String(16), nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("max_attempts", Integer, nullable=False),
    Column("due_at", UtcDateTime, nullable=False),
    uuid_column("owner", nullable=True),
    Column("generation", BigInteger, nullable=False),
    Column("cancel_requested", Boolean, nullable=False),
    Column("result", JsonText, nullable=True),
    Column("error_code", String(64), nullable=True),
    Column("error", PlainText, nullable=True),
    Column("request_id", String(64), nullable=True),
    Column("created_at", UtcDateTime, nullable=False),
    Column("started_at", UtcDateTime, nullable=True),
    Column("finished_at", UtcDateTime, nullable=True),
    CheckConstraint("status IN ('queued', 'running', 'succeeded', 'cancelled', 'dead')", name="status"),
    ForeignKeyConstraint(["tenant_id"], ["tenants.tenant_id"], ondelete="CASCADE"),
)

LIVE: Final = sql("status IN ('queued', 'running')")

Index("ix_jobs_due", jobs.c.priority, jobs.c.due_at, jobs.c.id, postgresql_where=LIVE, sqlite_where=LIVE)
Index("uq_jobs_key", jobs.c.tenant_id, jobs.c.kind, jobs.c.key, unique=True, postgresql_where=LIVE, sqlite_where=LIVE)
