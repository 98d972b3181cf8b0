"""Principals that are remembered.

Plan: for half a minute, without a working bus for seconds, and never beyond the credential's own end; not before the
tenant's news are heard; news of the key or of the user end it, those of others do not, lost news end all of it; what
was looked up before the news is not kept; at most so many; a tenant without callers is not listened to for ever.
"""

from __future__ import annotations

import asyncio
from uuid import UUID

import pytest

from carrel_gateway.context import Principal
from carrel_gateway.identity import cache as caching
from carrel_gateway.identity.cache import PrincipalCache
from carrel_gateway.identity.revocations import announce, channel_of
from carrel_gateway.storage.bus import InProcessBus
from carrel_gateway.storage.ids import new_id

TENANT, OTHER = UUID(int=1), UUID(int=2)


def principal(tenant_id: UUID = TENANT) -> Principal:
    return Principal(tenant_id, new_id(), credential_id=new_id())


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Bus(InProcessBus):
    healthy = True


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def bus():
    return Bus()


@pytest.fixture
async def cache(bus, clock):
    made = PrincipalCache(bus, clock=clock, size=3)
    for tenant in (TENANT, OTHER):
        made.keep(b"first", principal(tenant), made.mark(tenant))
        await settled()
        assert made.get(b"first") is None  # nobody would have told of its end
    yield made
    await made.aclose()


async def settled():
    for _ in range(5):
        await asyncio.sleep(0)


async def until_unheard(bus: Bus, tenant_id: UUID) -> None:
    for _ in range(1000):
        if not bus._readers.has(channel_of(tenant_id)):
            return
        await asyncio.sleep(0.01)
    pytest.fail("it is still listened to")


def keep(cache: PrincipalCache, digest: bytes, who: Principal, **options: float) -> Principal:
    cache.keep(digest, who, cache.mark(who.tenant_id), **options)
    assert cache.get(digest) is who
    return who


async def test_for_half_a_minute(cache, clock):
    keep(cache, b"a", principal())
    clock.now += 29
    assert cache.get(b"a")
    clock.now += 1
    assert cache.get(b"a") is None


async def test_for_seconds_while_news_do_not_get_through(cache, clock, bus):
    keep(cache, b"a", principal())
    clock.now += 4
    bus.healthy = False
    assert cache.get(b"a")
    clock.now += 1
    assert cache.get(b"a") is None
    bus.healthy = True
    assert cache.get(b"a") is None


async def test_never_beyond_its_own_end(cache, clock):
    keep(cache, b"a", principal(), seconds=3)
    clock.now += 3
    assert cache.get(b"a") is None


async def test_news_of_key_and_user_end_it_and_others_do_not(cache, bus):
    one, two = keep(cache, b"a", principal()), keep(cache, b"b", principal())
    await announce(bus, OTHER, one.user_id, one.credential_id)
    await announce(bus, TENANT, new_id())
    await settled()
    assert cache.get(b"a") is one
    await announce(bus, TENANT, one.credential_id)
    await settled()
    assert (cache.get(b"a"), cache.get(b"b")) == (None, two)
    await announce(bus, TENANT, two.user_id)
    await settled()
    assert cache.get(b"b") is None


@pytest.mark.parametrize("data", [b"", b"x" * 32, b"\xff" * 32, b"0" * 33])
async def test_news_that_cannot_be_read_end_all_of_the_tenants(cache, bus, data):
    keep(cache, b"a", principal())
    other = keep(cache, b"b", principal(OTHER))
    await bus.publish(channel_of(TENANT), data)
    await settled()
    assert (cache.get(b"a"), cache.get(b"b")) == (None, other)


async def test_lost_news_end_all_of_the_tenants(cache, bus):
    keep(cache, b"a", principal())
    bus._readers.lose_all("cut")
    await settled()
    assert cache.get(b"a") is None
    keep(cache, b"a", principal())


async def test_what_was_looked_up_before_the_news_is_not_kept(cache, bus):
    mark = cache.mark(TENANT)
    await announce(bus, TENANT, new_id())
    await settled()
    cache.keep(b"a", principal(), mark)
    assert cache.get(b"a") is None


async def test_at_most_so_many(cache):
    for digest in (b"a", b"b", b"c"):
        keep(cache, digest, principal())
    cache.get(b"a")
    keep(cache, b"d", principal())
    assert [cache.get(digest) is not None for digest in (b"a", b"b", b"c", b"d")] == [True, False, True, True]


async def test_a_tenant_without_callers_is_not_listened_to_for_ever(cache, clock, bus, monkeypatch):
    monkeypatch.setattr(caching, "_IDLE_SECONDS", 0.01)
    keep(cache, b"a", principal())
    await announce(bus, TENANT, new_id())
    await announce(bus, OTHER, new_id())
    await until_unheard(bus, OTHER)
    assert cache.get(b"a")
    assert cache.mark(OTHER) is None
    clock.now += 60
    assert cache.get(b"a") is None
    await until_unheard(bus, TENANT)


async def test_one_that_cannot_be_heard_any_more_is_not_believed(bus, clock):
    class Broken(Bus):
        def subscribe(self, channel):
            raise RuntimeError(channel)

    cache = PrincipalCache(Broken(), clock=clock)
    for _ in range(2):
        cache.keep(b"a", principal(), cache.mark(TENANT))
        await settled()
        assert cache.get(b"a") is None
    await cache.aclose()
