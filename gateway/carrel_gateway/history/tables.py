"""The log and its read models.

`events` is the truth, and is partitioned by hash(session_id) on Postgres. `messages` and `cells` are filled from it in
the same transaction, and can be made anew from it. `superseded_seq` is the event with which HEAD moved away from them.
On Postgres the words of messages and code are in an index, which a migration makes: it is on an expression.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Float, ForeignKeyConstraint, Index, Integer, String, Table, Text

from carrel_gateway.storage.schema import metadata, tenant_column, uuid_column
from carrel_gateway.storage.types import JsonText, PlainText, UtcDateTime


def _session() -> ForeignKeyConstraint:
    return ForeignKeyConstraint(["tenant_id", "session_id"], ["sessions.tenant_id", "sessions.id"], ondelete="CASCADE")


events = Table(
    "events",
    metadata,
    tenant_column(),
    uuid_column("session_id", primary_key=True),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    uuid_column("id"),
    uuid_column("parent_id", nullable=True),
    Column("type", String(64), nullable=False),
    Column("actor", String(16), nullable=False),
    Column("payload", Text, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    _session(),
    postgresql_partition_by="HASH (session_id)",
)

messages = Table(
    "messages",
    metadata,
    tenant_column(),
    uuid_column("session_id", primary_key=True),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    uuid_column("id"),
    Column("role", String(16), nullable=False),
    Column("content", PlainText, nullable=False),
    uuid_column("run_id", nullable=True),
    Column("artifact_ids", JsonText, nullable=False),
    Column("superseded_seq", BigInteger, nullable=True),
    Column("created_at", UtcDateTime, nullable=False),
    _session(),
)
Index("uq_messages_id", messages.c.tenant_id, messages.c.id, unique=True)

cells = Table(
    "cells",
    metadata,
    tenant_column(),
    uuid_column("session_id", primary_key=True),
    uuid_column("execution_id", primary_key=True),
    Column("seq", BigInteger, nullable=False),
    Column("code", PlainText, nullable=False),
    Column("status", String(32), nullable=False),
    uuid_column("run_id", nullable=True),
    Column("execution_count", Integer, nullable=True),
    Column("wall_seconds", Float, nullable=True),
    Column("cpu_seconds", Float, nullable=True),
    Column("peak_memory_bytes", BigInteger, nullable=True),
    Column("bytes_out", BigInteger, nullable=False),
    Column("message", PlainText, nullable=True),
    Column("outputs_after", BigInteger, nullable=False),
    Column("superseded_seq", BigInteger, nullable=True),
    Column("created_at", UtcDateTime, nullable=False),
    Column("finished_at", UtcDateTime, nullable=True),
    _session(),
)
