"""Reading with a time limit.

Plan: running out of time loses no item; the end and errors of the stream arrive; closing ends the stream.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest

from carrel_gateway.execution.timed import StreamEnded, TimedReader


async def test_running_out_of_time_loses_nothing():
    gate = asyncio.Event()

    async def stream() -> AsyncGenerator[int, None]:
        yield 1
        await gate.wait()
        yield 2

    reader = TimedReader(stream())
    assert await reader.next(30) == 1
    assert await reader.next(0) is None
    assert await reader.next(0.001) is None
    gate.set()
    assert await reader.next(30) == 2
    with pytest.raises(StreamEnded):
        await reader.next(30)
    await reader.aclose()


async def test_errors_of_the_stream_arrive():
    async def stream() -> AsyncGenerator[int, None]:
        raise ValueError("broken")
        yield 1

    reader = TimedReader(stream())
    with pytest.raises(ValueError, match="broken"):
        await reader.next(None)
    await reader.aclose()


async def test_closing_ends_the_stream():
    closed = asyncio.Event()

    async def stream() -> AsyncGenerator[int, None]:
        try:
            await asyncio.Event().wait()
            yield 1
        finally:
            closed.set()

    reader = TimedReader(stream())
    assert await reader.next(0) is None
    await reader.aclose()
    assert closed.is_set()
