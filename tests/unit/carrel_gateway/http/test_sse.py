"""Server-sent events.

Plan: what is encoded is read back by the SDK's parser, whatever the text holds and however it is cut; ids that this
server never gave are refused; a silent stream gets comments, an ending one ends, a closed one is closed, and a reader
that takes nothing is cut.
"""

from __future__ import annotations

import asyncio
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import REGISTRY

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


def test_a_document_is_passed_on_as_it_is():
    assert sse.encode_text("output", b'{"live":true}') == b'event: output\ndata: {"live":true}\n\n'


class Reader:
    """The other side of an ASGI application."""

    def __init__(self):
        self.started = None
        self.body = b""
        self.writes = 0
        self.ended = False
        self.leaves = asyncio.Event()
        self.reads = asyncio.Event()
        self.reads.set()

    async def receive(self):
        await self.leaves.wait()
        return {"type": "http.disconnect"}

    async def send(self, message):
        await self.reads.wait()
        if message["type"] == "http.response.start":
            self.started = dict(message["headers"])
            return
        self.body += message["body"]
        self.writes += bool(message["body"])
        self.ended = not message.get("more_body", False)

    async def serve(self, stream):
        await stream({"type": "http"}, self.receive, self.send)


class Pieces:
    """Yields what it is given, and knows when it is closed."""

    def __init__(self, *pieces, then=None):
        self.closed = False
        self.gate = asyncio.Event()
        self._pieces = pieces
        self._then = then

    async def run(self):
        try:
            for piece in self._pieces:
                yield piece
            if self._then:
                raise self._then
            await self.gate.wait()
        finally:
            self.closed = True


async def still():
    return True


async def until(said):
    async with asyncio.timeout(10):
        while not said():  # noqa: ASYNC110  a state that nobody else waits for
            await asyncio.sleep(0)


async def test_pieces_come_whole_and_the_end_is_the_end():
    reader, pieces = Reader(), Pieces(b"first", b"", b"second")
    pieces.gate.set()
    await reader.serve(sse.EventStream(pieces.run(), asyncio.Event(), still, {"Carrel-Run-Id": "x"}))
    assert (reader.body, reader.writes, reader.ended, pieces.closed) == (b"firstsecond", 2, True, True)
    assert reader.started[b"content-type"].startswith(b"text/event-stream")
    assert reader.started[b"carrel-run-id"] == b"x"
    assert b"content-length" not in reader.started


async def test_silence_is_filled():
    reader, pieces = Reader(), Pieces(b"first", b"", b"")
    pieces.gate.set()
    await reader.serve(sse.EventStream(pieces.run(), asyncio.Event(), still, ping_seconds=0))
    assert reader.body == b"first" + 2 * sse.PING


@pytest.mark.parametrize("who", ["reader", "process"])
async def test_who_goes_ends_it(who):
    reader, pieces, closing = Reader(), Pieces(b"first"), asyncio.Event()
    serving = asyncio.create_task(reader.serve(sse.EventStream(pieces.run(), closing, still)))
    await until(lambda: reader.body == b"first")
    (reader.leaves if who == "reader" else closing).set()
    await serving
    assert pieces.closed
    assert reader.ended == (who == "process"), "nobody writes to a reader that has gone"


async def test_it_ends_with_the_right_to_it(monkeypatch):
    monkeypatch.setattr(sse, "LOOK_SECONDS", 0.01)
    answers = [True, True, False]

    async def holds():
        return answers.pop(0)

    reader, pieces = Reader(), Pieces(b"first")
    await reader.serve(sse.EventStream(pieces.run(), asyncio.Event(), holds))
    assert (reader.body, reader.ended, pieces.closed, answers) == (b"first", True, True, [])


async def test_a_reader_that_takes_nothing_is_cut_without_an_end():
    before = REGISTRY.get_sample_value("carrel_slow_readers_total", {"kind": "sse"}) or 0.0
    reader, pieces = Reader(), Pieces(b"first", b"second", b"third")
    stream = sse.EventStream(pieces.run(), asyncio.Event(), still, slow_seconds=0.05)
    sending = reader.send

    async def stuck(message):
        await sending(message)
        reader.reads.clear()

    reader.send = stuck
    serving = asyncio.create_task(reader.serve(stream))
    reader.reads.set()
    await until(lambda: reader.started is not None)
    reader.reads.set()
    await until(lambda: reader.body == b"first")
    await serving
    assert (reader.body, reader.ended, pieces.closed) == (b"first", False, True)
    assert REGISTRY.get_sample_value("carrel_slow_readers_total", {"kind": "sse"}) == before + 1


async def test_what_goes_wrong_is_not_swallowed():
    with pytest.raises(ValueError, match="wrong"):
        await Reader().serve(sse.EventStream(Pieces(b"x", then=ValueError("wrong")).run(), asyncio.Event(), still))
