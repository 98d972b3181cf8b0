"""Who calls.

Plan: over each database, what is presented becomes the principal that it was made for, with the rights that its owner
has now, cut to the key's scopes; what is missing, unknown, mistyped, expired, revoked or of a disabled user is refused,
each with its code; a key is looked up in its own tenant alone; a known caller costs no look-up, and a revocation or a
change of role is felt at once, over the bus of several gateways, too; the time of use is written once a minute at most.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select
from tests.support.people import change_key, change_user, new_key, new_team, new_user
from tests.support.state import new_principal, open_state
from tests.support.tenancy import statements_of

from carrel_gateway.context import Principal, ProcessContext
from carrel_gateway.errors import Unauthenticated
from carrel_gateway.identity.authenticator import Authenticator
from carrel_gateway.identity.keys import InstallationKey
from carrel_gateway.identity.presented import Kind, digest_of, make
from carrel_gateway.identity.revocations import announce
from carrel_gateway.identity.rights import ALL_RIGHTS, Right, Role, rights_of
from carrel_gateway.identity.service import default_principal
from carrel_gateway.identity.tables import api_keys
from carrel_gateway.settings import Settings
from carrel_gateway.storage.ids import new_id

PAST = datetime.now(UTC) - timedelta(seconds=1)


@pytest.fixture
async def authenticator(context: ProcessContext) -> AsyncIterator[Authenticator]:
    made = Authenticator(context, InstallationKey("right"))
    yield made
    await made.aclose()


@pytest.fixture
async def user(context: ProcessContext, principal: Principal) -> Principal:
    return await new_user(context.database, principal.tenant_id)


async def refusal(authenticator: Authenticator, presented: str | None) -> str:
    with pytest.raises(Unauthenticated) as caught:
        await authenticator.authenticate(presented)
    assert presented is None or len(presented) < 8 or presented not in caught.value.message
    return caught.value.code


async def until(done: Callable[[], bool]) -> None:
    for _ in range(1000):
        if done():
            return
        await asyncio.sleep(0.01)
    pytest.fail("it did not come")


async def outcome(authenticator: Authenticator, presented: str) -> str:
    try:
        await authenticator.authenticate(presented)
    except Unauthenticated as error:
        return error.code
    return "accepted"


# ---------------------------------------------------------------------- who it is


async def test_the_key_of_the_installation_is_the_administrator(authenticator: Authenticator) -> None:
    assert await authenticator.authenticate("right") == default_principal()
    assert default_principal().rights == ALL_RIGHTS
    assert [await refusal(authenticator, nothing) for nothing in (None, "")] == ["unauthenticated"] * 2
    for wrong in ("Right", "right ", "x" * 10_000, "ключ", "\udcff", make(Kind.TICKET, new_id())):
        assert await refusal(authenticator, wrong) == "wrong_key"


async def test_without_one_the_empty_key_is_none(context: ProcessContext) -> None:
    without = Authenticator(context, None)
    assert await refusal(without, "") == "unauthenticated"
    assert await refusal(without, "right") == "wrong_key"
    await without.aclose()


@pytest.mark.parametrize("role", list(Role))
async def test_a_key_is_its_owner(
    context: ProcessContext, principal: Principal, authenticator: Authenticator, role: Role
) -> None:
    owner = await new_user(context.database, principal.tenant_id, role)
    teams = {await new_team(context.database, owner) for _ in range(2)}
    key, key_id = await new_key(context.database, owner)
    assert await authenticator.authenticate(key) == Principal(
        owner.tenant_id, owner.user_id, role, rights_of(role), key_id, frozenset(teams)
    )


async def test_scopes_are_cut_to_the_owners_rights_at_the_time_of_use(
    context: ProcessContext, user: Principal, authenticator: Authenticator
) -> None:
    scopes = [Right.SESSIONS_READ, Right.KERNEL_EXECUTE, Right.TENANT_ADMIN, "no:such"]
    key, _ = await new_key(context.database, user, scopes=scopes)
    assert (await authenticator.authenticate(key)).rights == {Right.SESSIONS_READ, Right.KERNEL_EXECUTE}
    for role, rights in ((Role.READONLY, {Right.SESSIONS_READ}), (Role.ADMIN, set(scopes) - {"no:such"})):
        await change_user(context.database, user, role=role.value)
        await announce(context.bus, user.tenant_id, user.user_id)
        await asyncio.sleep(0.05)
        assert (await authenticator.authenticate(key)).rights == rights
    nothing, _ = await new_key(context.database, user, scopes=[])
    assert (await authenticator.authenticate(nothing)).rights == frozenset()


async def test_what_is_over_is_refused(context: ProcessContext, user: Principal, authenticator: Authenticator) -> None:
    for columns, code in (({"revoked_at": PAST}, "revoked"), ({"expires_at": PAST}, "expired")):
        key, _ = await new_key(context.database, user, **columns)
        assert await refusal(authenticator, key) == code
    key, _ = await new_key(context.database, user, expires_at=None)
    await change_user(context.database, user, disabled_at=PAST)
    assert await refusal(authenticator, key) == "disabled"
    assert await refusal(authenticator, make(Kind.KEY, user.tenant_id)) == "wrong_key"
    assert await refusal(authenticator, make(Kind.KEY, new_id())) == "wrong_key"


async def test_a_key_is_looked_up_in_its_own_tenant_alone(
    context: ProcessContext, user: Principal, authenticator: Authenticator
) -> None:
    """A row that another tenant's database would have under the same digest is not what the key names."""
    stranger = await new_principal(context.database)
    key = make(Kind.KEY, stranger.tenant_id)
    await new_key(context.database, user, digest=digest_of(key).hex())
    assert await refusal(authenticator, key) == "wrong_key"


