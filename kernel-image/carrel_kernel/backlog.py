"""Messages of a kernel that wait for a client to take them: in order and bounded. Pure.

When they become too many, the oldest output goes first: a client that misses a reply would wait for it for ever. How
many went is told in their place, for nothing is left out silently.
"""

from __future__ import annotations

import uuid
from collections import deque
from typing import Final, NamedTuple

import msgspec

from carrel_kernel import protocol
from carrel_kernel.connection import Channel

_MESSAGE_BYTES: Final = 512
"""What a message takes beside its content, about: empty ones must not be free."""


class Waiting(NamedTuple):
    """A message: header, parent header, metadata, content and buffers."""

    number: int
    """Its place in the order."""
    channel: Channel
    parts: list[bytes]

    @property
    def size(self) -> int:
        """Bytes that it takes."""
        return sum(map(len, self.parts)) + _MESSAGE_BYTES


class Backlog:
    """A queue of messages."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._output: deque[Waiting] = deque()
        self._answers: deque[Waiting] = deque()
        """Everything else: replies and questions."""
        self._bytes = 0
        self._next = 0
        self._lost = 0
        self._lost_bytes = 0
        self._lost_parent = b"{}"
        """Parent header of the last message that went: the gap is told where the reader misses something."""

    def __bool__(self) -> bool:
        return bool(self._output or self._answers or self._lost)

    def limit(self, limit_bytes: int) -> None:
        """Change the bound; messages go where there are too many for it."""
        self._limit_bytes = limit_bytes
        self._shrink()

    def add(self, channel: Channel, parts: list[bytes]) -> bool:
        """Append a message; whether all that wait are still within the bound."""
        self._queue(channel).append(message := Waiting(self._next, channel, parts))
        self._next += 1
        self._bytes += message.size
        return self._shrink()

    def take(self) -> Waiting:
        """Remove and return the first message, or the one that tells of a gap before it.

        Raises
        ------
        ValueError
            Nothing waits.
        """
        if self._lost:
            return self._gap()
        queue = min((queue for queue in (self._output, self._answers) if queue), key=lambda queue: queue[0].number)
        message = queue.popleft()
        self._bytes -= message.size
        return message

    def put_back(self, message: Waiting) -> None:
        """Return a message that could not be sent to its place."""
        self._queue(message.channel).appendleft(message)
        self._bytes += message.size
        self._shrink()

    def _queue(self, channel: Channel) -> deque[Waiting]:
        return self._output if channel == "iopub" else self._answers

    def _shrink(self) -> bool:
        whole = True
        while self._bytes > self._limit_bytes:
            message = (self._output or self._answers).popleft()
            self._bytes -= message.size
            self._lost += 1
            self._lost_bytes += sum(map(len, message.parts))
            self._lost_parent = message.parts[1]
            whole = False
        return whole

    def _gap(self) -> Waiting:
        text = f"[{self._lost} messages of the kernel ({self._lost_bytes} bytes) are missing here: nobody took them]\n"
        parts = message_of("stream", {"name": "stderr", "text": text}, self._lost_parent)
        self._lost = self._lost_bytes = 0
        return Waiting(-1, "iopub", parts)


def message_of(msg_type: str, content: dict[str, str], parent: bytes = b"{}") -> list[bytes]:
    """Return the parts of a message that the host itself tells a client."""
    header = protocol.header(msg_type, uuid.uuid4().hex, "")
    return [msgspec.json.encode(header), parent, b"{}", msgspec.json.encode(content)]
