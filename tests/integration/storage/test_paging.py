"""Pages of every list over both databases.

Plan: whatever the size of the pages, walking a list by its cursors gives each item once and in order, also when new
items come in meanwhile; offsets skip; the cursors of one session, or of another tenant's, are no use for another.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

import pytest
from tests.support.state import chunks_of, new_principal

from carrel_gateway.artifacts.service import ArtifactService
from carrel_gateway.context import Principal, ProcessContext
from carrel_gateway.errors import InvalidInput, NotFound
from carrel_gateway.history.service import HistoryService
from carrel_gateway.sessions.service import Page, SessionService
from carrel_gateway.storage.ids import new_id
from carrel_wire.log import UserMessage

NAMES = ["B.csv", "a.csv", "a-b.csv", "z.csv", "ä.csv"]


async def walked(page: Callable[[str | None], Awaitable[Page[Any]]]) -> list[list[Any]]:
    pages: list[list[Any]] = []
    cursor: str | None = None
    while True:
        found = await page(cursor)
        pages.append(found.items)
        cursor = found.next_cursor
        if cursor is None:
            return pages


async def stored(artifacts: ArtifactService, session_id: UUID, name: str, content: bytes = b"x") -> UUID:
    artifact = await artifacts.store(
        session_id, name=name, category="data", content_type=None, chunks=chunks_of(content)
    )
    return artifact.id


@pytest.mark.parametrize("limit", [1, 2, 5, 6])
async def test_sessions(context: ProcessContext, principal: Principal, limit: int) -> None:
    sessions = SessionService(context, principal)
    made = [(await sessions.create()).id for _ in range(5)]
    pages = await walked(lambda cursor: sessions.list(limit=limit, cursor=cursor))
    assert [item.id for page in pages for item in page] == made[::-1]
    assert all(len(page) == limit for page in pages[:-1])
    assert [item.id for item in (await sessions.list(offset=3)).items] == made[1::-1]


async def test_what_is_new_disturbs_no_walk(context: ProcessContext, principal: Principal) -> None:
    sessions = SessionService(context, principal)
    made = [(await sessions.create()).id for _ in range(4)]
    first = await sessions.list(limit=2)
    await sessions.create()
    second = await sessions.list(limit=2, cursor=first.next_cursor)
    assert [item.id for item in (*first.items, *second.items)] == made[::-1]


@pytest.mark.parametrize("limit", [1, 2, 7])
async def test_messages(context: ProcessContext, principal: Principal, session_id: UUID, limit: int) -> None:
    history = HistoryService(context, principal)
    said = [UserMessage(message_id=new_id(), content=str(place)) for place in range(7)]
    await history.append(session_id, said, actor="user")
    pages = await walked(lambda cursor: history.message_page(session_id, limit=limit, cursor=cursor))
    assert [item.content for page in pages[::-1] for item in page] == [str(place) for place in range(7)]
    skipped = await history.message_page(session_id, limit=2, offset=3)
    assert [item.content for item in skipped.items] == ["2", "3"]


@pytest.mark.parametrize("limit", [1, 2, 5])
async def test_files_and_versions(
    context: ProcessContext, principal: Principal, session_id: UUID, artifacts: ArtifactService, limit: int
) -> None:
    for name in NAMES:
        await stored(artifacts, session_id, name, b"old")
    newest = [await stored(artifacts, session_id, name, b"new") for name in NAMES]
    everything = await artifacts.list(session_id)
    pages = await walked(lambda cursor: artifacts.page(session_id, limit=limit, cursor=cursor))
    assert [item for page in pages for item in page] == everything
    assert {item.id for item in everything} == set(newest)
    below = await artifacts.page(session_id, prefix="a-", limit=limit)
    assert [item.name for item in below.items] == ["a-b.csv"]
    versions = await walked(lambda cursor: artifacts.versions(newest[1], limit=limit, cursor=cursor))
    assert [item.version for page in versions for item in page] == [2, 1]


async def test_cursors_do_not_cross(
    context: ProcessContext, principal: Principal, session_id: UUID, artifacts: ArtifactService
) -> None:
    for name in NAMES:
        await stored(artifacts, session_id, name)
    cursor = (await artifacts.page(session_id, limit=1)).next_cursor
    other = (await SessionService(context, principal).create()).id
    with pytest.raises(InvalidInput):
        await artifacts.page(other, limit=1, cursor=cursor)
    with pytest.raises(InvalidInput):
        await artifacts.page(session_id, prefix="a", limit=1, cursor=cursor)
    stranger = ArtifactService(context, await new_principal(context.database))
    assert (await stranger.page(session_id, limit=1, cursor=cursor)).items == []
    (file,) = (await artifacts.page(session_id, limit=1)).items
    with pytest.raises(NotFound):
        await stranger.versions(file.id)
