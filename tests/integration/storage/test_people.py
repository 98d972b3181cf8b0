"""Users and teams over both databases.

Plan: teams are founded, named, led and deleted by whom they should be; roles and switches of users likewise; what is
changed is told to all gateways and in the audit log; the last administrator stays one, also when two take the role from
each other in the same moment; nobody gives what they do not have: by their role, by their key, or because somebody
took it from them a moment ago; another tenant finds none of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from contextlib import suppress
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select
from tests.support.people import change_user, new_key, new_team, new_user
from tests.support.state import new_principal

from carrel_gateway.audit.service import AuditService, Filter
from carrel_gateway.context import Principal, ProcessContext
from carrel_gateway.errors import CarrelError, Conflict, NotFound, PermissionDenied
from carrel_gateway.identity.revocations import channel_of
from carrel_gateway.identity.rights import Right, Role
from carrel_gateway.identity.tables import team_members
from carrel_gateway.people.service import LastAdministrator, TeamService, UserService
from carrel_gateway.storage.ids import new_id


async def outcomes(*attempts: Awaitable[Any]) -> list[str]:
    """Return the kinds of errors, and `done` for what was done, in sorted order."""
    results = await asyncio.gather(*attempts, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException) and not isinstance(result, CarrelError):
            raise result
    return sorted("done" if not isinstance(result, CarrelError) else type(result).__name__ for result in results)


async def roles(context: ProcessContext, principal: Principal, team_id: UUID) -> dict[UUID, Role]:
    _, members = await TeamService(context, principal).get(team_id)
    return {member.user_id: member.role for member in members}


# ---------------------------------------------------------------------- teams


async def test_a_team_from_its_founding_to_its_end(context: ProcessContext, principal: Principal) -> None:
    founder, other = [await new_user(context.database, principal.tenant_id) for _ in range(2)]
    teams = TeamService(context, founder)
    team = await teams.found("Numbers")
    assert team.role is Role.ADMIN
    assert await roles(context, founder, team.id) == {founder.user_id: Role.ADMIN}
    with pytest.raises(Conflict, match="choose another name"):
        await TeamService(context, other).found("Numbers")
    member = await teams.put_member(team.id, other.user_id, Role.READONLY)
    assert (member.user_id, member.role) == (other.user_id, Role.READONLY)
    assert (await teams.put_member(team.id, other.user_id, Role.USER)).role is Role.USER
    assert (await teams.rename(team.id, "Figures")).name == "Figures"
    assert [(item.name, item.role) for item in (await TeamService(context, other).list()).items] == [
        ("Figures", Role.USER)
    ]
    await TeamService(context, other).remove_member(team.id, other.user_id)
    assert (await TeamService(context, other).list()).items == []
    with pytest.raises(NotFound):
        await teams.remove_member(team.id, other.user_id)
    await teams.delete(team.id)
    with pytest.raises(NotFound):
        await teams.get(team.id)
    entries = (await AuditService(context, principal).list(Filter())).items
    assert [entry.action for entry in reversed(entries)] == [
        "team.founded",
        "member.put",
        "member.put",
        "team.renamed",
        "member.removed",
        "team.deleted",
    ]


async def test_teams_come_in_pages(context: ProcessContext, principal: Principal) -> None:
    teams = TeamService(context, principal)
    made = [(await teams.found(str(place))).id for place in range(3)]
    first = await teams.list(limit=2)
    second = await teams.list(limit=2, cursor=first.next_cursor)
    assert [team.id for team in first.items + second.items] == made
    assert second.next_cursor is None


async def test_only_its_administrators_lead_a_team(context: ProcessContext, principal: Principal) -> None:
    database, tenant_id = context.database, principal.tenant_id
    leader, member, stranger = [await new_user(database, tenant_id) for _ in range(3)]
    team_id = await new_team(database, leader, role=Role.ADMIN)
    await TeamService(context, leader).put_member(team_id, member.user_id, Role.USER)
    reader = await new_user(database, tenant_id, Role.READONLY)
    await TeamService(context, principal).put_member(
        team_id, reader.user_id, Role.ADMIN
    )  # an administrator of the tenant
    for caller in (member, stranger, reader):
        teams = TeamService(context, caller)
        for attempt in (
            teams.rename(team_id, "x"),
            teams.delete(team_id),
            teams.put_member(team_id, caller.user_id, Role.ADMIN),
            teams.put_member(team_id, stranger.user_id, Role.USER),
            teams.remove_member(team_id, leader.user_id),
        ):
            with pytest.raises(PermissionDenied):
                await attempt
    with pytest.raises(PermissionDenied):
        await TeamService(context, stranger).get(team_id)
    assert await roles(context, leader, team_id) == {
        leader.user_id: Role.ADMIN,
        member.user_id: Role.USER,
        reader.user_id: Role.ADMIN,
    }


async def test_the_last_administrator_of_a_team_stays_one(context: ProcessContext, principal: Principal) -> None:
    leader, member = [await new_user(context.database, principal.tenant_id) for _ in range(2)]
    teams = TeamService(context, leader)
    team_id = (await teams.found("t")).id
    await teams.put_member(team_id, member.user_id, Role.USER)
    for attempt in (
        teams.put_member(team_id, leader.user_id, Role.USER),
        teams.remove_member(team_id, leader.user_id),
        TeamService(context, principal).remove_member(team_id, leader.user_id),
    ):
        with pytest.raises(LastAdministrator):
            await attempt
    await teams.put_member(team_id, member.user_id, Role.ADMIN)
    await change_user(context.database, member, disabled_at=None)
    await UserService(context, principal).change(member.user_id, disabled=True)
    with pytest.raises(LastAdministrator):  # whoever is disabled leads nothing
        await teams.remove_member(team_id, leader.user_id)
    await UserService(context, principal).change(member.user_id, disabled=False)
    await teams.remove_member(team_id, leader.user_id)


@pytest.mark.parametrize("how", ["demote", "remove", "leave"])
async def test_two_administrators_of_a_team_at_once(context: ProcessContext, principal: Principal, how: str) -> None:
    for _ in range(8):
        first, second = [await new_user(context.database, principal.tenant_id) for _ in range(2)]
        team_id = await new_team(context.database, first, role=Role.ADMIN)
        await TeamService(context, first).put_member(team_id, second.user_id, Role.ADMIN)
        found = await outcomes(
            _strike(how, context, team_id, first, second), _strike(how, context, team_id, second, first)
        )
        assert found == (["LastAdministrator", "done"] if how == "leave" else ["PermissionDenied", "done"])
        left = [role for role in (await roles(context, principal, team_id)).values() if role is Role.ADMIN]
        assert left == [Role.ADMIN]


async def _strike(how: str, context: ProcessContext, team_id: UUID, one: Principal, other: Principal) -> None:
    teams = TeamService(context, one)
    if how == "demote":
        await teams.put_member(team_id, other.user_id, Role.USER)
    else:
        await teams.remove_member(team_id, other.user_id if how == "remove" else one.user_id)


# ---------------------------------------------------------------------- users


async def test_users_are_listed_changed_and_told(context: ProcessContext, principal: Principal) -> None:
    users = UserService(context, principal)
    other = await new_user(context.database, principal.tenant_id, Role.READONLY)
    changed = await users.change(other.user_id, name="Ada", role=Role.USER)
    assert (changed.name, changed.role, changed.disabled_at) == ("Ada", Role.USER, None)
    assert (await users.change(other.user_id, disabled=True)).disabled_at is not None
    assert await users.change(other.user_id) == await users.change(other.user_id, disabled=True)
    assert (await users.change(other.user_id, disabled=False)).disabled_at is None
    first = await users.list(limit=1)
    second = await users.list(limit=1, cursor=first.next_cursor)
    assert [item.id for item in first.items + second.items] == [principal.user_id, other.user_id]
    with pytest.raises(NotFound):
        await users.change(new_id(), role=Role.USER)
    told = [entry.detail for entry in (await AuditService(context, principal).list(Filter())).items]
    assert told[::-1] == ['{"name":"Ada","role":"user"}', '{"disabled":true}', '{"disabled":false}']


async def test_a_service_account(context: ProcessContext, principal: Principal) -> None:
    made = await UserService(context, principal).add_service("nightly", Role.USER)
    assert (made.name, made.kind, made.role, made.email) == ("nightly", "service", Role.USER, None)
    assert made in (await UserService(context, principal).list()).items


@pytest.mark.parametrize("role", [Role.READONLY, Role.USER])
async def test_only_administrators_change_users(context: ProcessContext, principal: Principal, role: Role) -> None:
    caller = await new_user(context.database, principal.tenant_id, role)
    users = UserService(context, caller)
    for attempt in (
        users.change(caller.user_id, role=Role.ADMIN),
        users.change(principal.user_id, disabled=True),
        users.add_service("x", Role.READONLY),
    ):
        with pytest.raises(PermissionDenied):
            await attempt


async def test_nobody_gives_more_than_they_have(context: ProcessContext, principal: Principal) -> None:
    """A key of an administrator, made for less, is no way to an administrator."""
    other = await new_user(context.database, principal.tenant_id, Role.USER)
    held = frozenset({Right.PEOPLE_ADMIN, Right.TEAMS_WRITE})
    _, key_id = await new_key(context.database, principal, scopes=sorted(held))
    narrow = replace(principal, rights=held, credential_id=key_id)
    users = UserService(context, narrow)
    for attempt in (
        users.add_service("x", Role.ADMIN),
        users.add_service("x", Role.READONLY),
        users.change(other.user_id, role=Role.ADMIN),
    ):
        with pytest.raises(PermissionDenied, match="cannot give the role"):
            await attempt
    assert (await users.change(other.user_id, disabled=True)).disabled_at is not None
    with pytest.raises(PermissionDenied, match="cannot give the role"):
        await users.change(other.user_id, disabled=False)


async def test_what_was_taken_a_moment_ago_is_gone(context: ProcessContext, principal: Principal) -> None:
    """The principal is as old as its gateway's cache; the row is not."""
    admin = await new_user(context.database, principal.tenant_id, Role.ADMIN)
    team_id = await new_team(context.database, admin, role=Role.ADMIN)
    await UserService(context, principal).change(admin.user_id, role=Role.READONLY)
    users, teams = UserService(context, admin), TeamService(context, admin)
    for attempt in (users.change(admin.user_id, role=Role.ADMIN), teams.rename(team_id, "x"), teams.found("x")):
        with pytest.raises(PermissionDenied):
            await attempt
    await UserService(context, principal).change(admin.user_id, disabled=True)
    with pytest.raises(PermissionDenied, match="disabled"):
        await teams.remove_member(team_id, admin.user_id)


