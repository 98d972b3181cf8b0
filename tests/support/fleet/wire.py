"""A TCP relay on loopback between a gateway and a server: it can cut, half-close and delay what it relays.

It knows nothing of what is said. One thread-free asyncio server per relay, in the test's own loop.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field

_CHUNK = 64 * 1024


@dataclass
class Wire:
    """One relay; `port` is where it listens."""

    target: int
    """Port on loopback."""
    port: int = 0
    delay_seconds: float = 0.0
    """How long every piece waits before it goes on."""
    _open: set[asyncio.StreamWriter] = field(default_factory=set[asyncio.StreamWriter])
    _server: asyncio.Server | None = None

    async def start(self) -> None:
        """Listen."""
        self._server = await asyncio.start_server(self._relay, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Listen no more, and cut what is open."""
        if self._server:
            self._server.close()
        self.cut()

    def cut(self) -> int:
        """Reset every connection, and return how many there were."""
        connections = [writer for writer in self._open if not writer.is_closing()]
        for writer in connections:
            writer.transport.abort()
        return len(connections)

    def half_close(self) -> int:
        """Say to both ends of every connection that nothing more comes, and return how many ends there were."""
        ends = [writer for writer in self._open if not writer.is_closing() and writer.can_write_eof()]
        for writer in ends:
            with suppress(OSError, RuntimeError):
                writer.write_eof()
        return len(ends)

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            onward_reader, onward_writer = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            writer.transport.abort()
            return
        ends = {writer, onward_writer}
        self._open |= ends
        ways = [
            asyncio.create_task(self._pass(reader, onward_writer)),
            asyncio.create_task(self._pass(onward_reader, writer)),
        ]
        try:
            await asyncio.wait(ways)
        finally:
            self._open -= ends
            for way in ways:
                way.cancel()
            for end in ends:
                end.transport.abort()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while piece := await reader.read(_CHUNK):
                if self.delay_seconds:
                    await asyncio.sleep(self.delay_seconds)
                writer.write(piece)
                await writer.drain()
            if writer.can_write_eof():
                writer.write_eof()
        except (OSError, RuntimeError):  # reset by one end, as by a process that is killed: the other one is told
            writer.transport.abort()
