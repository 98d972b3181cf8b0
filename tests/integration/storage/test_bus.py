"""The bus, in the process and over a real Redis.

Plan: every reader of a channel gets what is published after it began, in order, and nothing of other channels; a
reader that does not read is told so and goes on, and memory stays bounded; when Redis goes away publishing does not
fail, readers are told, and all is well again when it is back, without anybody subscribing anew; a Redis that falls
silent without closing anything is one that went away.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.support.servers import free_port, start_redis, stop

from carrel_gateway.storage import redis_bus
from carrel_gateway.storage.bus import MAX_MESSAGES, Bus, BusOverflow
from carrel_gateway.storage.factory import open_bus
from carrel_gateway.storage.redis_bus import BusAway, InvalidRedisUrl, RedisBus

DEADLINE = 30.0


@pytest.fixture(params=["in process", "redis"])
async def bus(request: pytest.FixtureRequest, make_settings: Any) -> AsyncIterator[Bus]:
    named = {"redis_url": request.getfixturevalue("redis_url")} if request.param == "redis" else {}
    opened = await open_bus(make_settings(**named))
    async with asyncio.timeout(DEADLINE):
        while not opened.healthy:  # noqa: ASYNC110  a state that nobody else waits for
            await asyncio.sleep(0.01)
    yield opened
    await opened.aclose()


async def take(messages: AsyncIterator[bytes], count: int) -> list[bytes]:
    async with asyncio.timeout(DEADLINE):
        return [await anext(messages) for _ in range(count)]


async def test_readers_get_what_is_published_from_then_on(bus: Bus) -> None:
    await bus.ping()
    await bus.publish("a", b"before")
    async with bus.subscribe("a") as first, bus.subscribe("b") as other:
        for place in range(5):
            await bus.publish("a", bytes([place]))
        assert await take(first, 5) == [bytes([place]) for place in range(5)]
        async with bus.subscribe("a") as second:
            await bus.publish("b", b"other")
            await bus.publish("a", b"last")
            assert await take(second, 1) == [b"last"]
        assert await take(first, 1) == [b"last"]
        assert await take(other, 1) == [b"other"]
        await bus.publish("a", b"still")
        assert await take(first, 1) == [b"still"]


async def test_a_channel_can_be_left_and_read_again(bus: Bus) -> None:
    for place in range(5):
        async with bus.subscribe("again") as messages:
            await bus.publish("again", bytes([place]))
            assert await take(messages, 1) == [bytes([place])]


async def test_readers_that_come_and_go_at_once(bus: Bus) -> None:
    async def read(place: int) -> None:
        for turn in range(5):
            async with bus.subscribe("busy") as messages:
                mine = f"{place}.{turn}".encode()
                await bus.publish("busy", mine)
                async with asyncio.timeout(DEADLINE):
                    while await anext(messages) != mine:
                        pass

    await asyncio.gather(*(read(place) for place in range(10)))


async def test_a_reader_that_does_not_read_is_told(bus: Bus) -> None:
    async with bus.subscribe("slow") as messages, bus.subscribe("slow") as quick:
        for _ in range(MAX_MESSAGES + 1):
            await bus.publish("slow", b"x")
            await take(quick, 1)
        with pytest.raises(BusOverflow):
            await take(messages, 2 * MAX_MESSAGES)
        await bus.publish("slow", b"after")
        async with asyncio.timeout(DEADLINE):
            while await anext(messages) != b"after":
                pass


async def test_nobody_is_told_of_too_large_news(bus: Bus) -> None:
    async with bus.subscribe("large") as messages:
        await bus.publish("large", b"x" * (5 * 1024 * 1024))
        with pytest.raises(BusOverflow):
            await take(messages, 1)


async def test_a_redis_that_goes_away_and_comes_back(make_settings: Any, tmp_path: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(redis_bus, "_SILENCE_SECONDS", 0.05)
    port = free_port()
    process = start_redis(port, tmp_path)
    mine, theirs = (RedisBus(f"redis://127.0.0.1:{port}/0") for _ in range(2))
    try:
        async with asyncio.timeout(2 * DEADLINE), mine.subscribe("a") as messages:
            await _until_heard(theirs, messages)
            stop(process)
            with pytest.raises(BusOverflow):
                await take(messages, 1000)
            assert not mine.healthy
            with pytest.raises(BusAway):
                await mine.ping()
            await theirs.publish("a", b"lost")
            async with mine.subscribe("b"):
                pass
            await mine.publish("a", b"own")  # readers of the same process still hear
            assert await anext(messages) == b"own"
            process = start_redis(port, tmp_path)
            await _until_heard(theirs, messages)
            assert mine.healthy
    finally:
        await mine.aclose()
        await theirs.aclose()
        stop(process)


async def _until_heard(publisher: Bus, messages: AsyncIterator[bytes]) -> None:
    """Publish until the reader hears it: connecting takes its time."""
    while True:
        await publisher.publish("a", b"news")
        try:
            async with asyncio.timeout(0.1):
                if await anext(messages) == b"news":
                    return
        except (TimeoutError, BusOverflow):
            continue


class MutableProxy:
    """Passes bytes between the bus and Redis; when mute it keeps every connection open and passes none."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._loud = asyncio.Event()
        self._passing: set[asyncio.Task[None]] = set()
        self._writers: list[asyncio.StreamWriter] = []
        self.mute(mute=False)

    def mute(self, *, mute: bool) -> None:
        """Begin or end to be mute."""
        (self._loud.clear if mute else self._loud.set)()

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Connect to Redis and pass in both directions."""
        there, back = await asyncio.open_connection("127.0.0.1", self._port)
        self._writers += [writer, back]
        for source, target in ((reader, back), (there, writer)):
            task = asyncio.create_task(self._pass(source, target))
            self._passing.add(task)

    async def _pass(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        while data := await source.read(65536):
            await self._loud.wait()
            target.write(data)

    async def close(self) -> None:
        """Close all connections."""
        for task in self._passing:
            task.cancel()
        await asyncio.gather(*self._passing, return_exceptions=True)
        for writer in self._writers:
            writer.close()


async def test_a_redis_that_falls_silent(redis_url: str, monkeypatch: Any) -> None:
    monkeypatch.setattr(redis_bus, "_SILENCE_SECONDS", 0.05)
    monkeypatch.setattr(redis_bus, "_QUIET_SECONDS", 0.2)
    proxy = MutableProxy(int(redis_url.rpartition(":")[2].partition("/")[0]))
    server = await asyncio.start_server(proxy.accept, "127.0.0.1", 0)
    mine = RedisBus(f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0")
    theirs = RedisBus(redis_url)
    try:
        async with asyncio.timeout(2 * DEADLINE), mine.subscribe("a") as messages:
            await _until_heard(theirs, messages)
            proxy.mute(mute=True)
            while mine.healthy:  # noqa: ASYNC110  a state that nobody else waits for
                await asyncio.sleep(0.01)
            with pytest.raises(BusOverflow):
                await take(messages, 1000)
            with pytest.raises(BusAway):
                await mine.ping()
            proxy.mute(mute=False)
            await _until_heard(theirs, messages)
            assert mine.healthy
    finally:
        await mine.aclose()
        await theirs.aclose()
        server.close()
        await proxy.close()


async def test_a_quiet_redis_gives_signs_of_life(redis_url: str, monkeypatch: Any) -> None:
    monkeypatch.setattr(redis_bus, "_QUIET_SECONDS", 0.2)
    taken: asyncio.Queue[str] = asyncio.Queue()
    take_it = RedisBus._take

    def noted(bus: RedisBus, message: dict[str, Any]) -> None:
        take_it(bus, message)
        taken.put_nowait(message["type"])

    monkeypatch.setattr(RedisBus, "_take", noted)
    bus = RedisBus(redis_url)
    try:
        async with asyncio.timeout(DEADLINE):
            signs = 0
            while signs < 2 * redis_bus._QUIET_TURNS:
                signs += await taken.get() == "pong"
        assert not bus._listener.done()
    finally:
        await bus.aclose()


async def test_a_bus_that_does_not_listen_yet_is_away(redis_url: str) -> None:
    bus = RedisBus(redis_url)
    try:
        assert not bus.healthy
        with pytest.raises(BusAway):
            await bus.ping()
    finally:
        await bus.aclose()


async def test_an_address_that_is_none(make_settings: Any) -> None:
    with pytest.raises(InvalidRedisUrl) as caught:
        await open_bus(make_settings(redis_url="http://user:hush@127.0.0.1"))
    assert "hush" not in caught.value.message