# ---------------------------------------------------------------------- what it costs


async def test_a_known_caller_costs_no_look_up_and_a_revocation_is_felt_at_once(
    context: ProcessContext, user: Principal, authenticator: Authenticator
) -> None:
    key, key_id = await new_key(context.database, user)
    await authenticator.authenticate(key)
    await until(lambda: authenticator._cache.mark(user.tenant_id) is not None)
    with statements_of(context.database) as seen:
        known = await authenticator.authenticate(key)
        assert len(seen) == 1
        assert "api_keys" in seen[0]
        for _ in range(10):
            assert await authenticator.authenticate(key) is known
        assert len(seen) == 1
    await change_key(context.database, user, key_id, revoked_at=datetime.now(UTC))
    assert await authenticator.authenticate(key) is known  # nobody has said so yet
    await announce(context.bus, user.tenant_id, key_id)
    await asyncio.sleep(0.05)
    assert await refusal(authenticator, key) == "revoked"


async def test_over_redis_other_gateways_forget_it_too(
    make_settings: Callable[..., Settings], postgres_url: str, redis_url: str
) -> None:
    """One gateway revokes, another one has it in its cache."""
    shared = make_settings(database_url=postgres_url, redis_url=redis_url)
    async with AsyncExitStack() as stack:
        one, two = [await stack.enter_async_context(open_state(shared)) for _ in range(2)]
        user = await new_user(one.database, (await new_principal(one.database)).tenant_id)
        key, key_id = await new_key(one.database, user)
        authenticator = Authenticator(two, None)
        stack.push_async_callback(authenticator.aclose)
        await until(lambda: one.bus.healthy and two.bus.healthy)
        await authenticator.authenticate(key)
        await until(lambda: authenticator._cache.mark(user.tenant_id) is not None)
        known = await authenticator.authenticate(key)
        await change_key(one.database, user, key_id, revoked_at=datetime.now(UTC))
        assert await authenticator.authenticate(key) is known
        await announce(one.bus, user.tenant_id, key_id)
        found = "accepted"
        for _ in range(1000):
            found = await outcome(authenticator, key)
            if found != "accepted":
                break
            await asyncio.sleep(0.01)
        assert found == "revoked"


async def test_use_is_noted_once_a_minute_and_off_the_way(
    context: ProcessContext, user: Principal, authenticator: Authenticator
) -> None:
    key, key_id = await new_key(context.database, user)

    async def used() -> datetime | None:
        async with context.database.transaction(user.tenant_id, write=False) as tx:
            query = select(api_keys.c.used_at).where(api_keys.c.tenant_id == user.tenant_id, api_keys.c.id == key_id)
            return await tx.connection.scalar(query)

    await authenticator.authenticate(key)
    assert await used() is None
    await authenticator.note_used()
    first = await used()
    assert first is not None
    await authenticator.authenticate(key)
    authenticator._used[key_id] = user.tenant_id  # as another gateway would, which has not seen it
    await authenticator.note_used()
    assert await used() == first
    long_ago = first - timedelta(minutes=2)
    await change_key(context.database, user, key_id, used_at=long_ago)
    await announce(context.bus, user.tenant_id, key_id)
    await asyncio.sleep(0.05)
    await authenticator.authenticate(key)
    await authenticator.note_used()
    again = await used()
    assert again is not None
    assert again >= first
