"""Table of idempotency keys: one row for each key of a user, whose state says how far the request has come.

`running` (claimed, under a lease) → `done` (answered; the answer is kept unless it is large or a stream). A request
that did nothing leaves its key `open` for another try, and one of which nobody knows whether it did anything `unknown`.
The key itself is kept as its digest: it is the caller's, and may say something about them.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    String,
    Table,
    Text,
)

from carrel_gateway.storage.schema import metadata, tenant_column, uuid_column
from carrel_gateway.storage.types import JsonText, UtcDateTime

idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    tenant_column(),
    uuid_column("user_id", primary_key=True),
    Column("digest", String(64), primary_key=True),
    uuid_column("effect_id"),
    Column("operation", Text, nullable=False),
    Column("fingerprint", String(64), nullable=True),
    Column("state", String(16), nullable=False),
    uuid_column("owner"),
    Column("generation", BigInteger, nullable=False),
    Column("lease_until", UtcDateTime, nullable=False),
    Column("status", Integer, nullable=True),
    Column("headers", JsonText, nullable=True),
    Column("body", LargeBinary, nullable=True),
    Column("expires_at", UtcDateTime, nullable=False),
    CheckConstraint("state IN ('running', 'open', 'unknown', 'done')", name="state"),
    ForeignKeyConstraint(["tenant_id", "user_id"], ["users.tenant_id", "users.id"], ondelete="CASCADE"),
)

Index("ix_idempotency_keys_expiry", idempotency_keys.c.tenant_id, idempotency_keys.c.expires_at)
