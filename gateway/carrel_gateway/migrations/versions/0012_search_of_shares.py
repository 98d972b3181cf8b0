"""The search also finds what is shared with teams of whoever searches."""

from __future__ import annotations

from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    if op.get_bind().dialect.name != "postgresql":
        return
    # The same names of the parameters, which cannot be changed: `owner` is whoever searches, or null for all.
    op.execute(f"""
        CREATE OR REPLACE FUNCTION carrel_search(
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


def _part(kind: str, table: str, own: str, content: str) -> str:
    return f"""
        SELECT '{kind}', item.session_id, item.{own}, item.created_at
        FROM public.{table} AS item
        JOIN public.sessions AS s ON s.tenant_id = item.tenant_id AND s.id = item.session_id
        WHERE item.tenant_id = tenant AND tenant = NULLIF(current_setting('app.tenant', true), '')::uuid
            AND public.carrel_words(item.{content}) @@ to_tsquery('pg_catalog.simple'::regconfig, query)
            AND s.status <> 'deleted' AND item.superseded_seq IS NULL
            AND (of_kind IS NULL OR of_kind = '{kind}')
            AND (owner IS NULL OR s.owner_id = owner OR item.session_id IN (
                SELECT shared.session_id
                FROM public.session_shares AS shared
                JOIN public.team_members AS member
                    ON member.tenant_id = shared.tenant_id AND member.team_id = shared.team_id
                WHERE shared.tenant_id = tenant AND member.user_id = owner
            ))
            AND (in_session IS NULL OR item.session_id = in_session)
            AND (before_at IS NULL OR (item.created_at, item.{own}) < (before_at, before_id))
    """  # noqa: S608  built of constants
