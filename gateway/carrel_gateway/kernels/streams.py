"""Requests to one kernel host whose answer is a stream of events, over connections that are kept for the next one.

They are on the way of every cell, and aiohttp's client took as long for one as the cell's commit does. Of HTTP this
knows what a kernel host speaks: no redirects, no proxies, no encodings, and no TLS. All other calls are aiohttp's.
"""

from __future__ import annotations

import asyncio
import select
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final, cast
from urllib.parse import urlsplit

import httptools

from carrel_gateway.executors.base import HostEndpoint

CONNECT_SECONDS: Final = 5.0
BUFFER_BYTES: Final = 64 * 1024
"""Of one answer; with more of it waiting the host is slowed down, and its spool file grows instead of this process."""
IDLE_SECONDS: Final = 15.0
"""A connection that was not used for so long is not used again: the host may be about to close it."""
MAX_HEADERS_BYTES: Final = 64 * 1024

Watch = Callable[[Any], None]
"""Sets options of a socket."""


class UnreachableError(ConnectionError):
    """No connection came about, so nothing was sent."""


class ProtocolError(ConnectionError):
    """What came is not HTTP."""


class Reply(asyncio.Protocol):
    """One connection, and the answer that comes over it: its status, its headers, and its body in pieces."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._poll = select.poll()
        self._parser: Any = None
        self._pieces: deque[bytes] = deque()
        self._bytes = 0
        self._headers_bytes = 0
        self._paused = False
        self._waiting: asyncio.Future[None] | None = None
        self._error: Exception | None = None
        self._has_head = False
        self._is_whole = True
        self._may_stay = False
        self.idle_since = 0.0
        self.began = False
        """Whether anything has come of the answer to the last request."""
        self.status = 0
        self.headers: dict[str, str] = {}
        """By name in lower case."""

    # ------------------------------------------------------------------ the caller's side

    async def send(self, message: bytes) -> None:
        """Send a request, and wait for the status and the headers of its answer.

        Raises
        ------
        ConnectionError
            The connection broke; `began` says whether anything of an answer had come.
        """
        if self._transport is None or self._error:
            raise self._error or UnreachableError("not connected")
        self._parser = httptools.HttpResponseParser(self)
        self.headers = {}
        self._headers_bytes = 0
        self.began = self._has_head = self._is_whole = self._may_stay = False
        self._transport.write(message)
        while not self._has_head:
            await self._wait()

    def __aiter__(self) -> Reply:
        return self

    async def __anext__(self) -> bytes:
        """Return what has come of the body.

        Raises
        ------
        ConnectionError
            It was cut.
        """
        while not self._pieces:
            if self._is_whole:
                raise StopAsyncIteration
            await self._wait()
        piece = self._pieces.popleft()
        self._bytes -= len(piece)
        if self._paused and self._bytes < BUFFER_BYTES and self._transport:
            self._paused = False
            self._transport.resume_reading()
        return piece

    async def rest(self, most: int) -> bytes:
        """Return the body, of which nobody wants more than so many bytes."""
        found = bytearray()
        async for piece in self:
            found += piece
            if len(found) > most:
                raise ProtocolError(f"the answer has more than {most} bytes")
        return bytes(found)

    @property
    def is_reusable(self) -> bool:
        """Whether the answer was read to its end, and another request may follow."""
        is_open = self._transport is not None and not self._transport.is_closing()
        return is_open and self._is_whole and self._may_stay and not self._pieces and self._error is None

    @property
    def is_quiet(self) -> bool:
        """Whether nothing has come, not even the end of a host that is gone: the loop may not have seen it yet."""
        return not self._poll.poll(0)

    def abort(self) -> None:
        """Close the connection at once."""
        if self._transport:
            self._transport.abort()

    async def _wait(self) -> None:
        if self._error:
            raise self._error
        self._waiting = asyncio.get_running_loop().create_future()
        try:
            await self._waiting
        finally:
            self._waiting = None

    def _wake(self) -> None:
        if self._waiting and not self._waiting.done():
            self._waiting.set_result(None)

    # ------------------------------------------------------------------ the transport's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection."""
        self._transport = cast("asyncio.Transport", transport)
        self._poll.register(transport.get_extra_info("socket").fileno(), select.POLLIN | select.POLLRDHUP)

    def data_received(self, data: bytes) -> None:
        """Take what has come."""
        if self._is_whole:  # nobody has asked for anything
            self._fail(ProtocolError("something came that belongs to no request"))
            return
        self.began = True
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(ProtocolError(str(error)))

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell whoever waits."""
        self._error = self._error or exc or ConnectionResetError("the connection was closed")
        self._wake()

    def _fail(self, error: Exception) -> None:
        self._error = self._error or error
        self.abort()
        self._wake()

    # ------------------------------------------------------------------ the parser's side

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header, or a trailer."""
        self._headers_bytes += len(name) + len(value)
        if self._headers_bytes > MAX_HEADERS_BYTES:
            raise ProtocolError("the headers of an answer are too long")
        self.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        """Take the status."""
        self.status = self._parser.get_status_code()
        self._has_head = self.status >= 200
        self._wake()

    def on_body(self, body: bytes) -> None:
        """Take a piece of the body."""
        self._pieces.append(body)
        self._bytes += len(body)
        if self._bytes >= BUFFER_BYTES and not self._paused and self._transport:
            self._paused = True
            self._transport.pause_reading()
        self._wake()

    def on_message_complete(self) -> None:
        """Take the end of the answer."""
        if self._has_head:
            self._is_whole = True
            self._may_stay = self._parser.should_keep_alive()
            self._wake()


