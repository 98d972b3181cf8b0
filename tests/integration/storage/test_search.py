"""The search over both databases.

Plan: words begin words, whatever the case and the punctuation, and all of them must be there; code is found by its
names; newest first, and pages in turn are everything once; kinds and sessions are kept apart; nobody finds what they
may not read: another account's, another tenant's, what is deleted; what teams share is found as long as it may be
read; long and odd texts are stored all the same; the function that asks the index gives nothing to whoever names
another tenant than their own.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from uuid import UUID

import pytest
from sqlalchemy import insert, text
from tests.support.people import new_team, new_user
from tests.support.state import new_principal

from carrel_gateway.context import Principal, ProcessContext
from carrel_gateway.errors import InvalidInput
from carrel_gateway.history.search import Hit, SearchService, snippet_of
from carrel_gateway.history.service import HistoryService
from carrel_gateway.identity.rights import Role, rights_of
from carrel_gateway.identity.tables import users
from carrel_gateway.people.service import TeamService
from carrel_gateway.sessions.service import SessionService
from carrel_gateway.sharing.sessions import SessionSharing
from carrel_gateway.storage.ids import new_id
from carrel_wire.log import AssistantMessage, CellFinished, CellIntended, LogPayload, UserMessage


@pytest.fixture
def search(context: ProcessContext, principal: Principal) -> SearchService:
    return SearchService(context, principal)


@pytest.fixture
def history(context: ProcessContext, principal: Principal) -> HistoryService:
    return HistoryService(context, principal)


def question(content: str) -> UserMessage:
    return UserMessage(message_id=new_id(), content=content)


def code(source: str) -> CellIntended:
    return CellIntended(execution_id=new_id(), code=source)


def marked(hit: Hit) -> list[str]:
    return [hit.snippet.text[start:end] for start, end in hit.snippet.matches]


async def found(search: SearchService, query: str) -> list[str]:
    return [hit.snippet.text for hit in (await search.search(query)).items]


@pytest.mark.parametrize(
    ("query", "hits"),
    [
        ("revenue", ["Why did Revenue fall in March?"]),
        ("REV mar", ["Why did Revenue fall in March?"]),
        ("venue", []),
        ("revenue april", []),
        ("read_csv", ["df = pd.read_csv('data/sales.csv')"]),
        ("csv sales", ["df = pd.read_csv('data/sales.csv')"]),
        ("größe", ["Die GRÖSSE und die größe", "Größe: 100%_"]),
        ("100%_", ["Größe: 100%_"]),
        ("nul", ["nul\ufffdbyte"]),
    ],
)
async def test_words_begin_words(
    history: HistoryService, search: SearchService, session_id: UUID, query: str, hits: list[str]
) -> None:
    payloads: list[LogPayload] = [
        question("Why did Revenue fall in March?"),
        code("df = pd.read_csv('data/sales.csv')"),
        question("Größe: 100%_"),
        AssistantMessage(message_id=new_id(), content="Die GRÖSSE und die größe"),
        code("nul\0byte"),
        code("x" * 300_000),
        code(" ".join(f"w{number}" for number in range(150_000))),
    ]
    for payload in payloads:
        await history.append(session_id, [payload], actor="user")
    assert await found(search, query) == hits


async def test_a_hit_says_what_it_is(history: HistoryService, search: SearchService, session_id: UUID) -> None:
    execution_id, message = new_id(), question("Plot the Lorenz curve, lorenz!")
    await history.append(session_id, [message], actor="user")
    finished = CellFinished(execution_id=execution_id, status="ok", code="lorenz = 1")
    await history.append(session_id, [finished], actor="kernel")
    cell, asked = (await search.search("lorenz")).items
    assert (cell.kind, cell.id, cell.status, cell.role, cell.seq) == ("code", execution_id, "ok", None, 3)
    assert (asked.kind, asked.id, asked.status, asked.role) == ("message", message.message_id, None, "user")
    assert (asked.session_id, asked.session_title) == (session_id, "Untitled")
    assert marked(asked) == ["Lorenz", "lorenz"]


async def test_pages_kinds_and_sessions(
    context: ProcessContext, principal: Principal, history: HistoryService, search: SearchService, session_id: UUID
) -> None:
    other = (await SessionService(context, principal).create(title="other")).id
    for place in range(7):
        asked = question(f"needle {place}")
        await history.append(session_id if place % 2 else other, [asked, code(f"needle = {place}")], actor="user")
    seen: list[UUID] = []
    cursor = None
    while True:
        page = await search.search("needle", limit=3, cursor=cursor)
        seen += [hit.id for hit in page.items]
        cursor = page.next_cursor
        if cursor is None:
            break
    assert len(set(seen)) == len(seen) == 14
    everything = await search.search("needle", limit=100)
    assert [hit.id for hit in everything.items] == seen
    assert everything.next_cursor is None
    times = [hit.created_at for hit in everything.items]
    assert times == sorted(times, reverse=True)
    only = await search.search("needle", session_id=other, kind="code", limit=100)
    assert {(hit.session_id, hit.kind) for hit in only.items} == {(other, "code")}
    assert len(only.items) == 4
    with pytest.raises(InvalidInput):
        await search.search("needle", kind="code", cursor=(await search.search("needle", limit=1)).next_cursor)


async def test_more_candidates_than_hits(history: HistoryService, search: SearchService, session_id: UUID) -> None:
    """What only holds the letters of a word is read and left out, also when it fills a page of candidates."""
    await history.append(session_id, [question("event one")], actor="user")
    await history.append(session_id, [question(f"prevent {place}") for place in range(450)], actor="user")
    await history.append(session_id, [question("event two")], actor="user")
    assert await found(search, "event") == ["event two", "event one"]


async def test_nobody_finds_what_they_may_not_read(
    context: ProcessContext, principal: Principal, history: HistoryService, session_id: UUID
) -> None:
    await history.append(session_id, [question("secret plan"), code("secret = 1")], actor="user")
    colleague = replace(principal, user_id=new_id(), role=Role.USER, rights=rights_of(Role.USER))
    row = {"tenant_id": principal.tenant_id, "id": colleague.user_id, "name": "b", "created_at": datetime.now(UTC)}
    async with context.database.transaction(principal.tenant_id) as tx:
        await tx.connection.execute(insert(users).values(**row))
    own = (await SessionService(context, colleague).create()).id
    await HistoryService(context, colleague).append(own, [question("secret of my own")], actor="user")
    assert await found(SearchService(context, colleague), "secret") == ["secret of my own"]
    assert (await SearchService(context, colleague).search("secret", session_id=session_id)).items == []
    assert len((await SearchService(context, principal).search("secret")).items) == 3, "an administrator reads all"
    assert await found(SearchService(context, await new_principal(context.database)), "secret") == []
    await SessionService(context, principal).delete(session_id)
    assert await found(SearchService(context, principal), "secret") == ["secret of my own"]


async def test_what_teams_share_is_found_as_long_as_it_may_be_read(
    context: ProcessContext, principal: Principal, history: HistoryService, session_id: UUID
) -> None:
    await history.append(session_id, [question("secret plan"), code("secret = 1")], actor="user")
    hidden = (await SessionService(context, principal).create()).id
    await history.append(hidden, [question("secret of nobody else")], actor="user")
    member, other = [await new_user(context.database, principal.tenant_id) for _ in range(2)]
    first, second = [await new_team(context.database, member, principal, role=Role.READONLY) for _ in range(2)]
    strangers = await new_team(context.database, other)
    sharing, teams = SessionSharing(context, principal), TeamService(context, principal)
    search, secrets = SearchService(context, member), ["secret = 1", "secret plan"]
    for team_id in (first, second):
        await sharing.share(session_id, team_id, "read")
        assert await found(search, "secret") == secrets, "once, also when two teams share it"
        assert await found(SearchService(context, other), "secret") == []
    in_it = await search.search("secret", session_id=session_id, kind="code")
    assert [hit.id for hit in in_it.items] == [
        hit.id for hit in (await search.search("secret")).items if hit.kind == "code"
    ]
    page = await search.search("secret", limit=1)
    await teams.remove_member(first, member.user_id)
    assert await found(search, "secret") == secrets
    await sharing.unshare(session_id, second)
    assert await found(search, "secret") == []
    assert (await search.search("secret", limit=1, cursor=page.next_cursor)).items == [], "the next page, too"
    await sharing.share(session_id, strangers, "write")
    assert (await found(search, "secret"), await found(SearchService(context, other), "secret")) == ([], secrets)
    await teams.delete(strangers)
    assert await found(SearchService(context, other), "secret") == []


@pytest.mark.parametrize("query", ["", "!?_", " ".join("abcdefghijk")])
async def test_queries_without_words_or_with_too_many(search: SearchService, query: str) -> None:
    with pytest.raises(InvalidInput):
        await search.search(query)


async def test_the_function_gives_nothing_of_another_tenant(
    context: ProcessContext, principal: Principal, history: HistoryService, session_id: UUID
) -> None:
    if not context.database.dialect.shared:
        pytest.skip("SQLite has no functions with rights of their own")
    await history.append(session_id, [question("secret plan")], actor="user")
    call = text("SELECT count(*) FROM carrel_search(:tenant_id, 'secret:*', NULL, NULL, NULL, NULL, NULL, 9)")
    stranger = await new_principal(context.database)
    for tenant_id, expected in ((principal.tenant_id, 1), (stranger.tenant_id, 0)):
        async with context.database.transaction(tenant_id, write=False) as tx:
            assert await tx.connection.scalar(call, {"tenant_id": principal.tenant_id}) == expected


def test_snippets_are_around_the_first_match() -> None:
    content = "a" * 500 + " needle " + "b" * 500 + " needle"
    snippet = snippet_of(content, ["needle"])
    assert len(snippet.text) == 240
    assert [snippet.text[start:end] for start, end in snippet.matches] == ["needle"]
    assert snippet_of("nothing here", ["needle"]).matches == []
    assert snippet_of("x" * 100 + "needle", ["needle"]).matches == []
