"""Invitations into a tenant, over SQLite and Postgres.

Plan: whoever has no account makes one, whoever has one joins with it; good once, also at the same time, and for a week;
nobody invites who may not, or gives a role that they do not have; a removed or disabled person does not come back by
an old link; nobody is logged in by a mail. Those who may invite see what nobody has accepted, page by page and of their
tenant alone, and take it back: then the link does nothing.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import update
from tests.support.account_desk import PASSWORD, PROGRAM, AccountDesk, account_desk, principal_of
from tests.support.people import change_user, new_user

from carrel_gateway.accounts.invitations import InvitationService
from carrel_gateway.accounts.profile import ProfileService
from carrel_gateway.audit.service import AuditService, Filter
from carrel_gateway.context import Principal
from carrel_gateway.credentials.service import CredentialService
from carrel_gateway.errors import CarrelError
from carrel_gateway.identity.rights import Right, Role
from carrel_gateway.identity.tables import one_time_tokens
from carrel_gateway.people.service import UserService


@pytest.fixture
def settings(settings):
    return settings.model_copy(update={"registration": "open"})


@pytest.fixture
async def desk(context):
    async with account_desk(context) as opened:
        yield opened


@pytest.fixture
async def admin(desk: AccountDesk) -> Principal:
    return principal_of(await desk.set_up(desk.address()))


async def code_of(work) -> str:
    with pytest.raises(CarrelError) as caught:
        await work
    return caught.value.code


async def invited(desk: AccountDesk, by: Principal, email: str, role: Role = Role.USER) -> str:
    await InvitationService(desk.parts).invite(by, email, role)
    return await desk.mail(email, "invite")


async def accept(desk: AccountDesk, token: str, name: str | None = "Grace", password: str | None = PASSWORD):
    return await InvitationService(desk.parts).accept(token, name=name, password=password)


async def test_whoever_has_no_account_makes_one(desk: AccountDesk, admin: Principal):
    email = desk.address()
    token = await invited(desk, admin, email, Role.READONLY)
    assert await code_of(accept(desk, token, None, None)) == "name_and_password_needed"
    assert await code_of(accept(desk, token, password="short")) == "invalid_password"
    answers = await asyncio.gather(*(accept(desk, token) for _ in range(4)), return_exceptions=True)
    assert [one for one in answers if not isinstance(one, CarrelError)] == [admin.tenant_id]
    assert await code_of(accept(desk, token)) == "link_not_valid"
    tokens = await desk.accounts.log_in(email, PASSWORD, PROGRAM)
    profile = await ProfileService(desk.parts.context, principal_of(tokens)).get()
    assert (tokens.tenant_id, profile.member.role, profile.member.name) == (admin.tenant_id, Role.READONLY, "Grace")


async def test_whoever_has_an_account_joins_with_it(desk: AccountDesk, admin: Principal):
    email = desk.address()
    home = await desk.set_up(email)
    token = await invited(desk, admin, email)
    assert await accept(desk, token, None, None) == admin.tenant_id
    assert await code_of(accept(desk, token, None, None)) == "link_not_valid"
    there = await desk.accounts.switch(principal_of(home), admin.tenant_id, PROGRAM)
    assert there.user_id == home.user_id
    profile = await ProfileService(desk.parts.context, principal_of(there)).get()
    assert profile.member.role == Role.USER
    assert len(profile.tenants) == 2


async def test_the_disabled_do_not_come_back_by_another_link(desk: AccountDesk, admin: Principal):
    email = desk.address()
    home = await desk.set_up(email)
    await accept(desk, await invited(desk, admin, email))
    there = Principal(admin.tenant_id, home.user_id)
    await change_user(desk.parts.context.database, there, disabled_at=datetime.now(UTC))
    await accept(desk, await invited(desk, admin, email, Role.ADMIN))
    assert await code_of(desk.accounts.log_in(email, PASSWORD, PROGRAM, tenant_id=admin.tenant_id)) == "wrong_login"


async def test_it_is_good_for_a_week(desk: AccountDesk, admin: Principal):
    token = await invited(desk, admin, desk.address())
    async with desk.parts.context.database.transaction(admin.tenant_id) as tx:
        await tx.connection.execute(
            update(one_time_tokens)
            .where(one_time_tokens.c.tenant_id == admin.tenant_id)
            .values(expires_at=datetime.now(UTC) - timedelta(seconds=1))
        )
    assert await code_of(accept(desk, token)) == "link_not_valid"


@pytest.mark.parametrize("change", [{"role": "user"}, {"disabled_at": datetime.now(UTC)}])
async def test_it_ends_with_the_right_of_whoever_sent_it(desk: AccountDesk, admin: Principal, change: dict):
    """Attack 26: an administrator who is demoted must not come back by an invitation of their own."""
    second = await new_user(desk.parts.context.database, admin.tenant_id, Role.ADMIN)
    known = desk.address()
    home = await desk.set_up(known)
    links = [await invited(desk, second, email, Role.ADMIN) for email in (desk.address(), known)]
    await change_user(desk.parts.context.database, second, **change)
    for link in links:
        assert await code_of(accept(desk, link)) == "link_not_valid"
    switching = desk.accounts.switch(principal_of(home), admin.tenant_id, PROGRAM)
    assert await code_of(switching) == "tenant_not_found"


@pytest.mark.parametrize("change", [{"role": Role.USER}, {"disabled": True}], ids=["demoted", "disabled"])
async def test_by_a_service_account_it_ends_with_the_right_of_whoever_made_its_key(
    desk: AccountDesk, admin: Principal, change: dict
):
    """Attack 26: the account stays an administrator; its maker must not come back by it."""
    context = desk.parts.context
    people, maker = UserService(context, admin), await new_user(context.database, admin.tenant_id, Role.ADMIN)
    account = await people.add_service("x", Role.ADMIN)
    key = (await CredentialService(context, maker).make_key("x", user_id=account.id)).row
    by = Principal(admin.tenant_id, account.id, Role.ADMIN, credential_id=key.id)
    early, late = desk.address(), desk.address()
    first, second = await invited(desk, by, early, Role.USER), await invited(desk, by, late, Role.ADMIN)
    assert await accept(desk, first) == admin.tenant_id
    await people.change(maker.user_id, **change)
    assert await code_of(accept(desk, second)) == "link_not_valid"
    # Of one from before that was written down, nothing is known.
    await people.change(maker.user_id, role=Role.ADMIN, disabled=False)
    async with context.database.transaction(admin.tenant_id) as tx:
        await tx.connection.execute(
            update(one_time_tokens)
            .where(one_time_tokens.c.tenant_id == admin.tenant_id, one_time_tokens.c.used_at.is_(None))
            .values(detail={"email": late, "role": "admin"})
        )
    assert await code_of(accept(desk, second)) == "link_not_valid"


async def test_who_may_invite(desk: AccountDesk, admin: Principal):
    database = desk.parts.context.database
    inviting = InvitationService(desk.parts)
    for role in (Role.READONLY, Role.USER):
        other = await new_user(database, admin.tenant_id, role)
        assert await code_of(inviting.invite(other, desk.address(), Role.READONLY)) == "permission_denied"
    narrow = Principal(admin.tenant_id, admin.user_id, rights=frozenset({Right.PEOPLE_ADMIN}))
    assert await code_of(inviting.invite(narrow, desk.address(), Role.READONLY)) == "permission_denied"
    demoted = await new_user(database, admin.tenant_id, Role.ADMIN)
    await change_user(database, demoted, role="user")
    assert await code_of(inviting.invite(demoted, desk.address(), Role.USER)) == "permission_denied"


async def test_links_that_were_not_made_here(desk: AccountDesk, admin: Principal):
    token = await invited(desk, admin, desk.address())
    for other in ("", "x", token[:-1], "k1.AAAA", await _setup_token(desk)):
        assert await code_of(accept(desk, other)) == "link_not_valid"


async def _setup_token(desk: AccountDesk) -> str:
    email = desk.address()
    await desk.accounts.register(email)
    return await desk.mail(email, "setup")


async def test_pending_ones_are_listed_and_taken_back(desk: AccountDesk, admin: Principal):
    inviting, database = InvitationService(desk.parts), desk.parts.context.database
    second = await new_user(database, admin.tenant_id, Role.ADMIN)
    emails = [desk.address() for _ in range(3)]
    links = [
        await invited(desk, by, email, Role.READONLY) for by, email in zip((admin, second, admin), emails, strict=True)
    ]
    await accept(desk, links[0])
    first = await inviting.list(second, limit=1)
    rest = await inviting.list(second, limit=1, cursor=first.next_cursor)
    pending = [*first.items, *rest.items]
    assert rest.next_cursor is None
    assert [one.email for one in pending] == [emails[2], emails[1]]
    assert {(one.role, (one.expires_at - one.created_at).days) for one in pending} == {(Role.READONLY, 7)}
    assert [one.invited_by for one in pending] == [admin.user_id, second.user_id]

    stranger = principal_of(await desk.set_up(desk.address()))
    assert (await inviting.list(stranger)).items == []
    assert await code_of(inviting.take_back(stranger, pending[0].id)) == "invitation_not_found"
    for other in (await new_user(database, admin.tenant_id), await new_user(database, admin.tenant_id, Role.READONLY)):
        assert await code_of(inviting.list(other)) == "permission_denied"
        assert await code_of(inviting.take_back(other, pending[0].id)) == "permission_denied"

    await inviting.take_back(second, pending[0].id)
    assert [one.email for one in (await inviting.list(admin)).items] == [emails[1]]
    assert await code_of(accept(desk, links[2])) == "link_not_valid"
    assert await code_of(inviting.take_back(admin, pending[0].id)) == "invitation_not_found"
    assert await accept(desk, links[1]) == admin.tenant_id
    noted = await AuditService(desk.parts.context, admin).list(Filter(action="user.uninvited"))
    assert [(entry.target, entry.detail) for entry in noted.items] == [(str(pending[0].id), '{"role":"readonly"}')]


async def test_whoever_was_demoted_takes_nothing_back(desk: AccountDesk, admin: Principal):
    """Also while the gateway still believes that they are an administrator."""
    link = await invited(desk, admin, desk.address())
    second = await new_user(desk.parts.context.database, admin.tenant_id, Role.ADMIN)
    await change_user(desk.parts.context.database, second, role="user")
    inviting = InvitationService(desk.parts)
    (pending,) = (await inviting.list(admin)).items
    assert await code_of(inviting.take_back(second, pending.id)) == "permission_denied"
    assert await accept(desk, link) == admin.tenant_id
