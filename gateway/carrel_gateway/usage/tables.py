"""The ledger of usage: one row for each call of a model, which is only ever added.

There is no foreign key: what was spent is known for longer than the session that it was spent in.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, String, Table

from carrel_gateway.storage.schema import metadata, tenant_column, uuid_column
from carrel_gateway.storage.types import PlainText, UtcDateTime

usage = Table(
    "usage",
    metadata,
    tenant_column(),
    uuid_column("id", primary_key=True),
    uuid_column("session_id"),
    uuid_column("run_id"),
    uuid_column("user_id"),
    Column("day", String(10), nullable=False),
    Column("model", PlainText, nullable=False),
    Column("input_tokens", BigInteger, nullable=False),
    Column("output_tokens", BigInteger, nullable=False),
    Column("cost_micros", BigInteger, nullable=True),
    Column("created_at", UtcDateTime, nullable=False),
    Index(None, "tenant_id", "day"),
    Index(None, "tenant_id", "user_id", "day"),
    Index(None, "tenant_id", "session_id"),
)
"""`id` is the event's; `user_id` asked; `day` is in UTC; micros are millionths of a dollar; null is no known price."""
