"""As many requests as a server answers: the same one again and again over a few connections that are kept.

It costs next to nothing, so that on the same machine the server's work is what is measured: a request is bytes made
beforehand, and of an answer only the status and the length are looked at.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import cast
from urllib.parse import urlsplit

_END_OF_HEAD = b"\r\n\r\n"
_LENGTH = b"content-length: "


@dataclass(frozen=True, slots=True)
class Answers:
    """What came of a turn."""

    count: int
    seconds: float

    @property
    def rate(self) -> float:
        """Answers per second."""
        return self.count / self.seconds


class _Connection(asyncio.Protocol):
    """Sends the request anew whenever it is answered, until the time is over."""

    def __init__(self, request: bytes, until: float) -> None:
        self._request = request
        self._until = until
        self._held = b""
        self.count = 0
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        held = self._held + data
        end = held.find(_END_OF_HEAD)
        if end < 0:
            self._held = held
            return
        head = held[: end + 2].lower()
        place = head.find(_LENGTH)
        if not head.startswith(b"http/1.1 200 ") or place < 0:
            self._fail(RuntimeError(held[:2000].decode("latin-1")))
            return
        length = int(head[place + len(_LENGTH) : head.index(b"\r\n", place)])
        if len(held) < end + len(_END_OF_HEAD) + length:
            self._held = held
            return
        self._held = b""
        self.count += 1
        if time.perf_counter() < self._until:
            self._transport.write(self._request)
        elif not self.done.done():
            self.done.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(exc or ConnectionError("the server hung up"))

    def _fail(self, error: Exception) -> None:
        if not self.done.done():
            self.done.set_exception(error)


async def ask(url: str, key: str, *, connections: int, seconds: float) -> Answers:
    """Ask for an address for a while, and return how often it was answered.

    Raises
    ------
    RuntimeError
        An answer was another than 200.
    """
    parts = urlsplit(url)
    target = f"{parts.path}?{parts.query}" if parts.query else parts.path
    lines = (f"GET {target} HTTP/1.1", f"host: {parts.netloc}", f"authorization: Bearer {key}", "accept: */*", "", "")
    request = "\r\n".join(lines).encode()
    loop = asyncio.get_running_loop()
    began = time.perf_counter()
    opened = [
        await loop.create_connection(lambda: _Connection(request, began + seconds), parts.hostname, parts.port)
        for _ in range(connections)
    ]
    try:
        await asyncio.gather(*(connection.done for _, connection in opened))
    finally:
        for transport, _ in opened:
            transport.close()
    return Answers(sum(connection.count for _, connection in opened), time.perf_counter() - began)
