"""What a connection writes in one turn leaves with one call; counted on a real socket's transport."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from carrel_gateway.web.outgoing import AT_ONCE_BYTES, Outgoing


class _Counted:
    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self.sent: list[int] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        self.sent.append(len(data))
        self._transport.write(data)


class _Server(asyncio.Protocol):
    counted: _Counted
    transport: Any

    def __init__(self) -> None:
        self.connected = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.connected.set()
        self.counted = _Counted(transport)  # pyright: ignore[reportArgumentType]
        self.transport = Outgoing(self.counted, asyncio.get_running_loop())  # pyright: ignore[reportArgumentType]


@asynccontextmanager
async def connection() -> AsyncIterator[tuple[_Server, asyncio.StreamReader]]:
    protocol = _Server()
    server = await asyncio.get_running_loop().create_server(lambda: protocol, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    await protocol.connected.wait()
    try:
        yield protocol, reader
    finally:
        writer.close()
        server.close()


async def test_what_is_written_in_one_turn_leaves_at_once_and_in_order():
    async with connection() as (server, reader):
        for part in (b"head", b"body", b"more"):
            server.transport.write(part)
        assert server.counted.sent == []
        assert await reader.readexactly(12) == b"headbodymore"
        assert server.counted.sent == [12]
        server.transport.write(b"alone")
        assert await reader.readexactly(5) == b"alone"
        assert server.counted.sent == [12, 5]


async def test_much_is_not_held_back():
    async with connection() as (server, reader):
        server.transport.write(b"x" * (AT_ONCE_BYTES - 1))
        assert server.counted.sent == []
        server.transport.write(b"yz")
        assert server.counted.sent == [AT_ONCE_BYTES + 1]
        assert (await reader.readexactly(AT_ONCE_BYTES + 1))[-3:] == b"xyz"
        await asyncio.sleep(0)
        assert server.counted.sent == [AT_ONCE_BYTES + 1], "nothing is sent twice"


async def test_closing_sends_what_was_written_and_then_ends():
    async with connection() as (server, reader):
        server.transport.write(b"last words")
        server.transport.close()
        assert server.transport.is_closing()
        assert await reader.read() == b"last words"
        server.transport.write(b"too late")
        await asyncio.sleep(0)
        assert server.counted.sent == [10]


async def test_aborting_sends_nothing():
    async with connection() as (server, reader):
        server.transport.write(b"never mind")
        server.transport.abort()
        with suppress(ConnectionResetError):
            assert await reader.read() == b""
        assert server.counted.sent == []
