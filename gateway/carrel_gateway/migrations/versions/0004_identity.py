"""People: accounts, roles, keys, logins, tokens that are used once, teams.

Whoever was there before roles were becomes an administrator. Columns are added without constraints, as in 0002.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from carrel_gateway.migrations.postgres import create_login_role, open_to_login, protect

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

TABLES = ("api_keys", "logins", "one_time_tokens", "teams", "team_members")


def upgrade() -> None:
    postgres = op.get_bind().dialect.name == "postgresql"
    if postgres:
        create_login_role()
    _users()
    _accounts()
    _keys()
    _logins()
    _tokens()
    _teams()
    if postgres:
        open_to_login("accounts")
        for table in TABLES:
            protect(table)


def _uuid(name: str, nullable: bool = False) -> sa.Column:
    return sa.Column(name, sa.Uuid(), nullable=nullable)


def _text(name: str, nullable: bool = False) -> sa.Column:
    return sa.Column(name, sa.Text(), nullable=nullable)


def _string(name: str, length: int) -> sa.Column:
    return sa.Column(name, sa.String(length), nullable=False)


def _time(name: str, nullable: bool = False) -> sa.Column:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=nullable)


def _refer(table: str, column: str, other: str) -> sa.ForeignKeyConstraint:
    columns = ["tenant_id", column] if column else ["tenant_id"]
    targets = [f"{other}.tenant_id", f"{other}.id"] if column else [f"{other}.tenant_id"]
    return sa.ForeignKeyConstraint(columns, targets, name=f"fk_{table}_{other}", ondelete="CASCADE")


def _key(table: str, *columns: str) -> sa.PrimaryKeyConstraint:
    return sa.PrimaryKeyConstraint("tenant_id", *columns, name=f"pk_{table}")


def _users() -> None:
    op.add_column("users", sa.Column("email", sa.Text(), nullable=True))
    op.add_column("users", sa.Column("role", sa.String(16), nullable=False, server_default="admin"))
    op.add_column("users", sa.Column("kind", sa.String(16), nullable=False, server_default="person"))
    op.add_column("users", sa.Column("preferences", sa.Text(), nullable=False, server_default="{}"))
    op.add_column("users", sa.Column("disabled_at", sa.DateTime(timezone=True), nullable=True))


def _accounts() -> None:
    op.create_table(
        "accounts",
        _uuid("id"),
        _text("email", nullable=True),
        _text("password_hash", nullable=True),
        _text("issuer", nullable=True),
        _text("subject", nullable=True),
        _text("tenants"),
        _time("verified_at", nullable=True),
        _time("disabled_at", nullable=True),
        _time("created_at"),
        sa.PrimaryKeyConstraint("id", name="pk_accounts"),
        sa.UniqueConstraint("email", name="uq_accounts_email"),
        sa.UniqueConstraint("issuer", "subject", name="uq_accounts_issuer_subject"),
    )


def _keys() -> None:
    op.create_table(
        "api_keys",
        _uuid("tenant_id"),
        _uuid("id"),
        _uuid("user_id"),
        _text("name"),
        _string("digest", 64),
        _string("hint", 16),
        _text("scopes", nullable=True),
        _time("created_at"),
        _time("expires_at", nullable=True),
        _time("used_at", nullable=True),
        _time("revoked_at", nullable=True),
        _key("api_keys", "id"),
        _refer("api_keys", "user_id", "users"),
        sa.UniqueConstraint("tenant_id", "digest", name="uq_api_keys_tenant_id_digest"),
    )
    op.create_index("ix_api_keys_tenant_id_user_id", "api_keys", ["tenant_id", "user_id"])


def _logins() -> None:
    op.create_table(
        "logins",
        _uuid("tenant_id"),
        _uuid("id"),
        _uuid("user_id"),
        _string("digest", 64),
        sa.Column("generation", sa.BigInteger(), nullable=False),
        _text("client"),
        _time("created_at"),
        _time("refreshed_at"),
        _time("expires_at"),
        _time("revoked_at", nullable=True),
        _key("logins", "id"),
        _refer("logins", "user_id", "users"),
    )
    op.create_index("ix_logins_tenant_id_user_id", "logins", ["tenant_id", "user_id"])


def _tokens() -> None:
    op.create_table(
        "one_time_tokens",
        _uuid("tenant_id"),
        _uuid("id"),
        _uuid("user_id", nullable=True),
        _string("purpose", 16),
        _string("digest", 64),
        _text("detail"),
        _time("created_at"),
        _time("expires_at"),
        _time("used_at", nullable=True),
        _key("one_time_tokens", "id"),
        _refer("one_time_tokens", "", "tenants"),
        sa.UniqueConstraint("tenant_id", "digest", name="uq_one_time_tokens_tenant_id_digest"),
        sa.CheckConstraint(
            "purpose IN ('verify', 'reset', 'invite', 'ticket')", name="ck_one_time_tokens_purpose"
        ),
    )
    op.create_index("ix_one_time_tokens_tenant_id_expires_at", "one_time_tokens", ["tenant_id", "expires_at"])


def _teams() -> None:
    op.create_table(
        "teams",
        _uuid("tenant_id"),
        _uuid("id"),
        _text("name"),
        _time("created_at"),
        _key("teams", "id"),
        _refer("teams", "", "tenants"),
        sa.UniqueConstraint("tenant_id", "name", name="uq_teams_tenant_id_name"),
    )
    op.create_table(
        "team_members",
        _uuid("tenant_id"),
        _uuid("team_id"),
        _uuid("user_id"),
        _string("role", 16),
        _time("created_at"),
        _key("team_members", "team_id", "user_id"),
        _refer("team_members", "team_id", "teams"),
        _refer("team_members", "user_id", "users"),
    )
    op.create_index("ix_team_members_tenant_id_user_id", "team_members", ["tenant_id", "user_id"])
