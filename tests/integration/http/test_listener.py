"""Limits of one connection (threats 14 and 33), over real sockets and around a small application.

Plan: heads that are too long, in one piece and in many, in one header and in many; heads and bodies that do not come to
an end, and those that only take their time; bodies that are almost nothing but framing; many requests at once; a client
that waits to be asked for its body is not late; a thousand connections that send half a head end by themselves, and
meanwhile others are answered.
"""

from __future__ import annotations

import asyncio
import resource
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
import uvicorn
from tests.support.raw import Answer, answers

from carrel_gateway import listener, serving

HEAD = b"POST / HTTP/1.1\r\nHost: localhost\r\n"
END = b"Connection: close\r\n\r\n"
LONG = 60.0
"""No test waits so long; what ends earlier was ended by the listener."""


async def application(scope, receive, send):
    """Read the body and answer with its size; `/later` waits before it reads."""
    if scope["type"] == "lifespan":
        for kind in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{kind}.complete"})
        return
    if scope["path"] == "/later":
        await asyncio.sleep(1)
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        size += len(message["body"])
        more = message["more_body"]
    body = str(size).encode()
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


@asynccontextmanager
async def served() -> AsyncIterator[tuple[uvicorn.Server, int]]:
    """Yield a server as the product has it, around the application, and its port."""
    config = serving.configuration(application)
    config.port = 0
    server = uvicorn.Server(config)
    running = asyncio.create_task(server._serve())
    try:
        while not server.started:  # noqa: ASYNC110  uvicorn tells nobody
            await asyncio.sleep(0.01)
        yield server, server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        await running


@pytest.fixture
def short(monkeypatch):
    monkeypatch.setattr(listener.Connection, "head_seconds", 0.4)
    monkeypatch.setattr(listener.Connection, "body_seconds", 0.4)


