"""Logins and their refresh tokens, over SQLite and Postgres.

Plan: a refresh exchanges the token; of twenty at once one gets the next token and the login stands; an old token that
comes back later ends the login, and so does one from another client; one that was made up ends nothing; a login that is
not used ends; ended logins are told to all gateways; nothing is stored from which a token could be had; what ended long
ago is deleted.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select, update
from tests.support.account_desk import BROWSER, PASSWORD, PROGRAM, AccountDesk, account_desk, principal_of
from tests.support.people import new_user

from carrel_gateway.accounts.parts import Client
from carrel_gateway.accounts.refreshing import RefreshTokens
from carrel_gateway.accounts.service import Tokens
from carrel_gateway.errors import CarrelError, Conflict, NotFound, Unauthenticated
from carrel_gateway.identity.revocations import channel_of, read
from carrel_gateway.identity.secrets import MasterKey, MasterKeys
from carrel_gateway.identity.tables import logins
from carrel_gateway.storage.ids import new_id

AT_ONCE = 20


@pytest.fixture
def settings(settings):
    return settings.model_copy(update={"registration": "open"})


@pytest.fixture
async def desk(context):
    async with account_desk(context) as opened:
        yield opened


@pytest.fixture
async def tokens(desk: AccountDesk) -> Tokens:
    return await desk.set_up(desk.address())


async def code_of(work) -> str:
    with pytest.raises(CarrelError) as caught:
        await work
    return caught.value.code


async def change_login(desk: AccountDesk, tokens: Tokens, **columns) -> None:
    async with desk.parts.context.database.transaction(tokens.tenant_id) as tx:
        await tx.connection.execute(
            update(logins)
            .where(logins.c.tenant_id == tokens.tenant_id, logins.c.id == tokens.login_id)
            .values(**columns)
        )


async def make_old(desk: AccountDesk, tokens: Tokens) -> None:
    """Let the last exchange be longer ago than a race takes."""
    await change_login(desk, tokens, refreshed_at=datetime.now(UTC) - timedelta(seconds=60))


async def test_a_refresh_exchanges_the_token(desk: AccountDesk, tokens: Tokens):
    seen = {tokens.refresh}
    for _ in range(3):
        tokens = await desk.logins.refresh(tokens.refresh, PROGRAM)
        assert desk.parts.context.tokens.verify(tokens.access.token).login_id == tokens.login_id
        seen.add(tokens.refresh)
    assert len(seen) == 4
    (login,) = await desk.logins.list(principal_of(tokens))
    assert login.generation == 3


async def test_of_twenty_at_once_one_wins_and_the_login_stands(desk: AccountDesk, tokens: Tokens):
    for _ in range(3):
        answers = await asyncio.gather(
            *(desk.logins.refresh(tokens.refresh, PROGRAM) for _ in range(AT_ONCE)), return_exceptions=True
        )
        won = [one for one in answers if isinstance(one, Tokens)]
        lost = [one for one in answers if isinstance(one, Conflict)]
        assert (len(won), len(lost)) == (1, AT_ONCE - 1), answers
        assert {one.code for one in lost} == {"refresh_raced"}
        (tokens,) = won
    (login,) = await desk.logins.list(principal_of(tokens))
    assert login.generation == 3


async def test_an_old_token_that_comes_back_ends_the_login(desk: AccountDesk, tokens: Tokens):
    newest = await desk.logins.refresh(tokens.refresh, PROGRAM)
    await make_old(desk, tokens)
    assert await code_of(desk.logins.refresh(tokens.refresh, PROGRAM)) == "login_ended"
    assert await code_of(desk.logins.refresh(newest.refresh, PROGRAM)) == "login_ended"
    assert await desk.logins.list(principal_of(tokens)) == []


async def test_one_older_than_the_last_is_no_race(desk: AccountDesk, tokens: Tokens):
    second = await desk.logins.refresh(tokens.refresh, PROGRAM)
    third = await desk.logins.refresh(second.refresh, PROGRAM)
    assert await code_of(desk.logins.refresh(tokens.refresh, PROGRAM)) == "login_ended"
    assert await code_of(desk.logins.refresh(third.refresh, PROGRAM)) == "login_ended"


async def test_twenty_thieves_at_once_get_nothing(desk: AccountDesk, tokens: Tokens):
    newest = await desk.logins.refresh(tokens.refresh, PROGRAM)
    await make_old(desk, tokens)
    answers = await asyncio.gather(
        *(desk.logins.refresh(tokens.refresh, PROGRAM) for _ in range(AT_ONCE)), return_exceptions=True
    )
    assert all(isinstance(one, Unauthenticated) for one in answers), answers
    assert await code_of(desk.logins.refresh(newest.refresh, PROGRAM)) == "login_ended"


@pytest.mark.parametrize(
    ("client", "same"),
    [
        (PROGRAM, True),
        (Client("program", "carrel-sdk/2.17", "192.0.2.9"), True),
        (Client("program", "curl/8.5", "127.0.0.1"), False),
        (Client("browser", "carrel-sdk/1.0", "127.0.0.1"), False),
    ],
)
async def test_a_token_belongs_to_its_client(desk: AccountDesk, tokens: Tokens, client, same):
    if same:
        await desk.logins.refresh(tokens.refresh, client)
        return
    assert await code_of(desk.logins.refresh(tokens.refresh, client)) == "login_ended"
    assert await code_of(desk.logins.refresh(tokens.refresh, PROGRAM)) == "login_ended"


async def test_a_token_that_was_made_up_ends_nothing(desk: AccountDesk, tokens: Tokens):
    forger = RefreshTokens(MasterKeys([MasterKey("k1", bytes(32))]))
    own = desk.parts.refresh
    made_up = [
        forger.make(tokens.tenant_id, tokens.login_id, 0).text,
        tokens.refresh[:-1] + ("A" if tokens.refresh[-1] != "A" else "E"),
        "",
        "crf_",
        "x" * 100_000,
        "\u00e9" * 122,
    ]
    unknown = [own.make(tokens.tenant_id, new_id(), 0).text, own.make(new_id(), tokens.login_id, 0).text]
    for text in made_up + unknown:
        assert await code_of(desk.logins.refresh(text, PROGRAM)) == "login_ended"
    await desk.logins.refresh(tokens.refresh, PROGRAM)


async def test_a_login_that_is_not_used_ends_and_each_use_prolongs_it(desk: AccountDesk, tokens: Tokens):
    await change_login(desk, tokens, expires_at=datetime.now(UTC) + timedelta(minutes=5))
    tokens = await desk.logins.refresh(tokens.refresh, PROGRAM)
    (login,) = await desk.logins.list(principal_of(tokens))
    assert login.expires_at > datetime.now(UTC) + timedelta(days=29)
    await change_login(desk, tokens, expires_at=datetime.now(UTC) - timedelta(seconds=1))
    assert await code_of(desk.logins.refresh(tokens.refresh, PROGRAM)) == "login_ended"
    assert await desk.logins.list(principal_of(tokens)) == []


async def test_ended_logins_are_told_to_all_gateways(desk: AccountDesk, tokens: Tokens):
    bus = desk.parts.context.bus
    other = await desk.accounts.log_in(await address_of(desk, tokens), PASSWORD, BROWSER)
    third = await desk.accounts.log_in(await address_of(desk, tokens), PASSWORD, PROGRAM)
    async with bus.subscribe(channel_of(tokens.tenant_id)) as news:

        async def heard():
            return read(await asyncio.wait_for(anext(news), 10))

        await desk.logins.end_current(principal_of(tokens))
        assert await heard() == tokens.login_id
        await make_old(desk, other)
        assert await code_of(desk.logins.refresh(other.refresh, PROGRAM)) == "login_ended"
        assert await heard() == other.login_id
        await desk.logins.end_all(principal_of(third))
        assert await heard() == third.login_id


async def address_of(desk: AccountDesk, tokens: Tokens) -> str:
    from carrel_gateway.accounts.profile import ProfileService

    return (await ProfileService(desk.parts.context, principal_of(tokens)).get()).member.email


async def test_whose_logins_are_ended(desk: AccountDesk, tokens: Tokens):
    colleague = await new_user(desk.parts.context.database, tokens.tenant_id)
    stranger = principal_of(await desk.set_up(desk.address()))
    for other in (colleague, stranger):
        assert tokens.login_id not in [login.id for login in await desk.logins.list(other)]
        with pytest.raises(NotFound):
            await desk.logins.end(other, tokens.login_id)
    assert await code_of(desk.logins.end_current(colleague)) == "not_a_login"
    assert await code_of(desk.logins.end_all(colleague)) == "not_a_login"
    await desk.logins.end(principal_of(tokens), tokens.login_id)
    assert await code_of(desk.logins.end(principal_of(tokens), tokens.login_id)) == "login_not_found"


async def test_no_token_can_be_had_from_what_is_stored(desk: AccountDesk, tokens: Tokens):
    async with desk.parts.context.database.transaction(tokens.tenant_id, write=False) as tx:
        rows = (await tx.connection.execute(select(logins).where(logins.c.tenant_id == tokens.tenant_id))).all()
    assert rows
    stored = repr(rows)
    assert tokens.refresh not in stored
    assert tokens.refresh[-24:] not in stored
    assert tokens.access.token not in stored


async def test_what_ended_long_ago_is_deleted(desk: AccountDesk, tokens: Tokens):
    standing = await desk.accounts.log_in(await address_of(desk, tokens), PASSWORD, PROGRAM)
    long_ago = datetime.now(UTC) - timedelta(days=31)
    ended = await desk.accounts.log_in(await address_of(desk, tokens), PASSWORD, PROGRAM)
    await desk.logins.end(principal_of(ended), ended.login_id)
    await change_login(desk, tokens, expires_at=long_ago)
    assert await desk.logins.sweep() >= 1
    async with desk.parts.context.database.transaction(tokens.tenant_id, write=False) as tx:
        kept = (await tx.connection.scalars(select(logins.c.id).where(logins.c.tenant_id == tokens.tenant_id))).all()
    assert set(kept) == {standing.login_id, ended.login_id}
