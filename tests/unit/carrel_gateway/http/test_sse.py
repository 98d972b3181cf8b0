"""Server-sent events.

Plan: what is encoded is read back by the SDK's parser, whatever the text holds and however it is cut; ids that this
server never gave are refused; a silent source gets comments, an ending one ends, a closed one is closed.
"""

from __future__ import annotations

import asyncio
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carrel_client._sse import EventParser
from carrel_gateway.errors import InvalidInput
from carrel_gateway.web import sse


@given(text=st.text(), size=st.integers(1, 50))
def test_any_text_survives(text, size):
    wire = sse.PING + sse.encode("message.user", {"content": text}, event_id=7)
    parser = EventParser()
    events = [event for at in range(0, len(wire), size) for event in parser.feed(wire[at : at + size])]
    assert [(event.event, event.last_event_id) for event in events] == [("message.user", "7")]
    assert json.loads(events[0].data) == {"content": text}


async def holds():
    return True


def test_live_event_has_no_id():
    assert b"id:" not in sse.encode("text.delta", {"text": "a"})


def test_last_event_id():
    assert sse.last_event_id(None) is None
    assert sse.last_event_id(" ") is None
    assert sse.last_event_id("42") == 42


@pytest.mark.parametrize("header", ["-1", "a", "1.5", "٣", "9" * 30, "1 2"])
def test_foreign_last_event_id(header):
    with pytest.raises(InvalidInput, match="must be the number of an event"):
        sse.last_event_id(header)


async def test_silence_is_filled_and_the_end_is_the_end():
    gate = asyncio.Event()

    async def source():
        yield b"first"
        await gate.wait()
        yield b"second"

    seen = []
    async for chunk in sse.with_pings(source(), asyncio.Event(), holds, seconds=0.001):
        seen.append(chunk)
        if seen.count(sse.PING) == 2:
            gate.set()
    assert seen[0] == b"first"
    assert seen[-1] == b"second"
    assert seen.count(sse.PING) >= 2


async def test_closing_closes_the_source():
    closed = []

    async def source():
        try:
            yield b"first"
            await asyncio.Event().wait()
        finally:
            closed.append(True)

    stream = sse.with_pings(source(), asyncio.Event(), holds, seconds=60)
    assert await anext(stream) == b"first"
    waiting = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await stream.aclose()
    assert closed == [True]


async def test_a_closing_process_ends_its_streams():
    closing = asyncio.Event()

    async def source():
        yield b"first"
        closing.set()
        await asyncio.Event().wait()

    assert [chunk async for chunk in sse.with_pings(source(), closing, holds, seconds=60)] == [b"first"]


async def test_an_error_of_the_source_comes_through():
    async def source():
        yield b"first"
        raise InvalidInput("no")

    stream = sse.with_pings(source(), asyncio.Event(), holds, seconds=60)
    await anext(stream)
    with pytest.raises(InvalidInput):
        await anext(stream)


async def test_a_stream_ends_when_its_caller_would_not_be_let_in_any_more(monkeypatch):
    monkeypatch.setattr(sse, "LOOK_SECONDS", 0.0)
    answers = iter([True, True, False])

    async def source():
        while True:
            yield b"item"

    async def asked():
        return next(answers)

    assert [chunk async for chunk in sse.with_pings(source(), asyncio.Event(), asked)] == [b"item", b"item"]


async def test_a_silent_stream_ends_too(monkeypatch):
    monkeypatch.setattr(sse, "LOOK_SECONDS", 0.0)
    answers = iter([True, False])

    async def source():
        await asyncio.Event().wait()
        yield b"never"

    async def asked():
        return next(answers)

    stream = sse.with_pings(source(), asyncio.Event(), asked, seconds=0.001)
    assert [chunk async for chunk in stream] == [sse.PING]
