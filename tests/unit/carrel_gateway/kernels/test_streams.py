"""Streams of a kernel host over connections that are kept: what is right, and all that can break.

Plan: a server on a Unix socket that answers as it is told. Pieces come as they are sent, the status and the headers
before; a connection is used again when its answer was read to the end, and no other one is. One that was closed
meanwhile is replaced, and the request is sent once more; where nobody listens then, it may have been taken, which is
not the same as never sent. What is cut, is not HTTP or has no end is an error and takes no memory. Over TCP the socket
notices a peer that is gone.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from carrel_gateway.executors.base import HostEndpoint
from carrel_gateway.kernels.connection import watch
from carrel_gateway.kernels.streams import (
    BUFFER_BYTES,
    MAX_HEADERS_BYTES,
    HostStreams,
    ProtocolError,
    Reply,
    UnreachableError,
)

HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nCarrel-Acknowledged: 1\r\n\r\n"
END = b"0\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


class Host:
    """A server, what it was asked, and over how many connections."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.requests: list[bytes] = []
        self.connections = 0
        self.answer: Callable[[asyncio.StreamWriter], Awaitable[None]] = self.whole
        self.writers: list[asyncio.StreamWriter] = []
        self.served: set[asyncio.Task[None]] = set()
        self.streams = HostStreams(
            HostEndpoint(session_uid="s", audience="a", url="http://kernel-host", unix_socket=path), watch
        )

    async def whole(self, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + chunk(b"one\n") + chunk(b"two\n") + END)

    async def sends(self, *parts: bytes) -> None:
        async def answer(writer: asyncio.StreamWriter) -> None:
            for part in parts:
                writer.write(part)
                await writer.drain()
            writer.close()

        self.answer = answer

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.writers.append(writer)
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = next((int(line[15:]) for line in head.split(b"\r\n") if line.startswith(b"Content-Length")), 0)
                self.requests.append(head + await reader.readexactly(length))
                await self.answer(writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def put(self) -> Reply:
        return await self.streams.open("PUT", "/v1/x", {"Authorization": "Bearer t"}, b'{"code": "1"}')

    async def ask(self) -> bytes:
        reply = await self.put()
        try:
            return b"".join([piece async for piece in reply])
        finally:
            self.streams.give_back(reply)


@asynccontextmanager
async def listening(host: Host) -> AsyncIterator[asyncio.Server]:
    server = await asyncio.start_unix_server(host.serve, host.path)
    try:
        yield server
    finally:
        server.close()
        for writer in host.writers:
            writer.close()


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[Host]:
    host = Host(tmp_path / "host.sock")
    async with listening(host):
        yield host
        host.streams.close()


async def test_an_answer_comes_in_pieces_after_its_head(host: Host):
    more = asyncio.Event()

    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + chunk(b"one\n"))
        await more.wait()
        writer.write(chunk(b"two\n") + END)

    host.answer = answer
    reply = await host.put()
    assert (reply.status, reply.headers["carrel-acknowledged"]) == (200, "1")
    assert await anext(reply) == b"one\n"
    more.set()
    assert [piece async for piece in reply] == [b"two\n"]
    assert host.requests == [
        b'PUT /v1/x HTTP/1.1\r\nHost: kernel-host\r\nAuthorization: Bearer t\r\nContent-Length: 13\r\n\r\n{"code": "1"}'
    ]


async def test_a_connection_is_used_again(host: Host):
    for _ in range(5):
        assert await host.ask() == b"one\ntwo\n"
    assert (host.connections, len(host.requests)) == (1, 5)
    assert await asyncio.gather(host.ask(), host.ask()) == [b"one\ntwo\n"] * 2
    assert host.connections == 2


async def test_one_that_was_not_read_to_its_end_is_not(host: Host):
    reply = await host.put()
    host.streams.give_back(reply)
    assert await host.ask() == b"one\ntwo\n"
    assert host.connections == 2


async def test_nor_one_that_the_host_wants_to_close(host: Host):
    await host.sends(HEAD.replace(b"Carrel", b"Connection: close\r\nCarrel") + chunk(b"x") + END)
    assert await host.ask() == b"x"
    assert await host.ask() == b"x"
    assert host.connections == 2


async def test_nor_one_that_was_idle_for_long(host: Host, monkeypatch: pytest.MonkeyPatch):
    await host.ask()
    monkeypatch.setattr("carrel_gateway.kernels.streams.IDLE_SECONDS", -1.0)
    await host.ask()
    assert host.connections == 2


async def test_one_that_was_closed_meanwhile_is_replaced(host: Host):
    await host.ask()

    async def close(writer: asyncio.StreamWriter) -> None:
        host.answer = host.whole
        writer.close()

    host.answer = close
    assert await host.ask() == b"one\ntwo\n"
    assert (host.connections, len(host.requests)) == (2, 3), "the request was sent once more"


