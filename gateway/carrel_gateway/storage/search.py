"""The statements of the search over messages and code, which differ between SQLite and Postgres.

A text is found when each word of the query begins a word of it, whatever the case; words are runs of letters and
digits. Postgres asks an index, through a function of the migrations that sees the one tenant it is bound to: below
row-level security no index on words would be used. SQLite, which is one person's, reads the texts.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal, TypeAlias
from uuid import UUID

from sqlalchemy import TextClause, bindparam, text
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.types import BigInteger, Integer, String, Text, Uuid

from carrel_gateway.storage.types import UtcDateTime

SearchKind: TypeAlias = Literal["message", "code"]
Place: TypeAlias = tuple[datetime, UUID]
"""Time and id of an item: what results are ordered by, newest first."""

_WORD: Final = re.compile(r"[^\W_]+")
_CANDIDATES: Final = 200
"""Texts that SQLite gives at once, to be looked at more closely here."""


@dataclass(frozen=True, slots=True)
class SearchQuery:
    """What is looked for, and where."""

    tenant_id: UUID
    words: Sequence[str]
    """Lower case, letters and digits alone."""
    reader_id: UUID | None
    """Only in this account's sessions, and in those that teams share with it."""
    session_id: UUID | None
    kind: SearchKind | None
    before: Place | None
    limit: int


@dataclass(frozen=True, slots=True)
class Found:
    """A message or a cell in which all words are."""

    kind: SearchKind
    session_id: UUID
    id: UUID
    created_at: datetime


def words_of(query: str) -> list[str]:
    """Return the words of a text in lower case."""
    return [word.lower() for word in _WORD.findall(query)]


def beginnings(words: Sequence[str]) -> list[re.Pattern[str]]:
    """Return what finds each word where a word begins."""
    return [re.compile(rf"(?<![^\W_]){re.escape(word)}", re.IGNORECASE) for word in words]


_BINDS: Final = (
    bindparam("tenant_id", type_=Uuid()),
    bindparam("reader_id", type_=Uuid()),
    bindparam("session_id", type_=Uuid()),
    bindparam("kind", type_=String()),
    bindparam("before_at", type_=UtcDateTime()),
    bindparam("before_id", type_=Uuid()),
)
_POSTGRES: Final = (
    text(
        "SELECT kind, session_id, id, created_at"
        " FROM carrel_search(:tenant_id, :query, :reader_id, :session_id, :kind, :before_at, :before_id, :most)"
    )
    .bindparams(*_BINDS, bindparam("query", type_=Text()), bindparam("most", type_=Integer()))
    .columns(kind=String(), session_id=Uuid(), id=Uuid(), created_at=UtcDateTime())
)


async def search_postgres(connection: AsyncConnection, query: SearchQuery) -> list[Found]:
    """Return what is found, newest first."""
    words = " & ".join(f"{word}:*" for word in query.words)
    rows = await connection.execute(_POSTGRES, {**_values(query), "query": words, "most": query.limit})
    return [Found(*row) for row in rows]


async def search_sqlite(connection: AsyncConnection, query: SearchQuery) -> list[Found]:
    """Return what is found, newest first. SQLite ignores the case of ASCII alone, and knows no words."""
    patterns = beginnings(query.words)
    statement = _sqlite_statement(len(query.words))
    values = {**_values(query), "most": max(_CANDIDATES, query.limit)}
    values |= {f"like_{place}": _like(word) for place, word in enumerate(query.words)}
    found: list[Found] = []
    while True:
        rows = (await connection.execute(statement, values)).all()
        found += [Found(*row[:4]) for row in rows if all(pattern.search(row.content) for pattern in patterns)]
        if len(found) >= query.limit or len(rows) < values["most"]:
            return found[: query.limit]
        values |= {"before_at": rows[-1].created_at, "before_id": rows[-1].id}


def _like(word: str) -> str:
    """Return the pattern of a word; a letter that SQLite cannot fold is any one character."""
    return "%" + "".join(letter if letter.isascii() else "_" for letter in word) + "%"


def _sqlite_statement(words: int) -> TextClause | Any:
    parts = [_sqlite_part("message", "messages", "id", "content", words)]
    parts.append(_sqlite_part("code", "cells", "execution_id", "code", words))
    return (
        text(f"{' UNION ALL '.join(parts)} ORDER BY created_at DESC, id DESC LIMIT :most")
        .bindparams(*_BINDS, bindparam("most", type_=BigInteger()))
        .columns(kind=String(), session_id=Uuid(), id=Uuid(), created_at=UtcDateTime(), content=Text())
    )


def _sqlite_part(kind: SearchKind, table: str, own: str, content: str, words: int) -> str:
    has_all = "".join(f" AND item.{content} LIKE :like_{place}" for place in range(words))
    return f"""
        SELECT '{kind}' AS kind, item.session_id AS session_id, item.{own} AS id, item.created_at AS created_at,
            item.{content} AS content
        FROM {table} AS item
        JOIN sessions ON sessions.tenant_id = item.tenant_id AND sessions.id = item.session_id
        WHERE item.tenant_id = :tenant_id AND sessions.status <> 'deleted' AND item.superseded_seq IS NULL
            AND (:kind IS NULL OR :kind = '{kind}')
            AND (:reader_id IS NULL OR sessions.owner_id = :reader_id OR item.session_id IN (
                SELECT shared.session_id
                FROM session_shares AS shared
                JOIN team_members AS member
                    ON member.tenant_id = shared.tenant_id AND member.team_id = shared.team_id
                WHERE shared.tenant_id = :tenant_id AND member.user_id = :reader_id
            ))
            AND (:session_id IS NULL OR item.session_id = :session_id)
            AND (:before_at IS NULL OR (item.created_at, item.{own}) < (:before_at, :before_id)){has_all}
    """  # noqa: S608  built of constants


def _values(query: SearchQuery) -> dict[str, Any]:
    before_at, before_id = query.before or (None, None)
    return {
        "tenant_id": query.tenant_id,
        "reader_id": query.reader_id,
        "session_id": query.session_id,
        "kind": query.kind,
        "before_at": before_at,
        "before_id": before_id,
    }
