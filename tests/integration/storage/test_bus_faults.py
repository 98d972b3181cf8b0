"""The bus when Redis is away, silent, slow, or forgetful.

Plan: publishing never waits; a short cut loses nothing and tells nobody, on the reader's side and on the publisher's; a
longer one is told to every reader, once, and `healthy` says so; afterwards all is well again without anybody
subscribing anew; what Redis held no longer is seen to be missing; nothing comes twice; the readers of the same process
go on without Redis; processes that are gone are forgotten.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from prometheus_client import REGISTRY
from redis.asyncio import Redis
from tests.support.network import link_to
from tests.support.servers import free_port, start_redis, stop

from carrel_gateway.storage import redis_inbox, redis_outbox
from carrel_gateway.storage.bus import Bus, BusOverflow
from carrel_gateway.storage.redis_bus import BusAway, RedisBus

DEADLINE = 60.0
SOON = 0.25
"""The largest time that publishing may take here; it does nothing but put something into a queue."""


def port_of(url: str) -> int:
    return int(url.rpartition(":")[2].partition("/")[0])


async def until(said: Callable[[], bool]) -> None:
    while not said():  # noqa: ASYNC110  a state that nobody else waits for
        await asyncio.sleep(0.01)


def counted(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


async def publish(bus: Bus, channel: str, data: bytes) -> None:
    began = time.monotonic()
    await bus.publish(channel, data)
    assert time.monotonic() - began < SOON


async def until_heard(publisher: Bus, messages: AsyncIterator[bytes], channel: str = "a") -> None:
    """Publish until the reader hears it: connecting takes its time."""
    place = 0
    while True:
        place += 1
        await publish(publisher, channel, b"is it you %d" % place)
        try:
            async with asyncio.timeout(0.2):
                while await anext(messages) != b"is it you %d" % place:
                    pass
                return
        except (TimeoutError, BusOverflow):
            continue


async def until_forgotten(client: Redis, key: str) -> None:
    while await client.exists(key):  # noqa: ASYNC110  another program's state
        await asyncio.sleep(0.01)


async def until_lost(messages: AsyncIterator[bytes]) -> None:
    with suppress(BusOverflow):
        while True:
            await anext(messages)


@asynccontextmanager
async def opened(*ports: int) -> AsyncIterator[list[RedisBus]]:
    """Buses over these ports, once they hear."""
    buses = [RedisBus(f"redis://127.0.0.1:{port}/0") for port in ports]
    try:
        async with asyncio.timeout(DEADLINE):
            await until(lambda: all(bus.healthy for bus in buses))
            yield buses
    finally:
        for bus in buses:
            await bus.aclose()


async def test_a_short_cut_on_the_readers_side_loses_nothing(redis_url: str) -> None:
    port = port_of(redis_url)
    async with link_to(port) as link, opened(link.port, port) as (mine, theirs), mine.subscribe("a") as messages:
        resumed = counted("carrel_bus_reconnects_total", result="resumed")
        for place in range(30):
            await publish(theirs, "a", b"%d" % place)
            if place % 10 == 5:
                link.cut()
                await until(lambda: not mine.healthy)
        assert [await anext(messages) for _ in range(30)] == [b"%d" % place for place in range(30)]
        await until(lambda: mine.healthy)
        assert counted("carrel_bus_reconnects_total", result="resumed") > resumed


async def test_a_short_cut_on_the_publishers_side_loses_and_repeats_nothing(redis_url: str) -> None:
    port = port_of(redis_url)
    async with link_to(port) as link, opened(link.port, port) as (mine, theirs), theirs.subscribe("a") as messages:
        link.delay_seconds = 0.05  # so that the cut comes between the doing and the answer
        for place in range(200):
            await publish(mine, "a", b"%d" % place)
            if place % 50 == 20:
                await asyncio.sleep(0.03)
                link.cut()
        assert [await anext(messages) for _ in range(200)] == [b"%d" % place for place in range(200)]
        await publish(mine, "a", b"and no more")
        assert await anext(messages) == b"and no more"


async def test_a_longer_cut_is_told(redis_url: str, monkeypatch: Any) -> None:
    monkeypatch.setattr(redis_inbox, "RESUME_SECONDS", 0.2)
    monkeypatch.setattr(redis_outbox, "FRESH_SECONDS", 0.2)
    port = port_of(redis_url)
    async with link_to(port) as link, opened(link.port, port) as (mine, theirs):  # noqa: SIM117  one line is too long
        async with mine.subscribe("a") as messages, theirs.subscribe("a") as heard:
            anew = counted("carrel_bus_reconnects_total", result="anew")
            link.open = False
            link.cut()
            await until_lost(messages)
            assert not mine.healthy
            assert counted("carrel_bus_healthy") == 0
            with pytest.raises(BusAway):
                await mine.ping()
            await publish(mine, "a", b"own")  # readers of the same process hear all the same
            assert await anext(messages) == b"own"
            async with mine.subscribe("b") as other:  # and new ones do not wait
                await publish(mine, "b", b"own")
                assert await anext(other) == b"own"
            await publish(theirs, "a", b"lost")
            assert await anext(heard) == b"lost"
            await asyncio.sleep(0.3)  # what was published here is of no use any more
            link.open = True
            await until_lost(messages)
            await until_lost(heard)  # it was not sent, and whoever reads elsewhere is told
            await until_heard(theirs, messages)
            await until_heard(mine, heard)
            assert mine.healthy
            await mine.ping()
            assert counted("carrel_bus_reconnects_total", result="anew") > anew


async def test_a_redis_that_is_killed_and_comes_back_empty(tmp_path: Any) -> None:
    port = free_port()
    process = start_redis(port, tmp_path)
    try:
        async with opened(port, port) as (mine, theirs), mine.subscribe("a") as messages:
            await until_heard(theirs, messages)
            stop(process, signal.SIGKILL)
            await until(lambda: not mine.healthy)
            await publish(theirs, "a", b"lost")
            process = start_redis(port, tmp_path)
            await until_lost(messages)
            await until_heard(theirs, messages)
            assert mine.healthy
    finally:
        stop(process)


async def test_a_redis_that_stands_still(tmp_path: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(redis_inbox, "RESUME_SECONDS", 0.2)
    port = free_port()
    process = start_redis(port, tmp_path)
    try:
        async with opened(port, port) as (mine, theirs), mine.subscribe("a") as messages:
            await until_heard(theirs, messages)
            os.killpg(process.pid, signal.SIGSTOP)
            await until_lost(messages)
            assert not mine.healthy
            for _ in range(100):
                await publish(theirs, "a", b"lost")
            began = time.monotonic()
            async with theirs.subscribe("c"):
                assert time.monotonic() - began < 2.0
            os.killpg(process.pid, signal.SIGCONT)
            await until_heard(theirs, messages)
            await until(lambda: mine.healthy)
    finally:
        os.killpg(process.pid, signal.SIGCONT)
        stop(process)


async def test_a_network_that_drops_everything(redis_url: str, monkeypatch: Any) -> None:
    monkeypatch.setattr(redis_inbox, "RESUME_SECONDS", 0.2)
    port = port_of(redis_url)
    async with link_to(port) as link, opened(link.port, port) as (mine, theirs), mine.subscribe("a") as messages:
        await until_heard(theirs, messages)
        link.mute(mute=True)
        await until_lost(messages)
        assert not mine.healthy
        link.mute(mute=False)
        await until_heard(theirs, messages)
        await until(lambda: mine.healthy)


async def test_a_slow_redis_is_slow_and_loses_nothing(redis_url: str) -> None:
    port = port_of(redis_url)
    async with link_to(port) as link, opened(link.port, port) as (mine, theirs), mine.subscribe("a") as messages:
        link.delay_seconds = 2.0
        for place in range(20):
            await publish(theirs, "a", b"there %d" % place)
            await publish(mine, "b", b"here %d" % place)
        assert [await anext(messages) for _ in range(20)] == [b"there %d" % place for place in range(20)]


async def test_more_than_redis_holds_is_seen_to_be_missing(redis_url: str, monkeypatch: Any) -> None:
    monkeypatch.setattr(redis_outbox, "INBOX_MESSAGES", 100)
    port = port_of(redis_url)
    async with link_to(port) as link, opened(link.port, port) as (mine, theirs), mine.subscribe("a") as messages:
        link.mute(mute=True)
        gaps = counted("carrel_bus_losses_total", reason="gap")
        for place in range(500):
            await publish(theirs, "a", b"%d" % place)
        assert await _last_of(redis_url, mine) > 500
        link.mute(mute=False)
        await until_lost(messages)
        assert counted("carrel_bus_losses_total", reason="gap") == gaps + 1
        assert await anext(messages) > b"0"  # what Redis still had comes after it


async def _last_of(redis_url: str, bus: RedisBus) -> int:
    """Return the number of the last entry of a bus's inbox, once all 500 are in it."""
    async with Redis.from_url(redis_url) as client:
        while True:
            last = (await client.xrevrange(bus._outbox.own, count=1))[0][0]
            assert await client.xlen(bus._outbox.own) < 500
            if int(last.partition(b"-")[2]) > 500:
                return int(last.partition(b"-")[2])
            await asyncio.sleep(0.01)


