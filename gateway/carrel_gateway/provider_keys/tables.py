"""Table of keys of model providers, encrypted. `holder_id` is the user or, of a key for everybody, the tenant."""

from __future__ import annotations

from sqlalchemy import Column, ForeignKeyConstraint, String, Table, Text

from carrel_gateway.storage.schema import metadata, tenant_column, uuid_column
from carrel_gateway.storage.types import UtcDateTime

provider_keys = Table(
    "provider_keys",
    metadata,
    tenant_column(),
    uuid_column("holder_id", primary_key=True),
    Column("provider", String(40), primary_key=True),
    uuid_column("user_id", nullable=True),
    Column("sealed", Text, nullable=False),
    Column("hint", String(4), nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),
    ForeignKeyConstraint(["tenant_id", "user_id"], ["users.tenant_id", "users.id"], ondelete="CASCADE"),
)
"""`sealed` as `identity.secrets` makes it, bound to tenant, holder and provider; `hint` is how the key ends."""
