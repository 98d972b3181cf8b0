"""The bus, in the process and over a real Redis.

Plan: every reader of a channel gets what is published after it began, in order, and nothing of other channels, from its
own process and from others; a reader that does not read is told so and goes on, and memory stays bounded. How it goes
when Redis is away is in test_bus_faults.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from prometheus_client import REGISTRY

from carrel_gateway.storage.bus import MAX_MESSAGE_BYTES, MAX_MESSAGES, Bus, BusOverflow
from carrel_gateway.storage.factory import open_bus
from carrel_gateway.storage.redis_clients import InvalidRedisUrl

DEADLINE = 30.0


@pytest.fixture(params=["in process", "redis", "redis from another process"])
async def buses(request: pytest.FixtureRequest, make_settings: Any) -> AsyncIterator[tuple[Bus, Bus]]:
    """One that is read, and one that is published on: the same, or two that only Redis connects."""
    named = {} if request.param == "in process" else {"redis_url": request.getfixturevalue("redis_url")}
    opened = [await open_bus(make_settings(**named))]
    if request.param == "redis from another process":
        opened.append(await open_bus(make_settings(**named)))
    async with asyncio.timeout(DEADLINE):
        while not all(one.healthy for one in opened):  # noqa: ASYNC110  a state that nobody else waits for
            await asyncio.sleep(0.01)
    yield opened[0], opened[-1]
    for one in opened:
        await one.aclose()


@pytest.fixture
def bus(buses: tuple[Bus, Bus]) -> Bus:
    return buses[0]


@pytest.fixture
def publisher(buses: tuple[Bus, Bus]) -> Bus:
    return buses[1]


async def take(messages: AsyncIterator[bytes], count: int) -> list[bytes]:
    async with asyncio.timeout(DEADLINE):
        return [await anext(messages) for _ in range(count)]


async def test_readers_get_what_is_published_from_then_on(bus: Bus, publisher: Bus) -> None:
    await bus.ping()
    async with bus.subscribe("a") as first, bus.subscribe("b") as other:
        for place in range(5):
            await publisher.publish("a", bytes([place]))
        assert await take(first, 5) == [bytes([place]) for place in range(5)]
        async with bus.subscribe("a") as second:
            await publisher.publish("b", b"other")
            await publisher.publish("a", b"last")
            assert await take(second, 1) == [b"last"]
        assert await take(first, 1) == [b"last"]
        assert await take(other, 1) == [b"other"]
        await publisher.publish("a", b"still")
        assert await take(first, 1) == [b"still"]


async def test_a_channel_can_be_left_and_read_again(bus: Bus, publisher: Bus) -> None:
    for place in range(5):
        async with bus.subscribe("again") as messages:
            await publisher.publish("again", bytes([place]))
            assert await take(messages, 1) == [bytes([place])]


async def test_readers_that_come_and_go_at_once(bus: Bus, publisher: Bus) -> None:
    async def read(place: int) -> None:
        for turn in range(5):
            async with bus.subscribe("busy") as messages:
                mine = f"{place}.{turn}".encode()
                await publisher.publish("busy", mine)
                async with asyncio.timeout(DEADLINE):
                    while await anext(messages) != mine:
                        pass

    await asyncio.gather(*(read(place) for place in range(10)))


async def test_a_reader_that_does_not_read_is_told(bus: Bus, publisher: Bus) -> None:
    async with bus.subscribe("slow") as messages, bus.subscribe("slow") as quick:
        for _ in range(MAX_MESSAGES + 1):
            await publisher.publish("slow", b"x")
            await take(quick, 1)
        with pytest.raises(BusOverflow):
            await take(messages, 2 * MAX_MESSAGES)
        await publisher.publish("slow", b"after")
        async with asyncio.timeout(DEADLINE):
            while await anext(messages) != b"after":
                pass


async def test_too_large_news_are_a_loss(bus: Bus, publisher: Bus) -> None:
    async with bus.subscribe("large") as messages, bus.subscribe("small") as other:
        await publisher.publish("large", b"x" * (MAX_MESSAGE_BYTES + 1))
        with pytest.raises(BusOverflow):
            await take(messages, 1)
        await publisher.publish("large", b"x" * MAX_MESSAGE_BYTES)
        assert await take(messages, 1) == [b"x" * MAX_MESSAGE_BYTES]
        await publisher.publish("small", b"untouched")
        assert await take(other, 1) == [b"untouched"]


async def test_news_from_before_are_not_kept_for_who_comes_later(bus: Bus) -> None:
    await bus.publish("late", b"before")
    async with bus.subscribe("late") as messages:
        await bus.publish("late", b"after")
        assert await take(messages, 1) == [b"after"]


async def test_everything_is_counted(bus: Bus, publisher: Bus) -> None:
    def counted(name: str, **labels: str) -> float:
        return REGISTRY.get_sample_value(name, labels) or 0.0

    source = "process" if bus is publisher else "redis"
    published, delivered = counted("carrel_bus_published_total"), counted("carrel_bus_delivered_total", source=source)
    slow = counted("carrel_bus_losses_total", reason="slow_reader")
    large = counted("carrel_bus_losses_total", reason="too_large" if bus is publisher else "unsent")
    async with bus.subscribe("counted") as messages, bus.subscribe("counted") as other:
        for _ in range(MAX_MESSAGES + 1):
            await publisher.publish("counted", b"x")
            await take(other, 1)
        await publisher.publish("counted", b"x" * (MAX_MESSAGE_BYTES + 1))
        with pytest.raises(BusOverflow):
            await take(other, 1)
        with pytest.raises(BusOverflow):
            await take(messages, 1)
    assert counted("carrel_bus_published_total") == published + MAX_MESSAGES + 2
    assert counted("carrel_bus_delivered_total", source=source) == delivered + 2 * (MAX_MESSAGES + 1)
    assert counted("carrel_bus_losses_total", reason="slow_reader") == slow + 1
    assert counted("carrel_bus_losses_total", reason="too_large" if bus is publisher else "unsent") == large + 2
    assert counted("carrel_bus_healthy") == 1


async def test_an_address_that_is_none(make_settings: Any) -> None:
    with pytest.raises(InvalidRedisUrl) as caught:
        await open_bus(make_settings(redis_url="http://user:hush@127.0.0.1"))
    assert "hush" not in caught.value.message