async def test_the_last_administrator_of_a_tenant_stays_one(context: ProcessContext, principal: Principal) -> None:
    users = UserService(context, principal)
    await users.add_service("robot", Role.ADMIN)
    sleeping = await new_user(context.database, principal.tenant_id, Role.ADMIN)
    await users.change(sleeping.user_id, disabled=True)
    for change in ({"role": Role.USER}, {"disabled": True}, {"role": Role.READONLY, "disabled": True}):
        with pytest.raises(LastAdministrator):
            await users.change(principal.user_id, **change)
    await users.change(sleeping.user_id, disabled=False)
    assert (await users.change(principal.user_id, role=Role.USER)).role is Role.USER


@pytest.mark.parametrize("change", [{"role": Role.USER}, {"disabled": True}], ids=["demote", "disable"])
@pytest.mark.parametrize("each", ["other", "self"])
async def test_two_administrators_of_a_tenant_at_once(
    context: ProcessContext, change: dict[str, Any], each: str
) -> None:
    for _ in range(8):
        first = await new_principal(context.database)
        second = await new_user(context.database, first.tenant_id, Role.ADMIN)
        one, other = (second, first) if each == "other" else (first, second)
        found = await outcomes(
            UserService(context, first).change(one.user_id, **change),
            UserService(context, second).change(other.user_id, **change),
        )
        assert found == (["PermissionDenied", "done"] if each == "other" else ["LastAdministrator", "done"])
        survivors = [item for item in (first, second) if await _administers(context, item)]
        assert len(survivors) == 1
        users = (await UserService(context, survivors[0]).list()).items
        assert len([user for user in users if user.role is Role.ADMIN and user.disabled_at is None]) == 1


