"""Idempotency keys over both databases.

Plan: a key is claimed once, also when many try at the same time, and answers the same until it expires; another
request under it is refused; a request that did nothing gives the key back; what a dead gateway left is done again with
the same id when that is safe, and otherwise said to be unknown; a claim that was lost settles nothing; users and
tenants do not share keys; expired rows are swept. An upload that is tried again stores each file once.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import func, select, update
from tests.support.state import chunks_of, collected, new_principal

from carrel_gateway.artifacts.service import ArtifactService
from carrel_gateway.context import Principal, ProcessContext
from carrel_gateway.errors import Conflict, KeyReused
from carrel_gateway.idempotency.service import MAX_ANSWER_BYTES, Answer, Claim, Effect, IdempotencyService
from carrel_gateway.idempotency.tables import idempotency_keys
from carrel_gateway.storage.ids import new_id

OPERATION = "POST /api/things"
ANSWER = Answer(201, {"content-type": "application/json"}, b'{"id": 1}')


@pytest.fixture
def keys(context: ProcessContext, principal: Principal) -> IdempotencyService:
    return IdempotencyService(context, principal)


async def begin(keys: IdempotencyService, *, body: str | None = "a", repeatable: bool = True, **named: str) -> Any:
    return await keys.begin(named.get("key", "key"), named.get("operation", OPERATION), body, repeatable=repeatable)


async def age(context: ProcessContext, principal: Principal, *, lease: bool = False, expiry: bool = False) -> None:
    """Let time pass: the lease, or the day, is over."""
    async with context.database.transaction(principal.tenant_id) as tx:
        past = tx.dialect.later(-1)
        values = {**({"lease_until": past} if lease else {}), **({"expires_at": past} if expiry else {})}
        mine = idempotency_keys.c.tenant_id == principal.tenant_id
        await tx.connection.execute(update(idempotency_keys).where(mine).values(**values))


async def refused(request: Any) -> str:
    with pytest.raises(Conflict) as caught:
        await request
    return caught.value.code


async def test_the_same_answer_for_a_day(
    context: ProcessContext, principal: Principal, keys: IdempotencyService
) -> None:
    claim = await begin(keys)
    assert isinstance(claim, Claim)
    await keys.finish(claim, ANSWER)
    for _ in range(2):
        assert await begin(keys) == replace(ANSWER, fingerprint="a")
    await age(context, principal, lease=True)
    assert (await begin(keys)).body == ANSWER.body
    await age(context, principal, expiry=True)
    later = await begin(keys, body="b")
    assert isinstance(later, Claim)
    assert later.effect_id != claim.effect_id


async def test_another_request_under_the_key_is_refused(keys: IdempotencyService) -> None:
    claim = await begin(keys)
    for _ in ("while it goes on", "when it is done"):
        with pytest.raises(KeyReused, match="make a new key for each"):
            await begin(keys, body="b")
        with pytest.raises(KeyReused):
            await begin(keys, operation="POST /api/others")
        await keys.finish(claim, ANSWER)


async def test_one_of_many_at_the_same_time_claims(keys: IdempotencyService) -> None:
    outcomes = await asyncio.gather(*(begin(keys) for _ in range(8)), return_exceptions=True)
    claims = [found for found in outcomes if isinstance(found, Claim)]
    others = [found for found in outcomes if not isinstance(found, Claim)]
    assert len(claims) == 1
    for error in others:
        assert isinstance(error, Conflict)
        assert (error.code, error.retry_after_seconds) == ("idempotency_in_progress", 1)


async def test_a_request_that_did_nothing_gives_the_key_back(keys: IdempotencyService) -> None:
    claim = await begin(keys)
    await keys.release(claim)
    again = await begin(keys, body="corrected")
    assert (again.effect_id, again.generation) == (claim.effect_id, 2)


async def test_what_a_dead_gateway_left(
    context: ProcessContext, principal: Principal, keys: IdempotencyService
) -> None:
    dead = await begin(keys)
    assert await refused(begin(keys)) == "idempotency_in_progress"
    await keys.renew(dead)
    await age(context, principal, lease=True)
    with pytest.raises(KeyReused):
        await begin(keys, body="b")
    assert await refused(begin(keys, repeatable=False)) == "idempotency_outcome_unknown"
    again = await begin(keys)
    assert (again.effect_id, again.generation) == (dead.effect_id, 2)
    await keys.finish(dead, replace(ANSWER, body=b"of a ghost"))
    assert await refused(begin(keys)) == "idempotency_in_progress"
    await keys.finish(again, ANSWER)
    assert (await begin(keys)).body == ANSWER.body


async def test_an_embedded_gateway_knows_at_once_that_the_one_before_is_gone(
    context: ProcessContext, principal: Principal, keys: IdempotencyService
) -> None:
    before = IdempotencyService(replace(context, gateway_id=new_id()), principal)
    dead = await begin(before)
    if context.database.dialect.shared:
        assert await refused(begin(keys)) == "idempotency_in_progress"
    else:
        assert (await begin(keys)).effect_id == dead.effect_id


async def test_doubt_stays(context: ProcessContext, principal: Principal, keys: IdempotencyService) -> None:
    await keys.doubt(await begin(keys, repeatable=False))
    for lease in (False, True):
        await age(context, principal, lease=lease, expiry=False) if lease else None
        assert await refused(begin(keys, repeatable=False)) == "idempotency_outcome_unknown"


@pytest.mark.parametrize("size", [0, MAX_ANSWER_BYTES, MAX_ANSWER_BYTES + 1])
async def test_large_answers_are_not_kept_and_not_done_again(keys: IdempotencyService, size: int) -> None:
    await keys.finish(await begin(keys), replace(ANSWER, body=b"x" * size))
    if size <= MAX_ANSWER_BYTES:
        assert len((await begin(keys)).body) == size
    else:
        assert await refused(begin(keys)) == "idempotency_answer_not_kept"


async def test_a_body_that_is_known_at_the_end(keys: IdempotencyService) -> None:
    await keys.finish(await begin(keys, body=None), replace(ANSWER, fingerprint="digest"))
    answer = await begin(keys, body=None)
    answer.require_same("digest")
    with pytest.raises(KeyReused):
        answer.require_same("other")


async def test_users_and_tenants_share_no_keys(context: ProcessContext, principal: Principal) -> None:
    first = await begin(IdempotencyService(context, principal))
    stranger = await begin(IdempotencyService(context, await new_principal(context.database)), body="b")
    assert first.effect_id != stranger.effect_id


async def test_the_sweep(context: ProcessContext, principal: Principal, keys: IdempotencyService) -> None:
    await keys.finish(await begin(keys), ANSWER)
    assert await keys.sweep() == 0
    await age(context, principal, expiry=True)
    await begin(keys, key="other")
    assert await keys.sweep() == 1
    async with context.database.transaction(principal.tenant_id, write=False) as tx:
        mine = idempotency_keys.c.tenant_id == principal.tenant_id
        assert await tx.connection.scalar(select(func.count()).where(mine)) == 1


# ---------------------------------------------------------------------- uploads


async def cut() -> AsyncIterator[bytes]:
    yield b"half"
    raise ConnectionResetError


async def test_an_upload_that_is_tried_again_stores_each_file_once(
    artifacts: ArtifactService, session_id: UUID
) -> None:
    effect = Effect(new_id())
    assert effect.part(1).version == 7
    assert len({effect.part(place) for place in range(100)}) == 100

    async def store(place: int, content: AsyncIterator[bytes], *, again: bool = True) -> Any:
        return await artifacts.store(
            session_id,
            name=f"{place}.csv",
            category="data",
            content_type=None,
            chunks=content,
            artifact_id=effect.part(place),
            again=again,
        )

    first = await store(0, chunks_of(b"one"), again=False)
    with pytest.raises(ConnectionResetError):
        await store(1, cut(), again=False)
    assert await store(0, chunks_of(b"o", b"ne")) == first
    second = await store(1, chunks_of(b"two"))
    assert [(item.name, item.version) for item in await artifacts.list(session_id)] == [("0.csv", 1), ("1.csv", 1)]
    assert await collected(await artifacts.read(second)) == b"two"
    with pytest.raises(KeyReused):
        await store(0, chunks_of(b"other"))
