"""Who made a key: one of a service account may no more than its maker may."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


_ID = "lower(api_keys.id)"
_PARTS = ((1, 8), (9, 4), (13, 4), (17, 4), (21, 12))
_DASHED = " || '-' || ".join(f"substr({_ID}, {first}, {count})" for first, count in _PARTS)
_TEXTS = (_DASHED, "replace(a.actor, '-', '')")
"""SQLite has ids as 32 digits."""


def upgrade() -> None:
    op.add_column("api_keys", sa.Column("maker_id", sa.Uuid(), nullable=True))
    on_postgres = op.get_bind().dialect.name == "postgresql"
    key, actor = ("CAST(api_keys.id AS text)", "CAST(a.actor AS uuid)") if on_postgres else _TEXTS
    # The audit log has it, of keys that were made since there is one.
    op.execute(f"""
        UPDATE api_keys SET maker_id = (
            SELECT {actor} FROM audit AS a
            WHERE a.tenant_id = api_keys.tenant_id AND a.action = 'key.made' AND a.target = {key}
                AND length(a.actor) = 36
            ORDER BY a.seq LIMIT 1
        )
    """)  # noqa: S608  built of constants