async def _administers(context: ProcessContext, principal: Principal) -> bool:
    with suppress(PermissionDenied):
        await UserService(context, principal).change(principal.user_id, name="me")
        return True
    return False


# ---------------------------------------------------------------------- news, tenants


async def test_all_gateways_are_told_whose_rights_changed(context: ProcessContext, principal: Principal) -> None:
    user = await new_user(context.database, principal.tenant_id)
    teams = TeamService(context, principal)
    async with context.bus.subscribe(channel_of(principal.tenant_id)) as news:

        async def heard() -> set[str]:
            async with asyncio.timeout(20):
                return {(await anext(news)).decode()}

        team_id = (await teams.found("t")).id
        assert await heard() == {principal.user_id.hex}
        for act in (
            lambda: teams.put_member(team_id, user.user_id, Role.USER),
            lambda: UserService(context, principal).change(user.user_id, role=Role.READONLY),
            lambda: UserService(context, principal).change(user.user_id, disabled=True),
            lambda: teams.remove_member(team_id, user.user_id),
        ):
            await act()
            assert await heard() == {user.user_id.hex}
        await teams.delete(team_id)
        assert await heard() == {principal.user_id.hex}


async def test_another_tenant_finds_nobody(context: ProcessContext, principal: Principal) -> None:
    stranger = await new_principal(context.database)
    team_id = (await TeamService(context, principal).found("t")).id
    teams, users = TeamService(context, stranger), UserService(context, stranger)
    own = (await teams.found("t")).id
    for attempt in (
        teams.get(team_id),
        teams.rename(team_id, "x"),
        teams.delete(team_id),
        teams.put_member(team_id, stranger.user_id, Role.ADMIN),
        teams.put_member(own, principal.user_id, Role.USER),
        teams.remove_member(team_id, principal.user_id),
        users.change(principal.user_id, disabled=True),
    ):
        with pytest.raises(NotFound):
            await attempt
    assert [item.id for item in (await users.list()).items] == [stranger.user_id]
    assert [item.id for item in (await teams.list()).items] == [own]
    async with context.database.transaction(principal.tenant_id) as tx:
        query = select(team_members.c.user_id).where(team_members.c.tenant_id == principal.tenant_id)
        assert list(await tx.connection.scalars(query)) == [principal.user_id]
