"""A connection between a client and a server that can be slow, mute, or cut, on loopback."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress


class Link:
    """Passes bytes to a server's port and back."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._loud = asyncio.Event()
        self._loud.set()
        self._passing: set[asyncio.Task[None]] = set()
        self._writers: list[asyncio.StreamWriter] = []
        self.delay_seconds = 0.0
        """Of what comes back; one piece waits for the other, as on a slow line."""
        self.open = True
        """Whether new connections are let through."""
        self.port = 0

    def mute(self, *, mute: bool) -> None:
        """Begin or end to pass nothing, with every connection kept open."""
        (self._loud.clear if mute else self._loud.set)()

    def cut(self) -> None:
        """Close every connection that there is."""
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self.open:
            writer.transport.abort()
            return
        there, back = await asyncio.open_connection("127.0.0.1", self._port)
        self._writers += [writer, back]
        for source, target, slow in ((reader, back, False), (there, writer, True)):
            task = asyncio.create_task(self._pass(source, target, slow=slow))
            self._passing.add(task)
            task.add_done_callback(self._passing.discard)

    async def _pass(self, source: asyncio.StreamReader, target: asyncio.StreamWriter, *, slow: bool) -> None:
        with suppress(ConnectionError):
            while data := await source.read(65536):
                await self._loud.wait()
                if slow and self.delay_seconds:
                    await asyncio.sleep(self.delay_seconds)
                target.write(data)
        target.transport.abort()

    async def close(self) -> None:
        """Close all connections."""
        self.cut()
        for task in list(self._passing):
            task.cancel()
        await asyncio.gather(*self._passing, return_exceptions=True)


@asynccontextmanager
async def link_to(port: int) -> AsyncGenerator[Link]:
    """Serve a link to the port of a server on this machine."""
    link = Link(port)
    server = await asyncio.start_server(link._accept, "127.0.0.1", 0)
    link.port = server.sockets[0].getsockname()[1]
    try:
        yield link
    finally:
        server.close()
        await link.close()