async def test_where_the_host_went_before_nothing_was_sent(tmp_path: Path):
    host = Host(tmp_path / "host.sock")
    async with listening(host) as server:
        await host.ask()
        server.close()
        host.path.unlink(missing_ok=True)
        host.writers[0].transport.abort()
        await asyncio.sleep(0)
        with pytest.raises(UnreachableError):  # the loop itself has not told of the end yet
            await host.ask()
        assert len(host.requests) == 1


async def test_a_new_one_that_is_closed_is_an_error(host: Host):
    await host.sends()
    with pytest.raises(ConnectionError) as caught:
        await host.ask()
    assert not isinstance(caught.value, UnreachableError)
    assert len(host.requests) == 1


async def test_where_nobody_listens_nothing_was_sent(tmp_path: Path):
    with pytest.raises(UnreachableError):
        await Host(tmp_path / "none.sock").put()


async def test_a_host_that_went_with_the_request_may_have_taken_it(tmp_path: Path):
    host = Host(tmp_path / "host.sock")
    async with listening(host) as server:
        await host.ask()

        async def go(writer: asyncio.StreamWriter) -> None:
            server.close()
            host.path.unlink(missing_ok=True)
            writer.close()

        host.answer = go
        with pytest.raises(ConnectionError) as caught:
            await host.ask()
        assert not isinstance(caught.value, UnreachableError)
        assert len(host.requests) == 2
        with pytest.raises(UnreachableError):
            await host.ask()


@pytest.mark.parametrize(
    "parts",
    [
        (HEAD + chunk(b"one\n"),),
        (HEAD + b"7\r\none",),
        (HEAD[:30],),
        (b"SSH-2.0-OpenSSH\r\n",),
        (HEAD + b"zz\r\n",),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort",),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * (MAX_HEADERS_BYTES // 2),),
        (HEAD + b"0\r\n" + b"X: y\r\n" * (MAX_HEADERS_BYTES // 2),),
    ],
    ids=["cut", "torn", "half a head", "no HTTP", "no chunk", "short", "headers without end", "trailers without end"],
)
async def test_what_is_cut_or_no_http_is_an_error(host: Host, parts: tuple[bytes, ...]):
    await host.sends(*parts)
    with pytest.raises(ConnectionError) as caught:
        await host.ask()
    assert not isinstance(caught.value, UnreachableError)


async def test_what_nobody_asked_for_closes_the_connection(host: Host):
    await host.ask()
    host.writers[0].write(HEAD + END)
    await asyncio.sleep(0.05)
    assert await host.ask() == b"one\ntwo\n"
    assert host.connections == 2


async def test_a_refusal_without_an_end_is_not_read_to_it(host: Host):
    await host.sends(b"HTTP/1.1 409 Conflict\r\nTransfer-Encoding: chunked\r\n\r\n", *[chunk(b"x" * 4096)] * 100)
    reply = await host.put()
    assert reply.status == 409
    with pytest.raises(ProtocolError):
        await reply.rest(64 * 1024)
    host.streams.give_back(reply)


async def test_who_reads_slowly_slows_the_host_down(host: Host):
    sent = 0

    async def answer(writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.transport.set_write_buffer_limits(BUFFER_BYTES)
        writer.write(HEAD)
        for _ in range(1000):
            writer.write(chunk(b"x" * 16_384))
            await writer.drain()
            sent += 16_384
        writer.write(END)

    host.answer = answer
    reply = await host.put()
    await asyncio.sleep(0.2)
    assert sent < 2 * 1024 * 1024, "what the system and both sides hold, of 16 MiB"
    assert sum([len(piece) async for piece in reply]) == 1000 * 16_384
    host.streams.give_back(reply)


async def test_over_tcp_a_peer_that_is_gone_is_noticed(tmp_path: Path):
    host = Host(tmp_path / "unused")
    server = await asyncio.start_server(host.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    seen: list[int] = []

    def look(sock: socket.socket) -> None:
        watch(sock)
        seen.append(sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))
        seen.append(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT))

    host.streams = HostStreams(HostEndpoint(session_uid="s", audience="a", url=f"http://127.0.0.1:{port}"), look)
    assert await host.ask() == b"one\ntwo\n"
    assert seen == [1, 30_000]
    assert f"Host: 127.0.0.1:{port}".encode() in host.requests[0]
    host.streams.close()
    server.close()
    for writer in host.writers:
        writer.close()


async def test_closed_it_keeps_nothing(host: Host):
    reply = await host.put()
    host.streams.close()
    assert [piece async for piece in reply] == [b"one\n", b"two\n"]
    host.streams.give_back(reply)
    await asyncio.sleep(0.05)
    assert host.streams._idle == []
    assert reply.is_reusable is False
