"""Events on their way from a recording to one reader, bounded in bytes.

A slow reader slows the recording down, and with it the kernel host's stream, whose spool is on disk. A reader that does
not read at all is cut off after a while: the recording must not wait for it for ever, and the history has everything.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final

from carrel_gateway.errors import Conflict
from carrel_wire.events import Display, ExecutionEvent, Finished, Result, Stderr, Stdout

MAX_BYTES: Final = 2 * 1024 * 1024
STALL_SECONDS: Final = 10.0
_OVERHEAD_BYTES: Final = 200


class Subscription:
    """One reader's queue of events; ends with `finished` or with an error."""

    def __init__(self, *, max_bytes: int = MAX_BYTES, stall_seconds: float = STALL_SECONDS) -> None:
        self._events: deque[tuple[ExecutionEvent, int]] = deque()
        self._bytes = 0
        self._max_bytes = max_bytes
        self._stall_seconds = stall_seconds
        self._error: BaseException | None = None
        self._filled = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self.closed = False

    def prefill(self, events: list[ExecutionEvent]) -> None:
        """Hand over what has happened already, at once."""
        for event in events:
            self._append(event)

    async def put(self, event: ExecutionEvent) -> None:
        """Hand over one event; waits for room, and cuts the reader off when it takes nothing for too long."""
        if self.closed or self._error:
            return
        try:
            if not self._room.is_set():
                async with asyncio.timeout(self._stall_seconds):
                    await self._room.wait()
        except TimeoutError:
            self.fail(
                Conflict(
                    "The events were not read for too long; the execution goes on. Read on in the session's history.",
                    code="slow_reader",
                )
            )
            return
        self._append(event)

    def fail(self, error: BaseException) -> None:
        """End the reader with an error, after what it has already been given."""
        self._error = error
        self._filled.set()

    def close(self) -> None:
        """Say that nobody reads any more."""
        self.closed = True
        self._events.clear()
        self._room.set()

    async def get(self) -> ExecutionEvent:
        """Return the next event.

        Raises
        ------
        CarrelError
            The recording failed, or this reader was cut off.
        """
        while not self._events:
            if self._error:
                raise self._error
            self._filled.clear()
            await self._filled.wait()
        event, size = self._events.popleft()
        self._bytes -= size
        if self._bytes < self._max_bytes:
            self._room.set()
        return event

    def _append(self, event: ExecutionEvent) -> None:
        size = size_of(event)
        self._events.append((event, size))
        self._bytes += size
        if self._bytes >= self._max_bytes:
            self._room.clear()
        self._filled.set()


def size_of(event: ExecutionEvent) -> int:
    """Return about how many bytes the event holds."""
    match event:
        case Stdout(text=text) | Stderr(text=text):
            return len(text) + _OVERHEAD_BYTES
        case Display(data=data) | Result(data=data):
            return sum(len(value) if isinstance(value, str) else _OVERHEAD_BYTES for value in data.values())
        case Finished():
            return 0
        case _:
            return _OVERHEAD_BYTES
