"""The queue's guarantees, one test for each, by their numbers in its docstring.

Keys are handled by functions that wait for events of the test, so that no test depends on how fast the machine is;
delays are only compared with each other or bounded from below.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from carrel_operator.errors import ApiUnavailable
from carrel_operator.queue import Again, WorkQueue

DEADLINE = 30.0


@asynccontextmanager
async def running(queue: WorkQueue[str], handle: Callable[[str], Awaitable[Again]]):
    """Have the queue handle keys meanwhile."""
    task = asyncio.create_task(queue.run(handle))
    try:
        async with asyncio.timeout(DEADLINE):
            yield
        assert not task.done()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(holds: Callable[[], bool]) -> None:
    """Wait; the deadline of `running` bounds it."""
    while not holds():  # noqa: ASYNC110 (the condition is the test's own, not an event)
        await asyncio.sleep(0.001)


def queue_of(workers: int = 4, **options: float) -> WorkQueue[str]:
    return WorkQueue(lambda key: key.split("/")[0], workers=workers, **options)


async def test_1_a_key_is_handled_by_one_worker_at_a_time():
    queue = queue_of()
    inside, most, handled = 0, 0, 0

    async def handle(key: str) -> Again:
        nonlocal inside, most, handled
        inside += 1
        most = max(most, inside)
        queue.add(key)  # asks for itself while it is handled
        await asyncio.sleep(0)
        inside -= 1
        handled += 1
        return Again()

    async with running(queue, handle):
        queue.add("a/1")
        await until(lambda: handled >= 50)
    assert most == 1


async def test_1_different_keys_are_handled_at_the_same_time():
    queue = queue_of(workers=4)
    barrier = asyncio.Barrier(3)

    async def handle(_: str) -> Again:
        await barrier.wait()
        return Again()

    async with running(queue, handle):
        for key in ("a/1", "a/2", "a/3"):
            queue.add(key)
        await until(lambda: not len(queue) and not queue._handled)


async def test_2_a_key_that_is_added_while_it_waits_is_handled_once():
    queue = queue_of(workers=1)
    handled: list[str] = []

    async def handle(key: str) -> Again:
        handled.append(key)
        return Again()

    for _ in range(5):
        queue.add("a/1")
    queue.add("a/2")
    assert len(queue) == 2
    async with running(queue, handle):
        await until(lambda: len(handled) >= 2 and not len(queue))
    assert handled == ["a/1", "a/2"]


async def test_2_a_key_that_is_added_while_it_is_handled_is_handled_once_more():
    queue = queue_of()
    began, go_on = asyncio.Semaphore(0), asyncio.Semaphore(0)
    handled = 0

    async def handle(_: str) -> Again:
        nonlocal handled
        handled += 1
        began.release()
        await go_on.acquire()
        return Again()

    async with running(queue, handle):
        queue.add("a/1")
        await began.acquire()
        for _ in range(5):
            queue.add("a/1")
        assert len(queue) == 0
        go_on.release()
        await began.acquire()
        go_on.release()
        await until(lambda: not queue._handled)
        assert len(queue) == 0
    assert handled == 2


async def test_3_a_key_that_fails_comes_back_with_growing_delays():
    queue = queue_of(first_delay=0.02, longest_delay=10)
    times: list[float] = []

    async def handle(_: str) -> Again:
        times.append(time.monotonic())
        return Again(retry=len(times) < 5)

    async with running(queue, handle):
        queue.add("a/1")
        await until(lambda: len(times) == 5)
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    for tries, gap in enumerate(gaps):
        assert gap >= 0.02 * 2**tries * 0.8


async def test_3_delays_have_an_upper_bound():
    queue = queue_of(first_delay=0.01, longest_delay=0.02)
    for _ in range(100):
        queue.retry("a/1")
    assert queue._due["a/1"] - time.monotonic() <= 0.02


async def test_3_a_success_forgets_the_failures():
    queue = queue_of(first_delay=0.001)
    handled = 0

    async def handle(_: str) -> Again:
        nonlocal handled
        handled += 1
        return Again(retry=handled < 4)

    async with running(queue, handle):
        queue.add("a/1")
        await until(lambda: handled == 4 and not queue._handled)
    assert queue._failures == {}


async def test_4_a_delayed_key_comes_at_its_time():
    queue = queue_of()
    times: dict[str, float] = {}

    async def handle(key: str) -> Again:
        times[key] = time.monotonic()
        return Again()

    began = time.monotonic()
    async with running(queue, handle):
        queue.add_after("a/late", 0.2)
        queue.add_after("a/soon", 0.05)
        assert queue.delayed == 2
        await until(lambda: len(times) == 2)
    assert times["a/soon"] - began >= 0.05
    assert times["a/late"] - began >= 0.2
    assert times["a/soon"] < times["a/late"]


async def test_4_of_several_times_the_earliest_counts():
    queue = queue_of()
    times: list[float] = []

    async def handle(_: str) -> Again:
        times.append(time.monotonic())
        return Again()

    async with running(queue, handle):
        queue.add_after("a/1", 3600)
        queue.add_after("a/1", 0.01)
        queue.add_after("a/1", 7200)
        await until(lambda: len(times) == 1)
    assert queue.delayed == 0


async def test_4_the_handler_may_ask_for_a_delay():
    queue = queue_of()
    handled = 0

    async def handle(_: str) -> Again:
        nonlocal handled
        handled += 1
        return Again(after=0.01 if handled < 3 else None)

    async with running(queue, handle):
        queue.add("a/1")
        await until(lambda: handled == 3)


async def test_5_groups_take_turns():
    queue = queue_of(workers=1)
    order: list[str] = []

    async def handle(key: str) -> Again:
        order.append(key)
        return Again()

    for number in range(1000):
        queue.add(f"many/{number}")
    queue.add("few/1")
    queue.add("few/2")
    async with running(queue, handle):
        await until(lambda: len(order) == 1002)
    assert order.index("few/1") == 1
    assert order.index("few/2") == 3


@pytest.mark.parametrize(("workers", "most"), [(2, 1), (4, 3), (32, 24)])
async def test_5_no_group_has_more_than_three_quarters_of_the_workers(workers: int, most: int):
    queue = queue_of(workers=workers)
    go_on = asyncio.Event()
    handled: list[str] = []

    async def handle(key: str) -> Again:
        handled.append(key)
        await go_on.wait()
        return Again()

    for number in range(2 * workers):
        queue.add(f"many/{number}")
    async with running(queue, handle):
        await until(lambda: len(handled) == most)
        for _ in range(50):  # turns of the loop in which more could begin
            await asyncio.sleep(0)
        assert len(handled) == most
        queue.add("few/1")
        await until(lambda: "few/1" in handled)
        assert len(handled) == most + 1
        go_on.set()
        await until(lambda: len(handled) == 2 * workers + 1)


async def test_5_a_thousand_keys_of_a_slow_group_do_not_delay_the_key_of_another():
    """In order of beginnings: no key of the slow group ends until the other one has been handled."""
    queue = queue_of(workers=4)
    other_done = asyncio.Event()
    order: list[str] = []

    async def handle(key: str) -> Again:
        order.append(key)
        if key.startswith("slow/"):
            await other_done.wait()
        else:
            other_done.set()
        return Again()

    for number in range(1000):
        queue.add(f"slow/{number}")
    async with running(queue, handle):
        await until(lambda: len(order) == 3)
        queue.add("other/1")
        await until(lambda: len(order) == 1001)
    assert order.index("other/1") == 3


async def test_5_the_group_of_a_key_that_changes_meanwhile_is_given_back():
    groups = {"k": "before"}
    queue: WorkQueue[str] = WorkQueue(lambda key: groups.get(key, "other"), workers=2)
    handled: list[str] = []

    async def handle(key: str) -> Again:
        groups["k"] = "after"
        handled.append(key)
        return Again()

    queue.add("k")
    async with running(queue, handle):
        await until(lambda: not queue._handled and handled == ["k"])
        queue.add("k")
        await until(lambda: not queue._handled and len(handled) == 2)
    assert not queue._busy
    assert not queue._group


@pytest.mark.parametrize("fault", [ApiUnavailable("away"), KeyError("bug")])
async def test_6_a_fault_ends_neither_the_worker_nor_the_queue(fault: Exception):
    queue = queue_of(workers=1, first_delay=0.001)
    seen: list[str] = []

    async def handle(key: str) -> Again:
        seen.append(key)
        if key == "a/bad" and seen.count(key) < 3:
            raise fault
        return Again()

    async with running(queue, handle):
        queue.add("a/bad")
        queue.add("a/good")
        await until(lambda: seen.count("a/bad") == 3 and "a/good" in seen)


async def test_what_waits_and_what_is_handled_is_measured():
    queue = queue_of(workers=1)
    assert (queue.oldest_wait(), queue.longest_handling()) == (pytest.approx(0, abs=0.1), pytest.approx(0, abs=0.1))
    go_on = asyncio.Event()

    async def handle(_: str) -> Again:
        await go_on.wait()
        return Again()

    async with running(queue, handle):
        queue.add("a/1")
        await until(lambda: bool(queue._handled))
        queue.add("a/2")
        await until(lambda: queue.oldest_wait() > 0.01 and queue.longest_handling() > 0.01)
        go_on.set()
        await until(lambda: not queue._handled and not len(queue))


async def test_cancelling_ends_it():
    queue = queue_of()

    async def handle(_: str) -> Again:
        await asyncio.Event().wait()
        return Again()

    task = asyncio.create_task(queue.run(handle))
    queue.add("a/1")
    async with asyncio.timeout(DEADLINE):
        await until(lambda: bool(queue._handled))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_cancelling_ends_it_also_when_something_is_added_just_then():
    async def handle(_: str) -> Again:
        return Again()

    queue = queue_of(workers=2)
    task = asyncio.create_task(queue.run(handle))
    for _ in range(5):  # until everything waits
        await asyncio.sleep(0)
    async with asyncio.timeout(DEADLINE):
        queue.add("a/1")
        await asyncio.sleep(0)  # what was added has woken, and has not run yet
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
