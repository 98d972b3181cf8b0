"""Server-sent events (WHATWG HTML, 9.2): encoding, and the id that a client comes back with. Opens no connection.

Committed events carry `id:`, their sequence number in the session, so that a client that comes back with
`Last-Event-ID` goes on without a gap. Live, provisional ones carry none: what they said is in a committed event later.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Any, Final

import orjson

from carrel_gateway.errors import InvalidInput

MEDIA_TYPE: Final = "text/event-stream"
PING: Final = b": ping\n\n"
_LAST: Final = 2**63 - 1
PING_SECONDS: Final = 15.0
"""Proxies commonly cut connections that are silent for 30 to 60 s."""
LOOK_SECONDS: Final = 20.0
"""So long a stream may outlive the right to it."""
HEADERS: Final = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


def encode(event: str, data: Any, *, event_id: str | int | None = None) -> bytes:
    """Return one event as it goes over the wire."""
    head = b"" if event_id is None else f"id: {event_id}\n".encode()
    # JSON has no raw newline, so one data line is enough
    return head + f"event: {event}\ndata: ".encode() + orjson.dumps(data, default=str) + b"\n\n"


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


async def with_pings(
    source: AsyncIterator[bytes],
    closing: asyncio.Event,
    holds: Callable[[], Awaitable[bool]],
    seconds: float = PING_SECONDS,
) -> AsyncIterator[bytes]:
    """Yield what the source yields, and a comment whenever it was silent for so many seconds.

    Ends when closing, and when `holds`, which is asked every `LOOK_SECONDS` or so, says no.
    """
    loop = asyncio.get_running_loop()
    look_at = loop.time() + LOOK_SECONDS
    pending: asyncio.Future[bytes] | None = None
    closed = asyncio.ensure_future(closing.wait())
    try:
        while not closing.is_set():
            if loop.time() >= look_at:
                if not await holds():
                    return
                look_at = loop.time() + LOOK_SECONDS
            pending = pending or asyncio.ensure_future(anext(source))
            await asyncio.wait({pending, closed}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            if not pending.done():
                if not closing.is_set():
                    yield PING
                continue
            try:
                item = pending.result()
            except StopAsyncIteration:
                return
            finally:
                pending = None
            yield item
    finally:
        closed.cancel()
        if pending is not None:
            pending.cancel()
            with suppress(asyncio.CancelledError, StopAsyncIteration):
                await pending
        close = getattr(source, "aclose", None)
        if close is not None:
            await close()
