"""Finds messages and code by their words, in the sessions that the caller may read, newest first.

Only what the conversation consists of now is found: not what an edit or a new answer has replaced, which the log keeps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from carrel_gateway.context import Principal, ProcessContext
from carrel_gateway.errors import InvalidInput
from carrel_gateway.history import repository
from carrel_gateway.sessions.access import reader_of
from carrel_gateway.storage.paging import Cursors, Page
from carrel_gateway.storage.search import Place, SearchKind, SearchQuery, beginnings, words_of

MAX_WORDS: Final = 10
_BEFORE: Final = 60
_SNIPPET: Final = 240
"""Characters: two lines of a list."""
_PLACES: Final = Cursors[Place]("search", Place)


@dataclass(frozen=True, slots=True)
class Snippet:
    """The part of a text in which the first word is."""

    text: str
    matches: list[tuple[int, int]]
    """Where the words are in it: first character, and the one after the last."""


@dataclass(frozen=True, slots=True)
class Hit:
    """A message or a cell in which all words are."""

    kind: SearchKind
    session_id: UUID
    session_title: str
    id: UUID
    seq: int
    role: str | None
    """Of a message: `user` or `assistant`."""
    status: str | None
    """Of a cell."""
    run_id: UUID | None
    created_at: datetime
    snippet: Snippet


class SearchService:
    """Searches as one principal."""

    def __init__(self, context: ProcessContext, principal: Principal) -> None:
        self._database = context.database
        self._principal = principal

    async def search(
        self,
        query: str,
        *,
        session_id: UUID | None = None,
        kind: SearchKind | None = None,
        limit: int = 20,
        cursor: str | None = None,
    ) -> Page[Hit]:
        """Return a page of what has all words of the query, each at the beginning of a word.

        Raises
        ------
        InvalidInput
            The query has no words or too many, or the cursor is of another search.
        """
        words = words_of(query)
        if not words or len(words) > MAX_WORDS:
            raise InvalidInput(f"search for one to {MAX_WORDS} words of letters and digits", code="invalid_query")
        scope = (" ".join(words), session_id, kind)
        wanted = SearchQuery(
            tenant_id=self._principal.tenant_id,
            words=words,
            reader_id=reader_of(self._principal),
            session_id=session_id,
            kind=kind,
            before=_PLACES.read(cursor, *scope) if cursor else None,
            limit=limit + 1,
        )
        async with self._database.transaction(self._principal.tenant_id, write=False) as tx:
            found = _PLACES.page(
                await tx.dialect.search(tx.connection, wanted), limit, lambda item: (item.created_at, item.id), *scope
            )
            texts = await repository.texts_of(tx, found.items)
        hits = [
            Hit(
                kind=item.kind,
                session_id=item.session_id,
                id=item.id,
                created_at=item.created_at,
                session_title=row["title"],
                seq=row["seq"],
                role=row["role"],
                status=row["status"],
                run_id=row["run_id"],
                snippet=snippet_of(row["content"], words),
            )
            for item in found.items
            if (row := texts.get((item.session_id, item.id))) is not None
        ]
        return Page(hits, found.next_cursor)


def snippet_of(content: str, words: Sequence[str]) -> Snippet:
    """Return the part of a text around its first match, with all matches in it."""
    patterns = beginnings(words)
    first = min((match.start() for pattern in patterns if (match := pattern.search(content))), default=0)
    start = max(0, first - _BEFORE)
    text = content[start : start + _SNIPPET]
    # From the beginning of the whole text: what stands before the part decides whether a word begins in it.
    found = sorted(
        (match.start() - start, match.end() - start)
        for pattern in patterns
        for match in pattern.finditer(content, start, start + _SNIPPET)
    )
    return Snippet(text, found)
