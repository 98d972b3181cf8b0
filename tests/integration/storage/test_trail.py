"""What the audit logs of tenants say of logins and passwords, over SQLite and Postgres.

Plan: each way in and out is one entry with its stable name, in the tenant that it concerns and in no other; a refusal
is told for whom it is known, after the answer and no more than ten times in five minutes; what concerns the account is
told to all its tenants; a stolen token is told once, however often it comes; no address, password or token is in it;
who loses a race for an account is out again; the chain holds. Signing in with a provider is in `test_signing_in`.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import update
from sqlalchemy.exc import IntegrityError
from tests.support.account_desk import BROWSER, PASSWORD, PROGRAM, AccountDesk, account_desk, principal_of
from tests.support.people import change_user

from carrel_gateway.accounts import repository, trail
from carrel_gateway.accounts.first import make_first_administrator
from carrel_gateway.accounts.invitations import InvitationService
from carrel_gateway.accounts.service import Tokens
from carrel_gateway.audit.service import AuditService, Entry, Filter
from carrel_gateway.context import Principal
from carrel_gateway.errors import CarrelError, Conflict
from carrel_gateway.identity.rights import Role
from carrel_gateway.identity.service import DEFAULT_TENANT_ID, DEFAULT_USER_ID
from carrel_gateway.identity.tables import logins

WRONG = "a password that is wrong"
NEW = "another long password"


@pytest.fixture
def settings(settings):
    return settings.model_copy(update={"registration": "open"})


@pytest.fixture
async def desk(context):
    async with account_desk(context) as opened:
        yield opened


async def told(desk: AccountDesk, by: Principal, action: str | None = None) -> list[Entry]:
    """Return what the log of a tenant says, oldest first, once all is done; its chain must hold."""
    await desk.parts.works.done()
    log = AuditService(desk.parts.context, by)
    assert (await log.verify()).valid
    page = await log.list(Filter(action=action), limit=200)
    return page.items[::-1]


def said(entries: list[Entry]) -> list[tuple[str, str, dict]]:
    return [(entry.action, entry.target, json.loads(entry.detail)) for entry in entries]


async def refused(work) -> str:
    with pytest.raises(CarrelError) as caught:
        await work
    return caught.value.code


async def make_member(desk: AccountDesk, home: Tokens, email: str) -> Principal:
    """Have an account join another tenant, whose administrator is returned."""
    host = principal_of(await desk.set_up(desk.address()))
    inviting = InvitationService(desk.parts)
    await inviting.invite(host, email, Role.USER)
    await inviting.accept(await desk.mail(email, "invite"), name=None, password=None)
    (joined,) = said(await told(desk, host, "user.joined"))
    assert joined == ("user.joined", str(home.user_id), {"by": "invitation", "role": "user"})
    return host


async def test_each_way_in_and_out(desk: AccountDesk):
    email = desk.address()
    first = await desk.set_up(email)
    me, who = principal_of(first), str(first.user_id)
    second = await desk.accounts.log_in(email, PASSWORD, BROWSER)
    third = await desk.accounts.log_in(email, PASSWORD, PROGRAM)
    await desk.logins.end_current(principal_of(second))
    await desk.logins.end(me, third.login_id)
    fourth = await desk.accounts.log_in(email, PASSWORD, PROGRAM)
    await desk.accounts.change_password(me, current=PASSWORD, new=NEW, client=PROGRAM)
    await desk.accounts.forgot(email)
    await desk.accounts.reset(await desk.mail(email, "reset"), PASSWORD)
    last = await desk.accounts.log_in(email, PASSWORD, PROGRAM)
    await desk.logins.end_all(principal_of(last))
    entries = await told(desk, me)
    program = {"client": "program", "method": "password"}
    assert said(entries) == [
        ("login.opened", str(first.login_id), {"client": "program", "method": "setup"}),
        ("login.opened", str(second.login_id), {"client": "browser", "method": "password"}),
        ("login.opened", str(third.login_id), program),
        ("login.ended", str(second.login_id), {"how": "logout"}),
        ("login.ended", str(third.login_id), {"how": "from-list"}),
        ("login.opened", str(fourth.login_id), program),
        ("password.changed", who, {"logins": 1}),
        ("password.reset", who, {"logins": 1}),
        ("login.opened", str(last.login_id), program),
        ("login.all-ended", who, {"logins": 1}),
    ]
    assert {entry.actor for entry in entries} == {who}
    by = [None, None, None, second.login_id, first.login_id, None, first.login_id, None, None, last.login_id]
    assert [entry.credential for entry in entries] == [str(one) if one else None for one in by]
    everything = repr(entries)
    tokens = [one.refresh for one in (first, second, third, fourth, last)]
    for secret in (email, email.partition("@")[0], PASSWORD, NEW, *tokens, PROGRAM.address):
        assert secret not in everything


async def test_a_refusal_is_told_where_it_concerns_somebody(desk: AccountDesk):
    email = desk.address()
    home = await desk.set_up(email)
    host = await make_member(desk, home, email)
    me, who = principal_of(home), str(home.user_id)
    log_in = desk.accounts.log_in
    assert await refused(log_in(email, WRONG, PROGRAM)) == "wrong_login"
    assert await refused(log_in(email, WRONG, PROGRAM, tenant_id=host.tenant_id)) == "wrong_login"
    stranger = principal_of(await desk.set_up(desk.address()))
    assert await refused(log_in(email, PASSWORD, PROGRAM, tenant_id=stranger.tenant_id)) == "wrong_login"
    await change_user(desk.parts.context.database, me, disabled_at=datetime.now(UTC))
    assert await refused(log_in(email, PASSWORD, PROGRAM, tenant_id=me.tenant_id)) == "wrong_login"
    assert await refused(log_in(desk.address(), PASSWORD, PROGRAM)) == "wrong_login"
    (there,) = await told(desk, host, "login.refused")
    here = await told(desk, me, "login.refused")
    assert said([there]) == [("login.refused", who, {"method": "password", "reason": "wrong_password"})]
    reasons = [json.loads(entry.detail)["reason"] for entry in here]
    assert sorted(reasons) == ["no_member", "no_member", "wrong_password"]
    assert {(entry.actor, entry.target, entry.credential) for entry in (there, *here)} == {(who, who, None)}
    assert await told(desk, stranger, "login.refused") == []


async def test_a_refusal_of_whoever_has_not_shown_the_address(desk: AccountDesk):
    """The first administrator of an installation, whose mail nobody has read yet, has no password either."""
    email = desk.address()
    settings = desk.parts.context.settings.model_copy(update={"admin_email": email})
    parts = replace(desk.parts, context=replace(desk.parts.context, settings=settings))
    await make_first_administrator(parts)
    assert await refused(desk.accounts.log_in(email, WRONG, PROGRAM)) == "wrong_login"
    owner = Principal(DEFAULT_TENANT_ID, DEFAULT_USER_ID)
    async with desk.parts.context.database.login_transaction() as connection:
        account = await repository.by_email(connection, email)
    assert account is not None
    mine = [one for one in said(await told(desk, owner)) if one[1] == str(account.id)]
    assert mine == [
        ("user.joined", str(account.id), {"by": "settings", "role": "admin"}),
        ("login.refused", str(account.id), {"method": "password", "reason": "wrong_password"}),
    ]


async def test_a_flood_of_guesses_does_not_fill_the_log(desk: AccountDesk):
    email = desk.address()
    me = principal_of(await desk.set_up(email))
    await asyncio.gather(*(refused(desk.accounts.log_in(email, WRONG, PROGRAM)) for _ in range(15)))
    assert len(await told(desk, me, "login.refused")) == trail.REFUSALS.times


async def test_what_concerns_the_account_is_told_to_all_its_tenants(desk: AccountDesk):
    email = desk.address()
    home = await desk.set_up(email)
    host = await make_member(desk, home, email)
    there = await desk.accounts.switch(principal_of(home), host.tenant_id, PROGRAM)
    await desk.accounts.log_in(email, PASSWORD, PROGRAM)
    await desk.accounts.change_password(principal_of(there), current=PASSWORD, new=NEW, client=PROGRAM)
    (changed,) = await told(desk, host, "password.changed")
    (also,) = await told(desk, principal_of(home), "password.changed")
    assert (changed.credential, changed.detail) == (str(there.login_id), '{"logins":0}')
    assert (also.credential, also.detail) == (None, '{"logins":1}')
    (switched,) = said(await told(desk, principal_of(home), "login.ended"))
    assert switched == ("login.ended", str(home.login_id), {"how": "switch"})


async def test_a_stolen_token_is_told_once(desk: AccountDesk):
    tokens = await desk.set_up(desk.address())
    me = principal_of(tokens)
    await desk.logins.refresh(tokens.refresh, PROGRAM)
    async with desk.parts.context.database.transaction(me.tenant_id) as tx:
        long_ago = datetime.now(UTC) - timedelta(seconds=60)
        mine = update(logins).where(logins.c.tenant_id == me.tenant_id, logins.c.id == tokens.login_id)
        await tx.connection.execute(mine.values(refreshed_at=long_ago))
    await asyncio.gather(*(refused(desk.logins.refresh(tokens.refresh, PROGRAM)) for _ in range(8)))
    other = await desk.set_up(desk.address())
    assert await refused(desk.logins.refresh(other.refresh, BROWSER)) == "login_ended"
    assert said(await told(desk, me, "login.revoked")) == [
        ("login.revoked", str(tokens.login_id), {"reason": "reused"})
    ]
    assert said(await told(desk, principal_of(other), "login.revoked")) == [
        ("login.revoked", str(other.login_id), {"reason": "other_client"})
    ]


async def test_who_loses_the_race_for_an_account_is_out_again(desk: AccountDesk, monkeypatch: pytest.MonkeyPatch):
    host = principal_of(await desk.set_up(desk.address()))
    email = desk.address()
    inviting = InvitationService(desk.parts)
    await inviting.invite(host, email, Role.USER)
    token = await desk.mail(email, "invite")

    async def taken(*_: object) -> None:
        raise IntegrityError("x", {}, Exception())

    monkeypatch.setattr(repository, "add", taken)
    with pytest.raises(Conflict):
        await inviting.accept(token, name="Grace", password=PASSWORD)
    joined, removed = (await told(desk, host))[-2:]
    assert (joined.action, removed.action) == ("user.joined", "user.removed")
    assert joined.target == removed.target
    monkeypatch.undo()
    assert await inviting.accept(token, name="Grace", password=PASSWORD) == host.tenant_id
