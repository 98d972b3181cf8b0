"""Accounts, over SQLite and Postgres.

Plan: whoever reads the mail sets an account up, once, in a tenant of its own; who may register; no answer tells whether
there is an account; a password is chosen by mail once, changed with the current one, and each ends the logins that it
should; hashes follow the parameters; tenants are switched; a disabled person gets nowhere.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from argon2 import PasswordHasher
from tests.support.account_desk import BROWSER, PASSWORD, PROGRAM, AccountDesk, account_desk, principal_of
from tests.support.mailbox import mails
from tests.support.people import change_user, new_user
from tests.support.state import new_principal

from carrel_gateway.accounts import repository
from carrel_gateway.accounts.first import AdminAddressUnusable, make_first_administrator
from carrel_gateway.accounts.links import Links
from carrel_gateway.accounts.passwords import Passwords
from carrel_gateway.accounts.profile import ProfileService
from carrel_gateway.accounts.service import AccountService
from carrel_gateway.context import Principal
from carrel_gateway.errors import (
    CarrelError,
    Conflict,
    InvalidInput,
    NotFound,
    PermissionDenied,
    TooMany,
    Unauthenticated,
)
from carrel_gateway.identity.rights import Role
from carrel_gateway.identity.service import DEFAULT_TENANT_ID
from carrel_gateway.storage.ids import new_id

OTHER = "another long password"


@pytest.fixture
def settings(settings):
    return settings.model_copy(update={"registration": "open"})


@pytest.fixture
async def desk(context):
    async with account_desk(context) as opened:
        yield opened


async def code_of(work) -> str:
    with pytest.raises(CarrelError) as caught:
        await work
    return caught.value.code


async def test_an_account_is_set_up_by_mail_in_a_tenant_of_its_own(desk: AccountDesk):
    email = desk.address()
    tokens = await desk.set_up(email)
    profile = await ProfileService(desk.parts.context, principal_of(tokens)).get()
    assert (profile.member.email, profile.member.name, profile.member.role) == (email, "Ada", Role.ADMIN)
    assert [one.tenant_id for one in profile.tenants] == [tokens.tenant_id]
    other = await desk.set_up(desk.address())
    assert other.tenant_id != tokens.tenant_id
    again = await desk.accounts.log_in(email, PASSWORD, PROGRAM)
    assert (again.user_id, again.tenant_id) == (tokens.user_id, tokens.tenant_id)
    assert again.login_id != tokens.login_id
    claims = desk.parts.context.tokens.verify(again.access.token)
    assert (claims.tenant_id, claims.user_id, claims.login_id) == (again.tenant_id, again.user_id, again.login_id)


async def test_a_mail_sets_up_one_account(desk: AccountDesk):
    email = desk.address()
    await desk.accounts.register(email)
    token = await desk.mail(email, "setup")
    answers = await asyncio.gather(
        *(desk.accounts.set_up(token, name=f"n{n}", password=PASSWORD, client=PROGRAM) for n in range(6)),
        return_exceptions=True,
    )
    (made,) = [one for one in answers if not isinstance(one, Exception)]
    assert {one.code for one in answers if isinstance(one, CarrelError)} == {"already_registered"}
    assert (await desk.accounts.log_in(email, PASSWORD, PROGRAM)).tenant_id == made.tenant_id


@pytest.mark.parametrize(
    ("registration", "email", "may"),
    [
        ("closed", "a@example.org", False),
        ("open", "a@example.org", True),
        ("example.org, example.com", "a@example.com", True),
        ("Example.org", "a@example.org", True),
        ("example.org", "a@sub.example.org", False),
        ("example.org", "a@notexample.org", False),
        ("", "a@example.org", False),
    ],
)
async def test_who_may_register(desk: AccountDesk, registration, email, may):
    context = desk.parts.context
    own = replace(context, settings=context.settings.model_copy(update={"registration": registration}))
    accounts = AccountService(replace(desk.parts, context=own))
    token = Links(own.secrets, own.settings).setup(email).partition("=")[2]
    if may:
        await accounts.register(email)
    else:
        assert await code_of(accounts.register(email)) == "registration_closed"
        setting_up = accounts.set_up(token, name="n", password=PASSWORD, client=PROGRAM)
        assert await code_of(setting_up) == "registration_closed"


async def test_no_answer_tells_who_has_an_account(desk: AccountDesk):
    known, unknown = desk.address(), desk.address()
    await desk.set_up(known)
    for email in (known, unknown):
        assert await desk.accounts.register(email) is None
        assert await desk.accounts.forgot(email) is None
    said = []
    for email, password in [
        (known, OTHER),
        (unknown, PASSWORD),
        (known, "short"),
        (unknown, "short"),
        (known, "\udcff"),
    ]:
        with pytest.raises(Unauthenticated) as caught:
            await desk.accounts.log_in(email, password, PROGRAM)
        said.append((caught.value.code, caught.value.message))
    assert len(set(said)) == 1
    assert "have an account" in (await desk.mail(known))["Subject"] or "Choose" in (await desk.mail(known))["Subject"]
    assert (await desk.mail(unknown))["Subject"] == "Set up your account of Carrel"


async def test_whoever_registers_again_is_told_by_mail(desk: AccountDesk):
    email = desk.address()
    await desk.set_up(email)
    await desk.accounts.register(email)
    mail = await desk.mail(email)
    assert mail["Subject"] == "You have an account of Carrel"
    assert "#setup=" not in mail.get_content()


async def test_the_work_is_the_same_for_whoever_is_unknown(desk: AccountDesk):
    known = desk.address()
    await desk.set_up(known)
    seen = []

    class Counting(Passwords):
        async def verify(self, stored, password):
            seen.append(stored is not None)
            return await super().verify(stored, password)

    accounts = AccountService(replace(desk.parts, passwords=Counting(desk.parts.passwords._hasher)))
    for email in (known, desk.address()):
        await code_of(accounts.log_in(email, OTHER, PROGRAM))
    assert seen == [True, False]


async def test_guessing_is_limited(desk: AccountDesk):
    email = desk.address()
    await desk.set_up(email)
    codes = [await code_of(desk.accounts.log_in(email, OTHER, PROGRAM)) for _ in range(25)]
    assert codes[:18] == ["wrong_login"] * 18
    assert codes[-1] == "too_many_attempts"
    with pytest.raises(TooMany) as caught:  # the right password does not get through either
        await desk.accounts.log_in(email, PASSWORD, PROGRAM)
    assert 0 < caught.value.retry_after_seconds <= 300
    elsewhere = replace(PROGRAM, address="192.0.2.1")
    assert await desk.accounts.log_in(email, PASSWORD, elsewhere)


async def test_mail_to_one_address_is_limited(desk: AccountDesk):
    email = desk.address()
    for _ in range(5):
        await desk.accounts.forgot(email)
    assert await code_of(desk.accounts.register(email)) == "too_many_attempts"


async def test_a_password_is_chosen_by_mail_once(desk: AccountDesk):
    email = desk.address()
    tokens = await desk.set_up(email)
    await desk.accounts.forgot(email)
    token = await desk.mail(email, "reset")
    assert await code_of(desk.accounts.reset(token, "short")) == "invalid_password"
    answers = await asyncio.gather(
        *(desk.accounts.reset(token, f"{OTHER} {n}") for n in range(5)), return_exceptions=True
    )
    (chosen,) = [n for n, answer in enumerate(answers) if answer is None]
    assert {one.code for one in answers if one is not None} == {"link_not_valid"}
    assert await code_of(desk.accounts.log_in(email, PASSWORD, PROGRAM)) == "wrong_login"
    assert await desk.accounts.log_in(email, f"{OTHER} {chosen}", PROGRAM)
    assert await code_of(desk.logins.refresh(tokens.refresh, PROGRAM)) == "login_ended"
    assert (await desk.mail(email))["Subject"] == "Your password of Carrel was changed"


async def test_nobody_gets_mail_for_an_account_that_is_not_there(desk: AccountDesk):
    email = desk.address()
    await desk.accounts.forgot(email)
    assert await desk.mail(email) is None


async def test_links_are_for_what_they_were_made_for(desk: AccountDesk):
    context = desk.parts.context
    email = desk.address()
    await desk.set_up(email)
    await desk.accounts.forgot(email)
    reset = await desk.mail(email, "reset")
    setup = Links(context.secrets, context.settings).setup(desk.address()).partition("=")[2]
    old = Links(context.secrets, context.settings, clock=lambda: 0).setup(desk.address()).partition("=")[2]
    for token in (reset, old, "", "k1.AAAA", setup[:-1], f"{setup}A", "\u00e9", "\udcff", "x" * 100_000):
        with pytest.raises(InvalidInput, match="have another one sent"):
            await desk.accounts.set_up(token, name="n", password=PASSWORD, client=PROGRAM)
    with pytest.raises(InvalidInput, match="have another one sent"):
        await desk.accounts.reset(setup, PASSWORD)


async def test_the_password_is_changed_with_the_current_one_and_other_logins_end(desk: AccountDesk):
    email = desk.address()
    first = await desk.set_up(email)
    second = await desk.accounts.log_in(email, PASSWORD, BROWSER)
    me = principal_of(second)

    async def change(current, new, principal=me):
        await desk.accounts.change_password(principal, current=current, new=new, client=PROGRAM)

    assert await code_of(change(OTHER, OTHER)) == "wrong_password"
    assert await code_of(change(PASSWORD, "short")) == "invalid_password"
    assert await code_of(change(PASSWORD, OTHER, replace(me, credential_id=new_id()))) == "not_a_login"
    assert await code_of(change(PASSWORD, OTHER, replace(me, rights=frozenset()))) == "permission_denied"
    await change(PASSWORD, OTHER)
    assert await code_of(desk.logins.refresh(first.refresh, PROGRAM)) == "login_ended"
    await desk.logins.refresh(second.refresh, BROWSER)
    assert await desk.accounts.log_in(email, OTHER, PROGRAM)


async def test_hashes_follow_the_parameters(desk: AccountDesk):
    email = desk.address()
    tokens = await desk.set_up(email)
    newer = Passwords(PasswordHasher(time_cost=2, memory_cost=64, parallelism=1))
    accounts = AccountService(replace(desk.parts, passwords=newer))

    async def stored():
        async with desk.parts.context.database.login_transaction() as connection:
            return (await repository.by_id(connection, tokens.user_id)).password_hash

    assert newer.is_outdated(await stored())
    await accounts.log_in(email, PASSWORD, PROGRAM)
    assert not newer.is_outdated(await stored())
    await accounts.log_in(email, PASSWORD, PROGRAM)
    await newer.aclose()


async def test_a_disabled_person_gets_nowhere(desk: AccountDesk):
    email = desk.address()
    tokens = await desk.set_up(email)
    now = (await desk.logins.list(principal_of(tokens)))[0].created_at
    await change_user(desk.parts.context.database, principal_of(tokens), disabled_at=now)
    assert await code_of(desk.accounts.log_in(email, PASSWORD, PROGRAM)) == "wrong_login"
    assert await code_of(desk.logins.refresh(tokens.refresh, PROGRAM)) == "login_ended"


async def join(desk: AccountDesk, user_id, role: Role) -> Principal:
    """Make a person a member of another tenant, as an invitation does."""
    other = await new_principal(desk.parts.context.database)
    async with desk.parts.context.database.transaction(other.tenant_id) as tx:
        await repository.add_member(tx, user_id, name="Ada", email="ada@example.org", role=role)
    async with desk.parts.context.database.login_transaction() as connection:
        await repository.join(connection, user_id, other.tenant_id)
    return other


async def test_the_first_administrator(desk: AccountDesk):
    email = desk.address()
    settings = desk.parts.context.settings.model_copy(update={"admin_email": email.upper(), "registration": "closed"})
    parts = replace(desk.parts, context=replace(desk.parts.context, settings=settings))
    await asyncio.gather(*(make_first_administrator(parts) for _ in range(3)))
    await make_first_administrator(parts)
    token = await desk.mail(email, "reset")
    assert len(mails(settings.data_dir, email)) == 1
    assert await code_of(desk.accounts.log_in(email, PASSWORD, PROGRAM)) == "wrong_login"
    await desk.accounts.reset(token, PASSWORD)
    tokens = await desk.accounts.log_in(email, PASSWORD, PROGRAM)
    assert tokens.tenant_id == DEFAULT_TENANT_ID
    profile = await ProfileService(desk.parts.context, principal_of(tokens)).get()
    assert (profile.member.role, profile.member.email) == (Role.ADMIN, email)
    wrong = parts.context.settings.model_copy(update={"admin_email": "nobody"})
    with pytest.raises(AdminAddressUnusable, match="CARREL_ADMIN_EMAIL"):
        await make_first_administrator(replace(parts, context=replace(parts.context, settings=wrong)))


async def test_tenants_are_switched(desk: AccountDesk):
    email = desk.address()
    tokens = await desk.set_up(email)
    other = await join(desk, tokens.user_id, Role.READONLY)
    me = principal_of(tokens)
    assert await code_of(desk.accounts.switch(me, new_id(), PROGRAM)) == "tenant_not_found"
    stranger = await new_user(desk.parts.context.database, other.tenant_id)
    assert await code_of(desk.accounts.switch(stranger, tokens.tenant_id, PROGRAM)) == "not_a_login"
    moved = await desk.accounts.switch(me, other.tenant_id, PROGRAM)
    assert (moved.tenant_id, moved.user_id) == (other.tenant_id, tokens.user_id)
    assert await code_of(desk.logins.refresh(tokens.refresh, PROGRAM)) == "login_ended"
    profile = await ProfileService(desk.parts.context, principal_of(moved)).get()
    assert profile.member.role == Role.READONLY
    assert {one.tenant_id for one in profile.tenants} == {tokens.tenant_id, other.tenant_id}
    assert (await desk.accounts.log_in(email, PASSWORD, PROGRAM)).tenant_id == tokens.tenant_id
    there = await desk.accounts.log_in(email, PASSWORD, PROGRAM, tenant_id=other.tenant_id)
    assert there.tenant_id == other.tenant_id
    assert await code_of(desk.accounts.log_in(email, PASSWORD, PROGRAM, tenant_id=new_id())) == "wrong_login"


async def test_logging_out_everywhere_is_in_all_tenants(desk: AccountDesk):
    email = desk.address()
    home = await desk.set_up(email)
    other = await join(desk, home.user_id, Role.USER)
    there = await desk.accounts.log_in(email, PASSWORD, PROGRAM, tenant_id=other.tenant_id)
    await desk.logins.end_all(principal_of(home))
    for tokens in (home, there):
        assert await code_of(desk.logins.refresh(tokens.refresh, PROGRAM)) == "login_ended"


async def test_profile_and_preferences(desk: AccountDesk):
    me = principal_of(await desk.set_up(desk.address()))
    profiles = ProfileService(desk.parts.context, me)
    assert (await profiles.rename("Ada Lovelace")).member.name == "Ada Lovelace"
    assert await profiles.preferences() == {}
    wanted = {"theme": "dark", "columns": [1, 2.5, None], "note": "a\0b\u2028"}
    await profiles.set_preferences(wanted)
    assert await profiles.preferences() == wanted
    assert await code_of(profiles.set_preferences({"x": "y" * 20_000})) == "too_large"
    deep: list = []
    for _ in range(100_000):
        deep = [deep]
    for value in ("\ud800", deep):
        assert await code_of(profiles.set_preferences({"x": value})) == "invalid_input"
    assert await profiles.preferences() == wanted
    nobody = ProfileService(desk.parts.context, replace(me, rights=frozenset()))
    for work in (nobody.get(), nobody.rename("x"), nobody.preferences(), nobody.set_preferences({})):
        with pytest.raises(PermissionDenied):
            await work
    with pytest.raises(NotFound):
        await ProfileService(desk.parts.context, replace(me, user_id=new_id())).get()
    with pytest.raises(Conflict):
        await desk.accounts.found_tenant(profile_email(await profiles.get()), name="x", password_hash=None)


def profile_email(profile) -> str:
    return profile.member.email
