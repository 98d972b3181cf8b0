"""Sharing of sessions over both databases.

Plan: what members of a team may do with a session, by the share and by what they are in the team, alone and in lists;
it ends with the share, the membership, the team; only whoever has a session shares or deletes it; links open what they
should, until they expire, are revoked, or their maker may not read what they show; rows hold no token; other tenants
find nothing.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from uuid import UUID

import pytest
from sqlalchemy import select, update
from tests.support.people import new_team, new_user
from tests.support.state import new_principal

from carrel_gateway.audit.service import AuditService, Filter
from carrel_gateway.context import Principal, ProcessContext
from carrel_gateway.credentials.service import CredentialService
from carrel_gateway.errors import NotFound, PermissionDenied
from carrel_gateway.identity.presented import Kind, make
from carrel_gateway.identity.rights import Right, Role
from carrel_gateway.people.service import TeamService, UserService
from carrel_gateway.sessions.access import SessionAccess
from carrel_gateway.sessions.service import SessionService
from carrel_gateway.sharing.sessions import SessionSharing, opened
from carrel_gateway.sharing.tables import share_links
from carrel_gateway.storage.ids import new_id

HOUR = timedelta(hours=1)


@pytest.fixture
async def owner(context: ProcessContext, principal: Principal) -> Principal:
    return await new_user(context.database, principal.tenant_id)


@pytest.fixture
async def shared(context: ProcessContext, owner: Principal) -> UUID:
    return (await SessionService(context, owner).create()).id


async def may(context: ProcessContext, caller: Principal, session_id: UUID) -> str:
    """Return `read`, `write` or nothing."""
    access, found = SessionAccess(context.database), ""
    for changes, name in ((False, "read"), (True, "write")):
        with suppress(PermissionDenied):
            await access.require(caller, session_id, changes=changes)
            found = name
    return found


async def listed(context: ProcessContext, caller: Principal) -> set[UUID]:
    return {session.id for session in (await SessionService(context, caller).list()).items}


@pytest.mark.parametrize("access", ["read", "write"])
@pytest.mark.parametrize("role", list(Role))
async def test_what_a_team_may(
    context: ProcessContext, owner: Principal, shared: UUID, access: str, role: Role
) -> None:
    hidden = (await SessionService(context, owner).create()).id
    member, other = [await new_user(context.database, owner.tenant_id) for _ in range(2)]
    team_id = await new_team(context.database, owner, role=Role.ADMIN)
    teams, sharing = TeamService(context, owner), SessionSharing(context, owner)
    await teams.put_member(team_id, member.user_id, role)
    assert await may(context, member, shared) == ""
    assert [item.access for item in await sharing.share(shared, team_id, access)] == [access]
    wanted = "write" if access == "write" and role is not Role.READONLY else "read"
    assert await may(context, member, shared) == wanted
    assert (await may(context, member, hidden), await may(context, other, shared)) == ("", "")
    assert await listed(context, member) == {shared}
    assert await listed(context, other) == set()
    assert await listed(context, owner) == {shared, hidden}
    theirs = SessionSharing(context, member)
    for attempt in (
        theirs.share(shared, team_id, "write"),
        theirs.unshare(shared, team_id),
        theirs.make_link(shared, HOUR),
        theirs.links(shared),
        SessionService(context, member).delete(shared),
    ):
        with pytest.raises(PermissionDenied):
            await attempt
    await teams.remove_member(team_id, member.user_id)
    assert (await may(context, member, shared), await listed(context, member)) == ("", set())


async def test_a_share_ends(context: ProcessContext, principal: Principal, owner: Principal, shared: UUID) -> None:
    member = await new_user(context.database, owner.tenant_id)
    sharing, teams = SessionSharing(context, owner), TeamService(context, owner)
    first, second = [await new_team(context.database, owner, role=Role.ADMIN) for _ in range(2)]
    for team_id, access in ((first, "write"), (second, "read")):
        await teams.put_member(team_id, member.user_id, Role.USER)
        await sharing.share(shared, team_id, access)
    assert await may(context, member, shared) == "write"
    assert [(item.team_id, item.access) for item in await sharing.teams(shared)] == [(first, "write"), (second, "read")]
    await sharing.unshare(shared, first)
    assert await may(context, member, shared) == "read"
    with pytest.raises(NotFound):
        await sharing.unshare(shared, first)
    await teams.delete(second)
    assert await may(context, member, shared) == ""
    assert await sharing.teams(shared) == []
    told = [entry.action for entry in (await AuditService(context, principal).list(Filter(target=str(shared)))).items]
    assert told == ["session.unshared", "session.shared", "session.shared"]


async def test_one_shares_with_teams_of_ones_own(
    context: ProcessContext, principal: Principal, owner: Principal, shared: UUID
) -> None:
    foreign = await new_team(context.database, await new_user(context.database, owner.tenant_id))
    with pytest.raises(PermissionDenied, match="no member"):
        await SessionSharing(context, owner).share(shared, foreign, "read")
    with pytest.raises(NotFound):
        await SessionSharing(context, owner).share(shared, new_id(), "read")
    assert len(await SessionSharing(context, principal).share(shared, foreign, "read")) == 1


async def test_a_link_opens_one_session_for_reading(context: ProcessContext, owner: Principal, shared: UUID) -> None:
    sharing = SessionSharing(context, owner)
    link, token = await sharing.make_link(shared, HOUR)
    viewer, found = await opened(context, token)
    assert (found, found.session_id) == (link, shared)
    assert (viewer.tenant_id, viewer.rights, viewer.role) == (owner.tenant_id, {Right.SESSIONS_READ}, Role.READONLY)
    assert await sharing.links(shared) == [link]
    async with context.database.transaction(owner.tenant_id) as tx:
        rows = (
            await tx.connection.execute(select(share_links).where(share_links.c.tenant_id == owner.tenant_id))
        ).all()
    assert len(rows) == 1
    assert token not in repr(rows)
    await sharing.revoke_link(shared, link.id)
    with pytest.raises(NotFound):
        await opened(context, token)
    with pytest.raises(NotFound):
        await sharing.revoke_link(shared, link.id)
    assert [item.revoked_at is not None for item in await sharing.links(shared)] == [True]


async def test_a_link_shows_nothing_that_its_maker_may_not_read_any_more(
    context: ProcessContext, principal: Principal, owner: Principal, shared: UUID
) -> None:
    """Of an administrator who shares another's session: as long as they are one, or read it by a team."""
    admin = await new_user(context.database, principal.tenant_id, Role.ADMIN)
    _, token = await SessionSharing(context, admin).make_link(shared, HOUR)
    _, own = await SessionSharing(context, owner).make_link(shared, HOUR)
    team_id = await new_team(context.database, owner, admin, role=Role.ADMIN)
    users, sharing = UserService(context, principal), SessionSharing(context, owner)
    await opened(context, token)
    await users.change(admin.user_id, role=Role.USER)
    for _ in range(2):
        with pytest.raises(NotFound, match="shows nothing"):
            await opened(context, token)
        await sharing.share(shared, team_id, "read")
        await opened(context, token)
        await sharing.unshare(shared, team_id)
    await users.change(owner.user_id, role=Role.READONLY)
    await opened(context, own)
    await users.change(admin.user_id, role=Role.ADMIN)
    await opened(context, token)


