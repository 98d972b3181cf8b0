"""The queue between a recording and one reader.

Plan: order is kept; a full queue makes the writer wait and a reading reader lets it go on; a reader that does not read
is cut off with what it has and an error; a reader that goes away blocks nobody; an error comes after the events.
"""

from __future__ import annotations

import asyncio

import pytest

from carrel_gateway.errors import Conflict
from carrel_gateway.execution.subscription import Subscription, size_of
from carrel_wire.events import Display, Stdout


def text(n: int, size: int = 100) -> Stdout:
    return Stdout(n=n, text="x" * size)


async def test_order_is_kept():
    reader = Subscription()
    for n in range(10):
        await reader.put(text(n))
    assert [(await reader.get()).n for _ in range(10)] == list(range(10))


async def test_a_full_queue_holds_the_writer_until_there_is_room():
    reader = Subscription(max_bytes=1000, stall_seconds=60)
    await reader.put(text(1, 2000))
    writing = asyncio.create_task(reader.put(text(2)))
    for _ in range(5):
        await asyncio.sleep(0)
    assert not writing.done()
    assert (await reader.get()).n == 1
    await writing
    assert (await reader.get()).n == 2


async def test_a_reader_that_does_not_read_is_cut_off():
    reader = Subscription(max_bytes=1000, stall_seconds=0.01)
    await reader.put(text(1, 2000))
    await reader.put(text(2))
    assert (await reader.get()).n == 1
    with pytest.raises(Conflict, match="not read for too long"):
        await reader.get()


async def test_a_reader_that_goes_away_blocks_nobody():
    reader = Subscription(max_bytes=1000, stall_seconds=60)
    await reader.put(text(1, 2000))
    writing = asyncio.create_task(reader.put(text(2)))
    await asyncio.sleep(0)
    reader.close()
    await writing


async def test_the_error_comes_after_the_events():
    reader = Subscription()
    reader.prefill([text(1)])
    reader.fail(Conflict("over"))
    assert (await reader.get()).n == 1
    with pytest.raises(Conflict, match="over"):
        await reader.get()


def test_size_counts_what_is_held():
    assert size_of(Display(n=1, data={"image/png": "x" * 5000})) >= 5000
    assert size_of(text(1, 5000)) >= 5000
