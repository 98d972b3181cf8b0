"""Server-sent events (WHATWG HTML, 9.2): encoding, a response that streams, and the id to come back with.

Committed events carry `id:`, their sequence number in the session, so that a client that comes back with
`Last-Event-ID` goes on without a gap. Live, provisional ones carry none: what they said is in a committed event later.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from typing import Any, Final

import orjson
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from carrel_gateway.errors import InvalidInput
from carrel_gateway.metrics import slow_readers, streams

MEDIA_TYPE: Final = "text/event-stream"
PING: Final = b": ping\n\n"
_LAST: Final = 2**63 - 1
PING_SECONDS: Final = 14.0
"""Proxies commonly cut connections that are silent for 30 to 60 s. Whoever makes the pieces shows up every 15 s."""
SLOW_SECONDS: Final = 30.0
"""A reader that takes nothing for so long is cut."""
LOOK_SECONDS: Final = 20.0
"""So long a stream may outlive the right to it."""
PIECE_BYTES: Final = 64 * 1024
"""About as much is in the process for one reader beside what the bus holds for it."""
HEADERS: Final = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


def encode(event: str, data: Any, *, event_id: str | int | None = None) -> bytes:
    """Return one event as it goes over the wire."""
    head = b"" if event_id is None else f"id: {event_id}\n".encode()
    # JSON has no raw newline, so one data line is enough
    return head + f"event: {event}\ndata: ".encode() + orjson.dumps(data, default=str) + b"\n\n"


def encode_text(event: str, document: bytes) -> bytes:
    """Return one event without an id, of a document that is JSON already."""
    return b"event: %b\ndata: %b\n\n" % (event.encode(), document)


def last_event_id(header: str | None) -> int | None:
    """Return the sequence number that a client saw last, or none when it did not say.

    Raises
    ------
    InvalidInput
        The header is no id that this server gave out.
    """
    if header is None or not header.strip():
        return None
    text = header.strip()
    if not text.isascii() or not text.isdigit() or len(text) > 19 or int(text) > _LAST:
        raise InvalidInput("Last-Event-ID must be the number of an event of this session", code="invalid_event_id")
    return int(text)


class _TooSlow(Exception):
    """The reader took nothing for too long."""


class EventStream(Response):
    """A response that goes on for long, in pieces, and is cut when its reader takes nothing for too long.

    An empty piece says that nothing happened; a comment is sent then, when it is time for one, so that nobody on the
    way takes the connection for dead. A reader that was cut comes back with `Last-Event-ID`; nothing is kept for it.
    """

    media_type = MEDIA_TYPE

    def __init__(
        self,
        pieces: AsyncGenerator[bytes, None],
        closing: asyncio.Event,
        holds: Callable[[], Awaitable[bool]],
        headers: Mapping[str, str] | None = None,
        *,
        slow_seconds: float = SLOW_SECONDS,
        ping_seconds: float = PING_SECONDS,
    ) -> None:
        super().__init__(headers={**HEADERS, **(headers or {})})
        del self.headers["content-length"]
        self._pieces = pieces
        self._closing = closing
        self._holds = holds
        self._slow_seconds = slow_seconds
        self._ping_seconds = ping_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002  the framework's form
        """Send the pieces until they end, or the reader goes, is too slow or loses the right to them."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        writing = asyncio.create_task(self._write(send))
        leaving = asyncio.create_task(_left(receive))
        looking = asyncio.create_task(self._until_revoked())
        ends: list[asyncio.Task[Any]] = [writing, leaving, looking, asyncio.create_task(self._closing.wait())]
        try:
            with streams.track_inprogress():
                await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            left = leaving.done()
        finally:
            for task in ends:
                task.cancel()
            await asyncio.gather(*ends, return_exceptions=True)
            await self._pieces.aclose()
        error = _error_of(writing) or _error_of(looking)
        if isinstance(error, _TooSlow):
            slow_readers.labels("sse").inc()  # cut without an end, so that the reader knows that there is more
        elif error:
            raise error
        elif not left:
            await send({"type": "http.response.body", "body": b""})

    async def _until_revoked(self) -> None:
        await asyncio.sleep(LOOK_SECONDS)
        while await self._holds():  # noqa: ASYNC110  whether a right holds is in the database
            await asyncio.sleep(LOOK_SECONDS)

    async def _write(self, send: Send) -> None:
        clock = asyncio.get_running_loop().time
        wrote = clock()
        async for piece in self._pieces:
            if not piece and clock() - wrote < self._ping_seconds:
                continue
            try:
                async with asyncio.timeout(self._slow_seconds):
                    await send({"type": "http.response.body", "body": piece or PING, "more_body": True})
            except TimeoutError as error:
                raise _TooSlow from error
            wrote = clock()


def _error_of(task: asyncio.Task[Any]) -> BaseException | None:
    return None if task.cancelled() else task.exception()


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
