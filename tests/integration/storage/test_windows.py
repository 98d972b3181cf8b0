"""Counters of calls, in the process and in Redis, under one contract.

Plan: so many calls fit as the limit says, by their cost, and the next one is told how long to wait, after which it
fits; keys have budgets of their own; at once or one after the other makes no difference; in no window fits more than
twice the limit; memory is bounded; when Redis is away, silent or slow, the process goes on counting by itself and no
call waits long.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import REGISTRY
from tests.support.network import link_to
from tests.support.servers import free_port

from carrel_gateway.storage import redis_clients, redis_windows
from carrel_gateway.storage.factory import open_windows
from carrel_gateway.storage.redis_clients import InvalidRedisUrl
from carrel_gateway.storage.redis_windows import RedisWindows
from carrel_gateway.storage.windows import MemoryWindows, Windows


def counted_fallbacks() -> float:
    return REGISTRY.get_sample_value("carrel_rate_fallbacks_total") or 0.0


@pytest.fixture(params=["memory", "redis"])
async def windows(
    request: pytest.FixtureRequest, make_settings: Any, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Windows]:
    for module, name in ((redis_windows, "ANSWER_SECONDS"), (redis_clients, "CONNECT_SECONDS")):
        monkeypatch.setattr(module, name, 60.0)  # a slow machine is no Redis in trouble
    named = {"redis_url": request.getfixturevalue("redis_url")} if request.param == "redis" else {}
    opened = await open_windows(make_settings(**named))
    fallbacks = counted_fallbacks()
    yield opened
    await opened.aclose()
    assert counted_fallbacks() == fallbacks, "Redis was to be asked"


@pytest.fixture
def key() -> str:
    return uuid4().hex


async def test_as_many_as_the_limit_fit(windows: Windows, key: str) -> None:
    assert [await windows.hit(key, limit=5, seconds=60) for _ in range(5)] == [0.0] * 5
    assert 0 < await windows.hit(key, limit=5, seconds=60) <= 120
    assert await windows.hit(f"{key}x", limit=5, seconds=60) == 0.0


async def test_at_once_is_no_way_around(windows: Windows, key: str) -> None:
    waits = await asyncio.gather(*(windows.hit(key, limit=20, seconds=60) for _ in range(200)))
    assert waits.count(0.0) == 20


async def test_calls_cost_what_they_weigh(windows: Windows, key: str) -> None:
    assert await windows.hit(key, limit=10, seconds=60, cost=7) == 0.0
    assert await windows.hit(key, limit=10, seconds=60, cost=4) > 0
    assert await windows.hit(key, limit=10, seconds=60, cost=3) == 0.0


async def test_who_waits_as_told_fits_again(windows: Windows, key: str) -> None:
    for _ in range(3):
        while not (waits := await windows.hit(key, limit=4, seconds=1)):
            pass
        assert waits <= 2
        await asyncio.sleep(waits + 0.01)
        assert await windows.hit(key, limit=4, seconds=1) == 0.0


@given(
    calls=st.lists(st.tuples(st.floats(0, 8), st.integers(1, 4)), min_size=20, max_size=200),
    limit=st.integers(4, 12),
)
def test_no_window_holds_more_than_twice_the_limit(calls: list[tuple[float, int]], limit: int) -> None:
    now = 0.0
    windows = MemoryWindows(clock=lambda: now)

    async def run() -> None:
        nonlocal now
        counted: list[tuple[float, int]] = []
        for pause, cost in calls:
            now += pause
            waits = await windows.hit("key", limit=limit, seconds=10, cost=cost)
            if waits:
                now += waits + 1e-6
                assert await windows.hit("key", limit=limit, seconds=10, cost=cost) == 0.0
            counted.append((now, cost))
        for began, _ in counted:
            assert sum(cost for at, cost in counted if began <= at < began + 10) <= 2 * limit

    asyncio.run(run())


async def test_memory_is_bounded() -> None:
    windows = MemoryWindows(size=100)
    assert await windows.hit("mine", limit=1, seconds=60) == 0.0
    for place in range(1000):
        await windows.hit(str(place), limit=1, seconds=60)
        assert await windows.hit("mine", limit=1, seconds=60) > 0, "who calls is not forgotten"
    assert len(windows) == 100


async def test_a_redis_that_is_not_there(key: str) -> None:
    windows = RedisWindows(f"redis://127.0.0.1:{free_port()}/0")
    assert [await windows.hit(key, limit=2, seconds=60) for _ in range(2)] == [0.0] * 2
    assert await windows.hit(key, limit=2, seconds=60) > 0
    await windows.aclose()


@pytest.mark.parametrize("trouble", ["mute", "slow", "cut"])
async def test_a_redis_in_trouble_holds_nobody_up(redis_url: str, key: str, trouble: str, monkeypatch: Any) -> None:
    monkeypatch.setattr(redis_windows, "AWAY_SECONDS", 3.0)  # in which twenty that wait together give up on any machine
    async with link_to(int(redis_url.rpartition(":")[2].partition("/")[0])) as link:
        windows = RedisWindows(f"redis://127.0.0.1:{link.port}/0")
        assert await windows.hit(key, limit=4, seconds=60) == 0.0
        fallbacks = counted_fallbacks()
        link.mute(mute=trouble == "mute")
        link.delay_seconds = 3.0 if trouble == "slow" else 0.0
        link.open = trouble != "cut"
        if trouble == "cut":
            link.cut()
        began = time.monotonic()
        waits = await asyncio.gather(*(windows.hit(key, limit=4, seconds=60) for _ in range(20)))
        assert time.monotonic() - began < 15, "twenty that waited in turn would take twenty seconds"
        assert waits.count(0.0) == 3, "what was let through before counts"
        assert counted_fallbacks() == fallbacks + 1
        link.mute(mute=False)
        link.delay_seconds = 0.0
        link.open = True
        await asyncio.sleep(3.1)
        assert await windows.hit(uuid4().hex, limit=1, seconds=60) == 0.0
        assert counted_fallbacks() == fallbacks + 1, "Redis counts again"
        await windows.aclose()


async def test_an_address_that_is_none(make_settings: Any) -> None:
    with pytest.raises(InvalidRedisUrl):
        await open_windows(make_settings(redis_url="http://user:hush@127.0.0.1"))