class HostStreams:
    """The connections to one kernel host."""

    def __init__(self, endpoint: HostEndpoint, watch: Watch) -> None:
        """Connect when the first request is sent.

        Parameters
        ----------
        watch
            Sets what a socket to another machine needs, to notice that its peer is gone.
        """
        address = urlsplit(endpoint.url)
        self._unix_socket = endpoint.unix_socket
        self._host, self._port = address.hostname or "", address.port or 80
        self._netloc = address.netloc
        self._watch = watch
        self._idle: list[Reply] = []
        self.closed = False

    async def open(self, method: str, target: str, headers: Mapping[str, str], body: bytes | None = None) -> Reply:
        """Send a request that may be sent twice, and return its answer when its head is there.

        The caller gives it back with `give_back`, read to its end or not.

        Raises
        ------
        UnreachableError
            No connection came about.
        ConnectionError
            It broke before the head of an answer was there.
        """
        lines = [f"{method} {target} HTTP/1.1", f"Host: {self._netloc}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        if body is not None:
            lines.append(f"Content-Length: {len(body)}")
        message = "\r\n".join([*lines, "\r\n"]).encode("ascii") + (body or b"")
        broken: ConnectionError | None = None
        while kept := self._take_idle():
            try:
                return await self._ask(kept, message)
            except ConnectionError as error:
                if kept.began:
                    raise
                broken = error  # the host closed it as the request was on its way, or is gone: it is found out now
        try:
            reply = await self._connect()
        except UnreachableError as error:
            if broken:  # before it went, it may have got the request
                raise broken from error
            raise
        return await self._ask(reply, message)

    def give_back(self, reply: Reply) -> None:
        """Keep the connection of an answer that was read to its end; close that of another one."""
        if reply.is_reusable and not self.closed:
            reply.idle_since = asyncio.get_running_loop().time()
            self._idle.append(reply)
        else:
            reply.abort()

    def close(self) -> None:
        """Close what is idle now, and the others when they are given back."""
        self.closed = True
        while self._idle:
            self._idle.pop().abort()

    def _take_idle(self) -> Reply | None:
        latest = asyncio.get_running_loop().time() - IDLE_SECONDS
        while self._idle:
            reply = self._idle.pop()
            if reply.is_reusable and reply.idle_since >= latest and reply.is_quiet:
                return reply
            reply.abort()
        return None

    async def _ask(self, reply: Reply, message: bytes) -> Reply:
        try:
            await reply.send(message)
        except BaseException:
            reply.abort()
            raise
        return reply

    async def _connect(self) -> Reply:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                if self._unix_socket is not None:
                    _, reply = await loop.create_unix_connection(Reply, str(self._unix_socket))
                else:
                    transport, reply = await loop.create_connection(Reply, self._host, self._port)
                    self._watch(transport.get_extra_info("socket"))
        except (OSError, TimeoutError) as error:
            raise UnreachableError("no connection to the kernel host") from error
        return reply
