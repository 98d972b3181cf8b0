"""Where HEAD has moved away from messages and cells, whose kernels remember what they should not, and the search.

On Postgres the words of messages and code are in an index. Row-level security keeps indexes on words from being used,
because their operator might tell something of rows that are not the tenant's; so a function of the role that migrates
asks it, for the tenant that the transaction is bound to and for no other. It gives ids, never a text.
"""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_PUNCTUATION: Final = "!\"#$%&''()*+,-./:;<=>?@[\\]^_`{|}~"
"""As in an SQL literal: the parser of words would take `pd.read_csv` for a host's name."""
_WORDS: Final = f"""
    CREATE FUNCTION carrel_words(content text) RETURNS tsvector
    LANGUAGE sql IMMUTABLE PARALLEL SAFE COST 1000
    AS $$
        SELECT to_tsvector(
            'pg_catalog.simple'::regconfig,
            translate(left(content, 100000), '{_PUNCTUATION}', '{" " * (len(_PUNCTUATION) - 1)}')
        )
    $$
"""
"""Longer texts could have more words than an index takes."""


def upgrade() -> None:
    op.add_column("messages", sa.Column("superseded_seq", sa.BigInteger(), nullable=True))
    op.add_column("cells", sa.Column("superseded_seq", sa.BigInteger(), nullable=True))
    op.add_column("sessions", sa.Column("stale_seq", sa.BigInteger(), nullable=True))
    if op.get_bind().dialect.name == "postgresql":
        op.execute(_WORDS)
        op.execute("CREATE INDEX ix_messages_words ON messages USING gin (carrel_words(content))")
        op.execute("CREATE INDEX ix_cells_words ON cells USING gin (carrel_words(code))")
        _create_search()


def _create_search() -> None:
    signature = "carrel_search(uuid, text, uuid, uuid, text, timestamptz, uuid, integer)"
    op.execute(f"""
        CREATE FUNCTION carrel_search(
            tenant uuid, query text, owner uuid, in_session uuid, of_kind text,
            before_at timestamptz, before_id uuid, most integer
        ) RETURNS TABLE (kind text, session_id uuid, id uuid, created_at timestamptz)
        LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
        AS $$
            {_part("message", "messages", "id", "content")}
            UNION ALL
            {_part("code", "cells", "execution_id", "code")}
            ORDER BY 4 DESC, 3 DESC LIMIT most
        $$
    """)
    op.execute(f"REVOKE ALL ON FUNCTION {signature} FROM PUBLIC")
    op.execute(f"GRANT EXECUTE ON FUNCTION {signature} TO carrel_app")


def _part(kind: str, table: str, own: str, content: str) -> str:
    return f"""
        SELECT '{kind}', item.session_id, item.{own}, item.created_at
        FROM public.{table} AS item
        JOIN public.sessions AS s ON s.tenant_id = item.tenant_id AND s.id = item.session_id
        WHERE item.tenant_id = tenant AND tenant = NULLIF(current_setting('app.tenant', true), '')::uuid
            AND public.carrel_words(item.{content}) @@ to_tsquery('pg_catalog.simple'::regconfig, query)
            AND s.status <> 'deleted' AND item.superseded_seq IS NULL
            AND (of_kind IS NULL OR of_kind = '{kind}')
            AND (owner IS NULL OR s.owner_id = owner)
            AND (in_session IS NULL OR item.session_id = in_session)
            AND (before_at IS NULL OR (item.created_at, item.{own}) < (before_at, before_id))
    """  # noqa: S608  built of constants
