"""What a connection sends in one turn of the event loop, sent with one call of the system.

An answer is written in two pieces at least, its head and its body. Each sent by itself is a call of the system, a
packet, and a client that is woken for half of what it waits for.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

AT_ONCE_BYTES: Final = 64 * 1024
"""More is not held back: whoever writes much is to be slowed down by who does not read it."""


class Outgoing:
    """A transport whose writes leave together; in all else it is the transport that it was made of."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._parts: list[bytes] = []
        self._bytes = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Send it at the end of this turn, after what was written before."""
        if not self._parts:
            self._loop.call_soon(self.flush)
        self._parts.append(data)
        self._bytes += len(data)
        if self._bytes >= AT_ONCE_BYTES:
            self.flush()

    def flush(self) -> None:
        """Send what was written now."""
        parts, self._parts, self._bytes = self._parts, [], 0
        if parts and not self._transport.is_closing():
            self._transport.write(parts[0] if len(parts) == 1 else b"".join(parts))

    def write_eof(self) -> None:
        """Send what was written, and nothing more after it."""
        self.flush()
        self._transport.write_eof()

    def close(self) -> None:
        """Close when all that was written is sent."""
        self.flush()
        self._transport.close()

    def abort(self) -> None:
        """Close at once."""
        self._parts, self._bytes = [], 0
        self._transport.abort()