async def test_an_inbox_that_redis_has_forgotten(redis_url: str, monkeypatch: Any) -> None:
    monkeypatch.setattr(redis_inbox, "_BEAT_SECONDS", 0.0)
    async with opened(*2 * [port_of(redis_url)]) as (mine, theirs), mine.subscribe("a") as messages:
        async with Redis.from_url(redis_url) as client:
            await client.delete(mine._outbox.own)
        await until_lost(messages)
        await until_heard(theirs, messages)


async def test_an_inbox_keeps_what_it_needs_and_no_more(redis_url: str, monkeypatch: Any) -> None:
    monkeypatch.setattr(redis_inbox, "_BEAT_SECONDS", 0.0)
    async with opened(*2 * [port_of(redis_url)]) as (mine, theirs), mine.subscribe("a") as messages:
        for _ in range(400):
            await publish(theirs, "a", b"x")
            await anext(messages)
        async with Redis.from_url(redis_url) as client:
            while await client.xlen(mine._outbox.own) > 200:  # noqa: ASYNC110  Redis removes whole nodes of 100
                await asyncio.sleep(0.05)
            assert 0 < await client.ttl(mine._outbox.own) <= redis_inbox.INBOX_SECONDS


async def test_a_process_that_is_gone_is_forgotten(redis_url: str) -> None:
    async with Redis.from_url(redis_url) as client, opened(*2 * [port_of(redis_url)]) as (mine, theirs):
        readers = f"{redis_outbox.PREFIX}readers:gone"
        async with mine.subscribe("gone") as messages:
            await client.sadd(readers, f"{redis_outbox.PREFIX}inbox:dead")
            await publish(theirs, "gone", b"x")
            assert await anext(messages) == b"x"
            assert await client.smembers(readers) == {mine._outbox.own.encode()}
            assert 0 < await client.ttl(readers) <= redis_outbox.REGISTRATION_SECONDS
        await until_forgotten(client, readers)
        await client.sadd(readers, mine._outbox.own)  # as when it came back by registering again
        await publish(theirs, "gone", b"x")
        await until_forgotten(client, readers)
        inbox = mine._outbox.own
        await mine.aclose()
        assert not await client.exists(inbox)


