"""The cache, in the process and in Redis, under one contract.

Plan: what is set is there, for as long as it should be, and what is deleted is not; a value may be any bytes; what is
too large is not kept, nor what it would have replaced; in the process memory is bounded and what was used least goes
first; when Redis is away there is nothing, nobody waits long, and failures are counted. A notebook comes from the cache
as long as the log is as it was.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import REGISTRY
from tests.support.network import link_to
from tests.support.servers import free_port

from carrel_gateway.context import Principal, ProcessContext
from carrel_gateway.errors import NotFound
from carrel_gateway.notebook.service import NotebookService
from carrel_gateway.sessions.service import Session, SessionService
from carrel_gateway.storage import redis_cache
from carrel_gateway.storage.cache import MAX_VALUE_BYTES, CacheBackend, MemoryCache, notebook_key
from carrel_gateway.storage.factory import open_cache
from carrel_gateway.storage.redis_cache import RedisCache
from carrel_gateway.storage.redis_clients import InvalidRedisUrl


def counted(result: str) -> float:
    return REGISTRY.get_sample_value("carrel_cache_total", {"result": result}) or 0.0


@pytest.fixture(params=["memory", "redis"])
async def cache(request: pytest.FixtureRequest, make_settings: Any) -> AsyncIterator[CacheBackend]:
    named = {"redis_url": request.getfixturevalue("redis_url")} if request.param == "redis" else {}
    opened = await open_cache(make_settings(**named))
    failures = counted("failure")
    yield opened
    await opened.aclose()
    assert counted("failure") == failures


@pytest.fixture
def key() -> str:
    return uuid4().hex


async def test_what_is_set_is_there_until_it_is_deleted(cache: CacheBackend, key: str) -> None:
    hits, misses = counted("hit"), counted("miss")
    assert await cache.get(key) is None
    assert not await cache.exists(key)
    await cache.set(key, b"\x00\xff any bytes")
    assert await cache.get(key) == b"\x00\xff any bytes"
    assert await cache.exists(key)
    await cache.set(key, b"")
    assert await cache.get(key) == b""
    assert await cache.exists(key)
    await cache.delete(key)
    await cache.delete(key)
    assert await cache.get(key) is None
    assert (counted("hit"), counted("miss")) == (hits + 2, misses + 2)


async def test_a_value_lives_as_long_as_it_should(cache: CacheBackend, key: str) -> None:
    await cache.set(key, b"short", ttl=0.2)
    await cache.set(f"{key}.long", b"long", ttl=60)
    await asyncio.sleep(0.3)
    assert await cache.get(key) is None
    assert not await cache.exists(key)
    assert await cache.get(f"{key}.long") == b"long"


@pytest.mark.parametrize(("value", "ttl"), [(b"x" * (MAX_VALUE_BYTES + 1), None), (b"x", 0)])
async def test_what_is_not_kept_does_not_leave_an_older_value(
    cache: CacheBackend, key: str, value: bytes, ttl: float | None
) -> None:
    await cache.set(key, b"old")
    await cache.set(key, value, ttl)
    assert await cache.get(key) is None


async def test_without_a_life_nothing_is_kept(make_settings: Any, redis_url: str, key: str) -> None:
    for named in ({}, {"redis_url": redis_url}):
        cache = await open_cache(make_settings(cache_ttl=0, **named))
        await cache.set(key, b"x")
        assert await cache.get(key) is None
        await cache.aclose()


async def test_gateways_share_what_is_in_redis(redis_url: str, key: str) -> None:
    mine, theirs = (RedisCache(redis_url, ttl_seconds=60) for _ in range(2))
    await mine.set(key, b"x")
    assert await theirs.get(key) == b"x"
    await theirs.delete(key)
    assert not await mine.exists(key)
    await mine.aclose()
    await theirs.aclose()


async def test_what_was_used_least_goes_first() -> None:
    cache = MemoryCache(ttl_seconds=60, max_entries=3)
    for name in "abc":
        await cache.set(name, b"x")
    await cache.get("a")
    await cache.exists("b")
    await cache.set("d", b"x")
    assert [name for name in "abcd" if await cache.exists(name)] == ["a", "c", "d"]


@given(
    st.lists(
        st.tuples(st.sampled_from("abcdefgh"), st.sampled_from(["set", "delete", "get"]), st.integers(0, 40)),
        max_size=80,
    )
)
def test_memory_is_bounded_and_counted_right(steps: list[tuple[str, str, int]]) -> None:
    now = 0.0
    cache = MemoryCache(ttl_seconds=10, clock=lambda: now, max_entries=5, max_bytes=100)

    async def run() -> None:
        nonlocal now
        for name, step, size in steps:
            now += size / 10
            if step == "set":
                await cache.set(name, b"x" * size)
                assert await cache.get(name) == b"x" * size
            else:
                await getattr(cache, step)(name)
            held = sum(len(key) + len(value) for key, (value, _) in cache._entries.items())
            assert held == cache._bytes <= 100
            assert len(cache._entries) <= 5

    asyncio.run(run())


async def test_a_redis_that_is_not_there_is_an_empty_cache(key: str) -> None:
    failures = counted("failure")
    cache = RedisCache(f"redis://127.0.0.1:{free_port()}/0", ttl_seconds=60)
    await cache.set(key, b"x")
    assert await cache.get(key) is None
    assert not await cache.exists(key)
    await cache.delete(key)
    assert counted("failure") == failures + 4
    await cache.aclose()


@pytest.mark.parametrize("trouble", ["mute", "slow", "cut"])
async def test_a_redis_in_trouble_holds_nobody_up(redis_url: str, key: str, trouble: str, monkeypatch: Any) -> None:
    monkeypatch.setattr(redis_cache, "AWAY_SECONDS", 0.3)
    async with link_to(int(redis_url.rpartition(":")[2].partition("/")[0])) as link:
        cache = RedisCache(f"redis://127.0.0.1:{link.port}/0", ttl_seconds=60)
        await cache.set(key, b"x")
        link.mute(mute=trouble == "mute")
        link.delay_seconds = 3.0 if trouble == "slow" else 0.0
        link.open = trouble != "cut"
        if trouble == "cut":
            link.cut()
        began = time.monotonic()
        assert set(await asyncio.gather(*(cache.get(key) for _ in range(50)))) == {None}
        assert time.monotonic() - began < 2.0
        link.mute(mute=False)
        link.delay_seconds = 0.0
        link.open = True
        await asyncio.sleep(0.4)
        async with asyncio.timeout(30):
            while await cache.get(key) != b"x":  # noqa: ASYNC110  another program's state
                await asyncio.sleep(0.05)
        await cache.aclose()


async def test_an_address_that_is_none(make_settings: Any) -> None:
    with pytest.raises(InvalidRedisUrl):
        await open_cache(make_settings(redis_url="http://user:hush@127.0.0.1"))


async def test_a_notebook_is_made_once_for_each_state_of_the_log(
    context: ProcessContext, principal: Principal, session_id: UUID, monkeypatch: Any
) -> None:
    notebooks, sessions = NotebookService(context, principal), SessionService(context, principal)
    made: list[str] = []
    make = NotebookService._notebook

    def noted(service: NotebookService, session: Session) -> AsyncIterator[bytes]:
        made.append(session.title)
        return make(service, session)

    async def export() -> tuple[str, bytes]:
        session, parts = await notebooks.export(session_id)
        return session.title, b"".join([part async for part in parts])

    monkeypatch.setattr(NotebookService, "_notebook", noted)
    first = await export()
    assert await export() == first
    assert len(made) == 1
    await sessions.update(session_id, title="Renamed")
    assert (await export())[0] == "Renamed"
    assert (await export())[1] != first[1]
    assert made[1:] == ["Renamed"]
    key = notebook_key(principal.tenant_id, session_id)
    assert await context.cache.exists(key)
    await context.cache.set(key, b"of another version\n{}")
    assert (await export())[0] == "Renamed"
    assert len(made) == 3
    await sessions.delete(session_id)
    assert not await context.cache.exists(key), "what is deleted is not in the cache either"
    with pytest.raises(NotFound):
        await export()
