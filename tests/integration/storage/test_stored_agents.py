"""Stored agents over both databases.

Plan: an agent is stored, read, changed, listed and deleted; two who change it at once are told; teams read or write
what is shared with them, by what their members are in them; what is shared goes with the team or the member; others
and other tenants are refused.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from tests.support.people import new_team, new_user
from tests.support.state import new_principal

from carrel_gateway.audit.service import AuditService, Filter
from carrel_gateway.context import Principal, ProcessContext
from carrel_gateway.errors import Conflict, NotFound, PermissionDenied
from carrel_gateway.identity.rights import Right, Role, rights_of
from carrel_gateway.people.service import TeamService
from carrel_gateway.storage.ids import new_id
from carrel_gateway.stored_agents.service import AgentService, SharedAgent


@pytest.fixture
async def owner(context: ProcessContext, principal: Principal) -> Principal:
    return await new_user(context.database, principal.tenant_id)


@pytest.fixture
def agents(context: ProcessContext, owner: Principal) -> AgentService:
    return AgentService(context, owner)


async def stored(agents: AgentService, name: str = "Auditor") -> SharedAgent:
    return await agents.store(name=name, description="d", model="m", config={"system_prompt": "Be brief."})


async def test_an_agent_from_first_to_last(agents: AgentService, context: ProcessContext, principal: Principal) -> None:
    made = await stored(agents)
    agent = made.agent
    assert (agent.name, agent.description, agent.model, agent.config) == (
        "Auditor",
        "d",
        "m",
        {"system_prompt": "Be brief."},
    )
    assert (agent.version, made.shares) == (1, [])
    assert await agents.get(agent.id) == made
    changed = (await agents.change(agent.id, {"name": "B", "config": {}}, version=1)).agent
    assert (changed.name, changed.config, changed.model, changed.version) == ("B", {}, "m", 2)
    with pytest.raises(Conflict, match="read it again"):
        await agents.change(agent.id, {"name": "C"}, version=1)
    assert (await agents.change(agent.id, {})).agent == changed
    await agents.delete(agent.id)
    with pytest.raises(NotFound):
        await agents.get(agent.id)
    told = [entry.action for entry in (await AuditService(context, principal).list(Filter())).items]
    assert told[::-1] == ["agent.stored", "agent.changed", "agent.deleted"]


async def test_of_two_who_change_a_version_one_is_told(agents: AgentService) -> None:
    agent = (await stored(agents)).agent
    attempts = [agents.change(agent.id, {"name": str(place)}, version=1) for place in range(4)]
    results = await asyncio.gather(*attempts, return_exceptions=True)
    assert sorted(type(result).__name__ for result in results) == ["Conflict"] * 3 + ["SharedAgent"]


async def test_lists_come_in_pages_newest_first(agents: AgentService) -> None:
    made = [(await stored(agents, str(place))).agent.id for place in range(3)]
    first = await agents.list(limit=2)
    second = await agents.list(limit=2, cursor=first.next_cursor)
    assert [item.agent.id for item in first.items + second.items] == made[::-1]


@pytest.mark.parametrize("access", ["read", "write"])
@pytest.mark.parametrize("role", list(Role))
async def test_what_a_team_may(
    agents: AgentService, context: ProcessContext, owner: Principal, access: str, role: Role
) -> None:
    agent = (await stored(agents)).agent
    hidden = (await stored(agents, "hidden")).agent
    member = await new_user(context.database, owner.tenant_id)
    team_id = await new_team(context.database, owner, role=Role.ADMIN)
    await TeamService(context, owner).put_member(team_id, member.user_id, role)
    theirs = AgentService(context, member)
    with pytest.raises(PermissionDenied):
        await theirs.get(agent.id)
    shared = await agents.share(agent.id, team_id, access)
    assert [(item.team_id, item.access) for item in shared.shares] == [(team_id, access)]
    assert (await theirs.get(agent.id)).agent == agent
    assert [item.agent.id for item in (await theirs.list()).items] == [agent.id]
    if access == "write" and role is not Role.READONLY:
        assert (await theirs.change(agent.id, {"name": "theirs"})).agent.name == "theirs"
    else:
        with pytest.raises(PermissionDenied):
            await theirs.change(agent.id, {"name": "theirs"})
    for attempt in (
        theirs.delete(agent.id),
        theirs.share(agent.id, team_id, "write"),
        theirs.unshare(agent.id, team_id),
        theirs.get(hidden.id),
    ):
        with pytest.raises(PermissionDenied):
            await attempt
    await TeamService(context, owner).remove_member(team_id, member.user_id)
    with pytest.raises(PermissionDenied):
        await theirs.get(agent.id)
    assert (await theirs.list()).items == []


async def test_the_wider_of_two_shares_counts(agents: AgentService, context: ProcessContext, owner: Principal) -> None:
    agent = (await stored(agents)).agent
    member = await new_user(context.database, owner.tenant_id)
    for access in ("write", "read"):
        team_id = await new_team(context.database, owner, role=Role.ADMIN)
        await TeamService(context, owner).put_member(team_id, member.user_id, Role.USER)
        await agents.share(agent.id, team_id, access)
    theirs = AgentService(context, member)
    assert len((await theirs.list()).items) == 1
    assert (await theirs.change(agent.id, {"name": "x"})).agent.name == "x"
    await agents.unshare(agent.id, (await agents.get(agent.id)).shares[0].team_id)
    with pytest.raises(PermissionDenied):
        await theirs.change(agent.id, {"name": "y"})


async def test_shares_end_with_their_team(agents: AgentService, context: ProcessContext, owner: Principal) -> None:
    agent = (await stored(agents)).agent
    team_id = await new_team(context.database, owner, role=Role.ADMIN)
    await agents.share(agent.id, team_id, "read")
    assert [item.access for item in (await agents.share(agent.id, team_id, "write")).shares] == ["write"]
    await TeamService(context, owner).delete(team_id)
    assert (await agents.get(agent.id)).shares == []
    with pytest.raises(NotFound):
        await agents.unshare(agent.id, team_id)
    with pytest.raises(NotFound):
        await agents.share(agent.id, team_id, "read")


async def test_one_shares_with_teams_of_ones_own(
    agents: AgentService, context: ProcessContext, principal: Principal
) -> None:
    agent = (await stored(agents)).agent
    foreign = await new_team(context.database, await new_user(context.database, principal.tenant_id), role=Role.ADMIN)
    with pytest.raises(PermissionDenied, match="no member"):
        await agents.share(agent.id, foreign, "read")
    administrators = AgentService(context, principal)
    assert len((await administrators.share(agent.id, foreign, "read")).shares) == 1
    assert (await administrators.change(agent.id, {"name": "x"})).agent.name == "x"


async def test_rights_and_tenants(agents: AgentService, context: ProcessContext, owner: Principal) -> None:
    agent = (await stored(agents)).agent
    reader = AgentService(context, replace(owner, rights=rights_of(Role.READONLY)))
    assert (await reader.get(agent.id)).agent == agent
    blind = AgentService(context, replace(owner, rights=rights_of(Role.USER) - {Right.AGENTS_READ, Right.AGENTS_WRITE}))
    for attempt in (blind.get(agent.id), blind.list(), reader.change(agent.id, {"name": "x"}), reader.delete(agent.id)):
        with pytest.raises(PermissionDenied):
            await attempt
    stranger = AgentService(context, await new_principal(context.database))
    for attempt in (
        stranger.get(agent.id),
        stranger.change(agent.id, {"name": "x"}),
        stranger.delete(agent.id),
        stranger.share(agent.id, new_id(), "read"),
    ):
        with pytest.raises(NotFound):
            await attempt
    assert (await stranger.list()).items == []