async def test_registrations_are_renewed(redis_url: str, monkeypatch: Any) -> None:
    monkeypatch.setattr(redis_inbox, "_BEAT_SECONDS", 0.0)
    monkeypatch.setattr(redis_inbox, "REGISTRATION_SECONDS", 0)
    async with opened(*2 * [port_of(redis_url)]) as (mine, theirs), mine.subscribe("a") as messages:
        async with Redis.from_url(redis_url) as client:
            await client.delete(f"{redis_outbox.PREFIX}readers:a")
        await until_heard(theirs, messages)


async def test_what_cannot_be_sent_is_bounded_and_told(redis_url: str, monkeypatch: Any) -> None:
    monkeypatch.setattr(redis_outbox, "MAX_WAITING", 50)
    port = port_of(redis_url)
    async with link_to(port) as link, opened(link.port, port) as (mine, theirs), theirs.subscribe("a") as messages:
        unsent = counted("carrel_bus_losses_total", reason="unsent")
        link.mute(mute=True)
        for _ in range(500):
            await publish(mine, "a", b"x" * 1000)
            assert len(mine._outbox._news) <= 50
        link.mute(mute=False)
        await until_lost(messages)
        assert counted("carrel_bus_losses_total", reason="unsent") >= unsent + 400
        await until_heard(mine, messages)


async def test_a_bus_that_does_not_listen_yet_is_away(redis_url: str) -> None:
    bus = RedisBus(redis_url)
    try:
        assert not bus.healthy
        with pytest.raises(BusAway):
            await bus.ping()
    finally:
        await bus.aclose()


async def test_two_processes_that_close_say_all_they_had_to(redis_url: str) -> None:
    async with opened(*2 * [port_of(redis_url)]) as (mine, theirs), theirs.subscribe("a") as messages:
        for place in range(300):
            await publish(mine, "a", b"%d" % place)
        await mine.aclose()
        assert [await anext(messages) for _ in range(300)] == [b"%d" % place for place in range(300)]
