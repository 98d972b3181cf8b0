"""Tables of the audit log: its entries, which are only ever added, and of each tenant the last one.

The columns of an entry are text as it is hashed: a type that is parsed would let through a change that parses to the
same. There is no foreign key: the log outlives what it tells of.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, String, Table, Text

from carrel_gateway.storage.schema import metadata, tenant_column

audit = Table(
    "audit",
    metadata,
    tenant_column(),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("at", String(27), nullable=False),
    Column("actor", String(36), nullable=False),
    Column("credential", String(36)),
    Column("action", String(64), nullable=False),
    Column("target", Text, nullable=False),
    Column("detail", Text, nullable=False),
    Column("digest", String(64), nullable=False),
    Index(None, "tenant_id", "actor", "seq"),
    Index(None, "tenant_id", "action", "seq"),
    Index(None, "tenant_id", "at"),
)
"""`at` is RFC 3339 in UTC with microseconds; `detail` is JSON; `digest` as in `chain`."""

audit_heads = Table(
    "audit_heads",
    metadata,
    tenant_column(),
    Column("seq", BigInteger, nullable=False),
    Column("digest", String(64), nullable=False),
)
"""The last entry of each tenant. It is locked while one is added, and can only move on by one."""