async def converse(*pieces: bytes, pause: float = 0.0) -> list[Answer]:
    """Send the pieces, and return what comes until the server hangs up."""
    async with served() as (_, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        received = asyncio.create_task(reader.read())
        with suppress(ConnectionError):
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(pause)
                if received.done():
                    break
        try:
            return answers(await asyncio.wait_for(received, LONG))
        except ConnectionResetError:  # it hung up before it had read all
            return []
        finally:
            writer.close()


def codes(found: list[Answer]) -> list[tuple[int, str]]:
    return [(answer.status, answer.json()["code"] if answer.status >= 400 else "") for answer in found]


async def test_a_head_within_the_limits_is_taken():
    lines = b"".join(b"X-%d: %s\r\n" % (number, b"v" * 200) for number in range(listener.MAX_HEADERS - 2))
    assert codes(await converse(HEAD + lines + END)) == [(200, "")]


TOO_LONG = {
    "one long header": (HEAD + b"X: " + b"v" * 40_000 + b"\r\n" + END, "headers_too_large"),
    "one long name": (HEAD + b"X" * 40_000 + b": v\r\n" + END, "headers_too_large"),
    "a long address": (b"GET /" + b"a" * 40_000 + b" HTTP/1.1\r\nHost: localhost\r\n" + END, "headers_too_large"),
    "a long query": (b"GET /?" + b"a=b&" * 10_000 + b" HTTP/1.1\r\nHost: localhost\r\n" + END, "headers_too_large"),
    "many long headers": (HEAD + (b"X: " + b"v" * 1000 + b"\r\n") * 50 + END, "headers_too_large"),
    "many headers": (HEAD + b"X: v\r\n" * 1000 + END, "too_many_headers"),
}


@pytest.mark.parametrize(
    ("request_bytes", "code"), TOO_LONG.values(), ids=[name.replace(" ", "-") for name in TOO_LONG]
)
async def test_heads_that_are_too_long_are_refused(request_bytes, code):
    assert codes(await converse(request_bytes)) == [(431, code)]


@pytest.mark.parametrize("start", [HEAD + b"X: ", HEAD + b"X", b"GET /", b"G"])
async def test_a_head_that_never_ends_is_not_kept(start):
    pieces = [start, *[b"v" * 1000] * 200]
    found = await converse(*pieces, pause=0.001)
    assert codes(found) in ([(431, "headers_too_large")], [(400, "malformed_request")], [])


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("pieces", [(), (b"\r\n",), (b"\r\n\r\n\r\n",)])
async def test_a_connection_on_which_nothing_comes_is_ended(pieces):
    assert await converse(*pieces) == []


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("start", [b"G", HEAD, HEAD + b"X: v", HEAD + b"X: v\r\n"])
async def test_a_head_that_does_not_come_to_its_end_is_not_waited_for(start):
    assert codes(await converse(start)) == [(408, "head_timeout")]


@pytest.mark.usefixtures("short")
async def test_a_head_that_comes_byte_by_byte_has_no_longer_time():
    drops = [HEAD, *[b"x"] * 100]
    assert codes(await converse(*drops, pause=0.05)) == [(408, "head_timeout")]


@pytest.mark.usefixtures("short")
async def test_the_next_head_on_a_connection_has_its_deadline_too():
    found = await converse(HEAD + b"Content-Length: 0\r\n\r\n", HEAD, pause=0.1)
    assert codes(found) == [(200, ""), (408, "head_timeout")]


@pytest.mark.usefixtures("short")
async def test_an_empty_line_after_an_answer_keeps_no_connection():
    found = await converse(HEAD + b"Content-Length: 0\r\n\r\n", b"\r\n", pause=0.1)
    assert codes(found) == [(200, "")]


@pytest.mark.usefixtures("short")
async def test_a_body_that_comes_byte_by_byte_is_not_waited_for():
    drops = [HEAD + b"Content-Length: 100000\r\n" + END, *[b"x"] * 100]
    assert codes(await converse(*drops, pause=0.05)) == [(408, "body_timeout")]


@pytest.mark.usefixtures("short")
async def test_a_body_that_takes_its_time_is_read():
    pieces = [HEAD + b"Content-Length: 50000\r\n" + END, *[b"x" * 5000] * 10]
    (answer,) = await converse(*pieces, pause=0.15)
    assert (answer.status, answer.body) == (200, b"50000")


@pytest.mark.usefixtures("short")
async def test_who_waits_to_be_asked_for_the_body_is_not_late():
    head = b"POST /later HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 5\r\n" + END
    (answer,) = await converse(head, b"", b"hello", pause=0.6)
    assert (answer.status, answer.body) == (200, b"5")


@pytest.mark.usefixtures("short")
async def test_a_body_that_is_not_read_is_not_late():
    size = 1_000_000
    head = b"POST /later HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n" % size + END
    (answer,) = await converse(head, b"x" * size)
    assert (answer.status, answer.body) == (200, str(size).encode())


FRAMING = {
    "extensions": [b"1;" + b"e" * 100_000] + [b"e" * 100_000] * 5,
    "trailers": [b"0\r\n", *[b"X: %s\r\n" % (b"v" * 1000)] * 600],
    "leading zeros": [b"0" * 100_000] * 5,
}


@pytest.mark.parametrize("pieces", FRAMING.values(), ids=FRAMING)
async def test_a_body_of_nothing_but_framing_is_refused(pieces):
    found = await converse(HEAD + b"Transfer-Encoding: chunked\r\n" + END, *pieces, pause=0.01)
    assert codes(found) in ([(400, "too_much_around_the_body")], [(400, "malformed_request")], [])


async def test_chunks_of_one_byte_are_a_body():
    body = b"1\r\nx\r\n" * 50_000 + b"0\r\n\r\n"
    (answer,) = await converse(HEAD + b"Transfer-Encoding: chunked\r\n" + END, body)
    assert (answer.status, answer.body) == (200, b"50000")


async def test_many_requests_at_once_are_not_kept():
    found = await converse((HEAD + b"Content-Length: 0\r\n\r\n") * 1000)
    assert all(answer.status == 200 for answer in found)
    assert len(found) <= listener.MAX_PIPELINED + 1


async def test_a_few_requests_at_once_are_answered_in_turn():
    request = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%s"
    sent = b"".join(request % (size, b"x" * size) for size in range(1, 10))
    found = await converse(sent + HEAD + END)
    assert [answer.body for answer in found] == [str(size).encode() for size in (*range(1, 10), 0)]


async def test_a_thousand_half_heads_end_and_hold_up_nobody(monkeypatch):
    monkeypatch.setattr(listener.Connection, "head_seconds", 5.0)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 4096)), hard))
    count, hanging = 1000, []
    try:
        async with served() as (server, port):
            for _ in range(count):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(HEAD)
                hanging.append((reader, writer))
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(HEAD + b"Content-Length: 2\r\n" + END + b"hi")
            (answer,) = answers(await asyncio.wait_for(reader.read(), LONG))
            assert (answer.status, answer.body) == (200, b"2")
            writer.close()
            async with asyncio.timeout(LONG):
                ends = await asyncio.gather(*(reader.read() for reader, _ in hanging))
                assert {codes(answers(end))[0] for end in ends} == {(408, "head_timeout")}
                while server.server_state.connections:  # noqa: ASYNC110  uvicorn tells nobody
                    await asyncio.sleep(0.01)
    finally:
        for _, writer in hanging:
            writer.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