async def test_a_link_of_a_service_account_shows_no_more_than_the_maker_of_its_key_may_read(
    context: ProcessContext, principal: Principal, shared: UUID
) -> None:
    admin = await new_user(context.database, principal.tenant_id, Role.ADMIN)
    users = UserService(context, principal)
    account = await users.add_service("x", Role.ADMIN)
    key = (await CredentialService(context, admin).make_key("x", user_id=account.id)).row
    by = Principal(principal.tenant_id, account.id, Role.ADMIN, credential_id=key.id)
    link, token = await SessionSharing(context, by).make_link(shared, HOUR)
    assert (link.user_id, link.maker_id) == (account.id, admin.user_id)
    own = (await SessionService(context, by).create()).id
    _, of_own = await SessionSharing(context, by).make_link(own, HOUR)
    await opened(context, token)
    await users.change(admin.user_id, role=Role.USER)
    with pytest.raises(NotFound, match="shows nothing"):
        await opened(context, token)
    await opened(context, of_own)
    await users.change(admin.user_id, disabled=True)
    with pytest.raises(NotFound, match="shows nothing"):
        await opened(context, of_own)
    await users.change(admin.user_id, role=Role.ADMIN, disabled=False)
    async with context.database.transaction(principal.tenant_id) as tx:  # as of one from before there were makers
        await tx.connection.execute(
            update(share_links).where(share_links.c.tenant_id == principal.tenant_id).values(maker_id=None)
        )
    await opened(context, of_own)
    with pytest.raises(NotFound, match="shows nothing"):
        await opened(context, token)


@pytest.mark.parametrize("end", ["expired", "disabled", "deleted"])
async def test_a_link_ends(
    context: ProcessContext, principal: Principal, owner: Principal, shared: UUID, end: str
) -> None:
    _, token = await SessionSharing(context, owner).make_link(shared, -HOUR if end == "expired" else HOUR)
    if end == "disabled":
        await opened(context, token)
        await UserService(context, principal).change(owner.user_id, disabled=True)
    if end == "deleted":
        await SessionService(context, owner).delete(shared)
    with pytest.raises(NotFound, match="shows nothing"):
        await opened(context, token)


async def test_no_other_token_opens_anything(context: ProcessContext, owner: Principal, shared: UUID) -> None:
    _, token = await SessionSharing(context, owner).make_link(shared, HOUR)
    stranger = await new_principal(context.database)
    forged = [
        make(Kind.SHARE, owner.tenant_id),
        make(Kind.SHARE, stranger.tenant_id),
        "",
        "crs_",
        token + "=",
        "crl" + token[3:],
    ]
    forged += [
        token[:place] + ("A" if token[place] != "A" else "B") + token[place + 1 :] for place in range(4, len(token))
    ]
    for other in forged:
        with pytest.raises(NotFound):
            await opened(context, other)


async def test_rights_and_tenants(context: ProcessContext, owner: Principal, shared: UUID) -> None:
    stranger = SessionSharing(context, await new_principal(context.database))
    for attempt in (stranger.teams(shared), stranger.share(shared, new_id(), "read"), stranger.make_link(shared, HOUR)):
        with pytest.raises(NotFound):
            await attempt
    narrow = replace(owner, user_id=(await new_user(context.database, owner.tenant_id)).user_id)
    assert await may(context, narrow, shared) == ""
