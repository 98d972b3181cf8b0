"""Table of sessions. `last_seq` is the number of the last event of the session's log.

A session whose state lies in a snapshot names it: while it is being suspended with `snapshot_id` alone, and suspended
with `suspended_at` too. A fork that is being made is there as a deleted session without a log.

`boot_id` is the boot of the kernel host that has the state otherwise; another one has lost it. `checked_seq` is the
event up to which the session has been looked at for a snapshot in the background; `keeper` is the gateway that saves it
just now, under a lease until `keeper_until`. `stale_seq` is the event since which the kernel remembers what the
conversation does not say any more: HEAD moved away from cells that it had run.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, CheckConstraint, Column, ForeignKeyConstraint, Index, String, Table, Text, text

from carrel_gateway.storage.schema import metadata, tenant_column, uuid_column
from carrel_gateway.storage.types import JsonText, PlainText, UtcDateTime

sessions = Table(
    "sessions",
    metadata,
    tenant_column(),
    uuid_column("id", primary_key=True),
    uuid_column("owner_id"),
    Column("title", PlainText, nullable=False),
    Column("status", String(16), nullable=False),
    Column("model", PlainText, nullable=False),
    Column("config", JsonText, nullable=False),
    Column("last_seq", BigInteger, nullable=False),
    uuid_column("snapshot_id", nullable=True),  # no foreign key: snapshots refer to sessions
    Column("suspended_at", UtcDateTime, nullable=True),
    uuid_column("forked_from", nullable=True),
    Column("boot_id", Text, nullable=True),
    Column("stale_seq", BigInteger, nullable=True),
    Column("checked_seq", BigInteger, nullable=False, server_default=text("0")),
    uuid_column("keeper", nullable=True),
    Column("keeper_until", UtcDateTime, nullable=True),
    Column("created_at", UtcDateTime, nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),
    CheckConstraint("status IN ('active', 'archived', 'deleted')", name="status"),
    ForeignKeyConstraint(["tenant_id", "owner_id"], ["users.tenant_id", "users.id"]),
)

OPEN = text("status = 'active'")

Index(
    "ix_sessions_open",
    sessions.c.tenant_id,
    sessions.c.owner_id,
    postgresql_where=OPEN,
    sqlite_where=OPEN,
)
