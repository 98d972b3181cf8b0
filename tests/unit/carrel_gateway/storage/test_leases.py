"""Calls counted ahead: few questions to the counter, and next to nothing of a budget lost.

Plan: the counter is a number and the clock a variable. Small limits are counted call by call. Who calls fast asks the
counter for one call in twenty, who calls slowly wastes nothing, and who stops loses one lease. What does not fit is
refused only when not even one call fits. What was held too long is no good any more. At once nobody takes two leases.
"""

from __future__ import annotations

import asyncio

import pytest

from carrel_gateway.storage.leases import LIFE, Leases

SECONDS = 10


class Counter:
    """What is shared, with a clock."""

    def __init__(self, limit: int) -> None:
        self.limit, self.count, self.asked, self.now = limit, 0, 0, 100.0
        self.leases = Leases(clock=lambda: self.now, size=100)

    async def acquire(self, amount: int) -> bool:
        self.asked += 1
        await asyncio.sleep(0)
        if self.count + amount > self.limit:
            return False
        self.count += amount
        return True

    async def hit(self, cost: int = 1, key: str = "key") -> bool:
        return await self.leases.hit(key, limit=self.limit, seconds=SECONDS, cost=cost, acquire=self.acquire)


async def test_small_limits_are_counted_call_by_call():
    counter = Counter(60)
    for count in range(1, 61):
        assert await counter.hit()
        assert counter.asked == counter.count == count
    assert not await counter.hit()


async def test_who_calls_fast_asks_seldom_and_gets_all_of_the_budget():
    counter = Counter(1000)
    for _ in range(1000):
        counter.now += 0.001
        assert await counter.hit()
    assert counter.count == 1000
    assert counter.asked < 70
    assert not await counter.hit()


@pytest.mark.parametrize("pace", [0.2, 1, 3, 9, 30, 77])
async def test_little_is_counted_that_is_not_called(pace: float):
    counter = Counter(10_000)
    calls = int(pace * 100) + 1
    for _ in range(calls):
        counter.now += 1 / pace
        assert await counter.hit()
    assert counter.count <= calls * 1.02 + 32


async def test_who_stops_loses_what_was_left_of_one_lease():
    counter = Counter(10_000)
    for _ in range(300):
        assert await counter.hit()
    assert counter.count - 300 < 32
    counter.now += SECONDS * LIFE
    before, asked = counter.count, counter.asked
    assert await counter.hit()
    assert (counter.count - before, counter.asked - asked) == (1, 1), "what was left is no good any more"


async def test_what_weighs_more_is_counted_by_itself():
    counter = Counter(10_000)
    for count in range(1, 101):
        assert await counter.hit(cost=7)
        assert (counter.count, counter.asked) == (7 * count, count)


async def test_at_once_nobody_takes_two_leases():
    counter = Counter(1000)
    for _ in range(8):
        assert all(await asyncio.gather(*(counter.hit() for _ in range(16))))
    assert 128 <= counter.count < 128 + 20


async def test_who_comes_while_a_lease_is_renewed_gets_of_it():
    counter = Counter(10_000)
    for _ in range(100):
        assert await counter.hit()  # it is as large as it gets
    asked = counter.asked
    for _ in range(32):
        assert all(await asyncio.gather(*(counter.hit() for _ in range(16))))
    assert counter.asked - asked <= 32 * 16 / 32 + 1


async def test_a_counter_that_fails_leaves_nothing_behind():
    counter = Counter(1000)

    async def fails(_amount: int) -> bool:
        raise TimeoutError

    for _ in range(3):
        with pytest.raises(TimeoutError):
            await counter.leases.hit("key", limit=1000, seconds=SECONDS, cost=1, acquire=fails)
    assert await counter.hit()
    assert counter.count == 1


async def test_memory_is_bounded():
    counter = Counter(100_000)
    for place in range(1000):
        assert await counter.hit(key=str(place))
    assert len(counter.leases) == 100
