"""The MCP servers of sessions over both databases: kept, changed and removed, their secrets shown to nobody.

Plan: a server from first to last, with its events; of what it is given nothing is in rows, answers, log, audit log or
events, and what is stored opens for its own tenant, session, name and command or address alone; secrets stay with the
command or address that they were given for, or are sent again; names are one's own and their number is limited, for
those who come at the same moment too; a fork has no servers; another tenant finds none.
"""

from __future__ import annotations

import asyncio
import base64
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select
from tests.support.state import new_principal

from carrel_gateway.audit.service import AuditService, Filter
from carrel_gateway.context import Principal, ProcessContext
from carrel_gateway.errors import Conflict, NotFound
from carrel_gateway.history.service import HistoryService
from carrel_gateway.identity.secrets import Unsealable
from carrel_gateway.mcp_servers.schemas import ServerOut
from carrel_gateway.mcp_servers.service import (
    MAX_SERVERS,
    SEALED_SERVERS,
    Change,
    McpServerService,
    NewServer,
    ServerRefused,
)
from carrel_gateway.mcp_servers.tables import mcp_servers
from carrel_gateway.sessions.service import SessionService
from carrel_gateway.storage.ids import new_id
from carrel_gateway.suspension.forking import Forking
from carrel_wire.log import SessionChanged

CANARY = "canary-of-a-server-0123456789"
URL = "https://tools.example.org/mcp"
WITH_SECRET = NewServer("notes", ["uvx", "notes"], {"NOTES_TOKEN": CANARY, "A": "x"}, "ask", enabled=True)
REMOTE = NewServer("far-away", URL, {"Authorization": f"Bearer {CANARY}"}, "deny", enabled=False)


@pytest.fixture
def servers(context: ProcessContext, principal: Principal) -> McpServerService:
    return McpServerService(context, principal)


async def rows(context: ProcessContext, principal: Principal) -> list[dict[str, Any]]:
    query = select(mcp_servers).where(mcp_servers.c.tenant_id == principal.tenant_id).order_by(mcp_servers.c.name)
    async with context.database.transaction(principal.tenant_id, write=False) as tx:
        return [dict(row) for row in (await tx.connection.execute(query)).mappings()]


async def given(context: ProcessContext, principal: Principal) -> bytes:
    """Return what the one server that there is, is given."""
    (row,) = await rows(context, principal)
    return SEALED_SERVERS.unseal(context.secrets, row)


async def test_from_first_to_last(
    context: ProcessContext, principal: Principal, session_id: UUID, servers: McpServerService
) -> None:
    assert await servers.list(session_id) == []
    stored = [await servers.add(session_id, new) for new in (WITH_SECRET, REMOTE)]
    assert await servers.list(session_id) == stored[::-1], "by name"
    assert await servers.get(session_id, "notes") == stored[0]
    assert [(one.transport, one.target, one.secrets, one.permission, one.enabled) for one in stored] == [
        ("stdio", ["uvx", "notes"], ["A", "NOTES_TOKEN"], "ask", True),
        ("http", URL, ["Authorization"], "deny", False),
    ]
    changed = await servers.change(session_id, "notes", Change(permission="allow", enabled=False))
    assert changed == replace(stored[0], permission="allow", enabled=False, updated_at=changed.updated_at)
    assert changed.updated_at > stored[0].updated_at
    assert await servers.change(session_id, "notes", Change()) == changed == await servers.get(session_id, "notes")
    await servers.remove(session_id, "notes")
    for gone in (
        servers.get(session_id, "notes"),
        servers.remove(session_id, "notes"),
        servers.change(session_id, "notes", Change(enabled=True)),
    ):
        with pytest.raises(NotFound, match="no MCP server"):
            await gone
    assert [one.name for one in await servers.list(session_id)] == ["far-away"]
    events = [event.payload for event in await HistoryService(context, principal).events(session_id, after=1)]
    told = [("notes", "added"), ("far-away", "added"), ("notes", "changed"), ("notes", "removed")]
    assert events == [SessionChanged(changes={"mcp_servers": {name: what}}) for name, what in told]
    audited = (await AuditService(context, principal).list(Filter())).items
    assert [(one.action, one.target) for one in audited] == [
        ("mcp-server.removed", str(session_id)),
        *[("mcp-server.stored", str(session_id))] * 3,
    ]


async def test_what_a_server_is_given_is_nowhere_to_be_read(
    context: ProcessContext,
    principal: Principal,
    session_id: UUID,
    servers: McpServerService,
    capfd: pytest.CaptureFixture[str],
) -> None:
    told = [repr(await servers.add(session_id, new)) for new in (WITH_SECRET, REMOTE)]
    told += [repr(await servers.change(session_id, "notes", Change(secrets={"NOTES_TOKEN": CANARY})))]
    with pytest.raises(ServerRefused) as refused:
        await servers.change(session_id, "notes", Change(target=["another"]))
    with pytest.raises(Conflict) as taken:
        await servers.add(session_id, WITH_SECRET)
    told += [repr(refused.value), repr(taken.value)]
    told += [ServerOut.model_validate(one).model_dump_json() for one in await servers.list(session_id)]
    told += [repr(row) for row in await rows(context, principal)]
    told += [repr(entry) for entry in (await AuditService(context, principal).list(Filter())).items]
    told += [repr(event) for event in await HistoryService(context, principal).events(session_id)]
    told += capfd.readouterr()
    assert len(told) == 18
    assert "NOTES_TOKEN" in told[5] + told[6]
    for text in told:
        assert CANARY not in text
        assert base64.b64encode(CANARY.encode()).decode()[:20] not in text


