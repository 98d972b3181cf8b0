"""Tables of quotas: the limits that administrators set, and what is counted against them.

There is no foreign key to whom a limit is for: that is a user, a team or the tenant itself.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, CheckConstraint, Column, String, Table

from carrel_gateway.storage.schema import metadata, tenant_column, uuid_column
from carrel_gateway.storage.types import UtcDateTime

quotas = Table(
    "quotas",
    metadata,
    tenant_column(),
    Column("scope", String(8), primary_key=True),
    uuid_column("scope_id", primary_key=True),
    Column("resource", String(16), primary_key=True),
    Column("most", BigInteger, nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),
    CheckConstraint("scope IN ('tenant', 'team', 'user')", name="scope"),
    CheckConstraint("most >= 0", name="most"),
)
"""A `scope_id` that is the tenant's means the tenant, or with `user` each user who has no limit of their own."""

quota_counters = Table(
    "quota_counters",
    metadata,
    tenant_column(),
    Column("scope", String(8), primary_key=True),
    uuid_column("scope_id", primary_key=True),
    Column("resource", String(16), primary_key=True),
    Column("period", String(10), primary_key=True),
    Column("used", BigInteger, nullable=False),
)
"""`period` is a day in UTC, or empty for what is counted anew each time: such a row is only locked."""
