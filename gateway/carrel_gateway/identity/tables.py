"""Tables of tenants, people, their credentials and their teams.

`accounts` is the one table without a tenant: the lookup by address of mail or by an issuer's subject comes before there
is a tenant. Only the role `carrel_login` may touch it. Everything else about a person is a row of `users` in each
tenant that the account is a member of, under the account's own id.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKeyConstraint,
    Index,
    String,
    Table,
    Text,
    UniqueConstraint,
)

from carrel_gateway.storage.schema import metadata, tenant_column, uuid_column
from carrel_gateway.storage.types import JsonText, UtcDateTime

tenants = Table(
    "tenants",
    metadata,
    tenant_column(),
    Column("name", Text, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
)

accounts = Table(
    "accounts",
    metadata,
    uuid_column("id", primary_key=True),
    Column("email", Text),
    Column("password_hash", Text),
    Column("issuer", Text),
    Column("subject", Text),
    Column("tenants", JsonText, nullable=False),
    Column("verified_at", UtcDateTime),
    Column("disabled_at", UtcDateTime),
    Column("created_at", UtcDateTime, nullable=False),
    UniqueConstraint("email"),
    UniqueConstraint("issuer", "subject"),
)
"""`email` is in lower case; `tenants` are the ids of those that the account is a member of, the first its home."""

users = Table(
    "users",
    metadata,
    tenant_column(),
    uuid_column("id", primary_key=True),
    Column("name", Text, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("email", Text),
    Column("role", String(16), nullable=False, server_default="admin"),
    Column("kind", String(16), nullable=False, server_default="person"),
    Column("preferences", JsonText, nullable=False, server_default="{}"),
    Column("disabled_at", UtcDateTime),
    ForeignKeyConstraint(["tenant_id"], ["tenants.tenant_id"], ondelete="CASCADE"),
)
"""`kind` is `person` or `service`; rows that were there before roles were are administrators."""

api_keys = Table(
    "api_keys",
    metadata,
    tenant_column(),
    uuid_column("id", primary_key=True),
    uuid_column("user_id"),
    uuid_column("maker_id", nullable=True),
    Column("name", Text, nullable=False),
    Column("digest", String(64), nullable=False),
    Column("hint", String(16), nullable=False),
    Column("scopes", JsonText),
    Column("created_at", UtcDateTime, nullable=False),
    Column("expires_at", UtcDateTime),
    Column("used_at", UtcDateTime),
    Column("revoked_at", UtcDateTime),
    ForeignKeyConstraint(["tenant_id", "user_id"], ["users.tenant_id", "users.id"], ondelete="CASCADE"),
    UniqueConstraint("tenant_id", "digest"),
    Index(None, "tenant_id", "user_id"),
)
"""`digest` is the SHA-256 of the whole key; `scopes` are rights, none means all that the owner has.

`maker_id` is the person who made it, by whichever keys: one of a service account may no more than its maker may. Of
some old keys it is not known; those of service accounts may no more than a `user`.
"""

logins = Table(
    "logins",
    metadata,
    tenant_column(),
    uuid_column("id", primary_key=True),
    uuid_column("user_id"),
    Column("digest", String(64), nullable=False),
    Column("generation", BigInteger, nullable=False),
    Column("client", Text, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("refreshed_at", UtcDateTime, nullable=False),
    Column("expires_at", UtcDateTime, nullable=False),
    Column("revoked_at", UtcDateTime),
    ForeignKeyConstraint(["tenant_id", "user_id"], ["users.tenant_id", "users.id"], ondelete="CASCADE"),
    Index(None, "tenant_id", "user_id"),
)
"""One family of refresh tokens each; `digest` is that of the newest token, and an older one revokes the family."""

one_time_tokens = Table(
    "one_time_tokens",
    metadata,
    tenant_column(),
    uuid_column("id", primary_key=True),
    uuid_column("user_id", nullable=True),
    Column("purpose", String(16), nullable=False),
    Column("digest", String(64), nullable=False),
    Column("detail", JsonText, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("expires_at", UtcDateTime, nullable=False),
    Column("used_at", UtcDateTime),
    ForeignKeyConstraint(["tenant_id"], ["tenants.tenant_id"], ondelete="CASCADE"),
    UniqueConstraint("tenant_id", "digest"),
    Index(None, "tenant_id", "expires_at"),
    CheckConstraint("purpose IN ('verify', 'reset', 'invite', 'ticket')", name="purpose"),
)

teams = Table(
    "teams",
    metadata,
    tenant_column(),
    uuid_column("id", primary_key=True),
    Column("name", Text, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    ForeignKeyConstraint(["tenant_id"], ["tenants.tenant_id"], ondelete="CASCADE"),
    UniqueConstraint("tenant_id", "name"),
)

team_members = Table(
    "team_members",
    metadata,
    tenant_column(),
    uuid_column("team_id", primary_key=True),
    uuid_column("user_id", primary_key=True),
    Column("role", String(16), nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    ForeignKeyConstraint(["tenant_id", "team_id"], ["teams.tenant_id", "teams.id"], ondelete="CASCADE"),
    ForeignKeyConstraint(["tenant_id", "user_id"], ["users.tenant_id", "users.id"], ondelete="CASCADE"),
    Index(None, "tenant_id", "user_id"),
)