async def test_what_is_stored_opens_only_where_it_belongs(
    context: ProcessContext, principal: Principal, session_id: UUID, servers: McpServerService
) -> None:
    """Whoever can write rows cannot have a server's secrets sent to another one."""
    await servers.add(session_id, REMOTE)
    (row,) = await rows(context, principal)
    assert CANARY.encode() in SEALED_SERVERS.unseal(context.secrets, row)
    middle = len(row["sealed"]) // 2
    damaged = row["sealed"][:middle] + ("A" if row["sealed"][middle] != "A" else "B") + row["sealed"][middle + 1 :]
    moves = {"tenant_id": new_id(), "session_id": new_id(), "name": "other", "target": f"{URL}/", "sealed": damaged}
    for column, value in moves.items():
        with pytest.raises(Unsealable):
            SEALED_SERVERS.unseal(context.secrets, {**row, column: value})


async def test_secrets_stay_with_what_they_were_given_for(
    context: ProcessContext, principal: Principal, session_id: UUID, servers: McpServerService
) -> None:
    """Or else whoever may write in a session would have another's token sent to a server of their own."""
    await servers.add(session_id, WITH_SECRET)
    with pytest.raises(ServerRefused, match=r"A, NOTES_TOKEN.*send them again in `env`"):
        await servers.change(session_id, "notes", Change("stdio", ["uvx", "thief"]))
    with pytest.raises(ServerRefused, match="keeps its transport"):
        await servers.change(session_id, "notes", Change("http", URL, {}))
    assert CANARY.encode() in await given(context, principal)
    await servers.change(session_id, "notes", Change("stdio", ["uvx", "notes"], permission="allow"))
    assert CANARY.encode() in await given(context, principal), "it is the same command"
    moved = await servers.change(session_id, "notes", Change("stdio", ["uvx", "other"], {"B": "new"}))
    assert (moved.target, moved.secrets, await given(context, principal)) == (["uvx", "other"], ["B"], b'{"B":"new"}')
    await servers.change(session_id, "notes", Change("stdio", secrets={}))
    (row,) = await rows(context, principal)
    assert (row["sealed"], row["secrets"]) == (None, [])
    assert (await servers.change(session_id, "notes", Change("stdio", ["free"]))).target == ["free"]


async def test_names_are_taken_once_and_their_number_is_limited(session_id: UUID, servers: McpServerService) -> None:
    def attempts(*names: str) -> Any:
        adding = (servers.add(session_id, replace(WITH_SECRET, name=name, secrets={})) for name in names)
        return asyncio.gather(*adding, return_exceptions=True)

    assert sorted(type(outcome).__name__ for outcome in await attempts("same", "same", "same")) == [
        "Conflict",
        "Conflict",
        "Server",
    ]
    await attempts(*(f"s{number}" for number in range(MAX_SERVERS - 2)))
    outcomes = await attempts("one", "two", "three")
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["Server", "ServerRefused", "ServerRefused"]
    assert len(await servers.list(session_id)) == MAX_SERVERS
    await servers.remove(session_id, "same")
    assert [type(outcome).__name__ for outcome in await attempts("four")] == ["Server"]


async def test_on_a_cluster_there_is_no_machine_of_ones_own(
    context: ProcessContext, principal: Principal, session_id: UUID, servers: McpServerService
) -> None:
    near = replace(REMOTE, target="http://localhost:9000/mcp")
    on_cluster = context.settings.model_copy(update={"executor_type": "kubernetes"})
    cluster = McpServerService(replace(context, settings=on_cluster), principal)
    with pytest.raises(ServerRefused, match="use https://"):
        await cluster.add(session_id, near)
    await servers.add(session_id, near)
    with pytest.raises(ServerRefused, match="use https://"):
        await cluster.change(session_id, near.name, Change("http", near.target, {}))
    await cluster.change(session_id, near.name, Change("http", URL, {}))


async def test_a_fork_has_no_servers(
    context: ProcessContext, principal: Principal, session_id: UUID, servers: McpServerService
) -> None:
    """Whoever gave a server its secrets need not be the owner, who forks."""
    await servers.add(session_id, WITH_SECRET)
    source = await SessionService(context, principal).get(session_id)
    fork = await Forking(context, principal).fork(source, title=None, snapshot=None)
    assert await servers.list(fork.id) == []
    assert len(await rows(context, principal)) == 1


async def test_another_tenant_finds_none(context: ProcessContext, session_id: UUID, servers: McpServerService) -> None:
    await servers.add(session_id, WITH_SECRET)
    stranger = McpServerService(context, await new_principal(context.database))
    for attempt in (
        stranger.list(session_id),
        stranger.get(session_id, "notes"),
        stranger.add(session_id, REMOTE),
        stranger.change(session_id, "notes", Change(enabled=False)),
        stranger.remove(session_id, "notes"),
    ):
        with pytest.raises(NotFound, match="no such session"):
            await attempt
    assert (await servers.get(session_id, "notes")).enabled
