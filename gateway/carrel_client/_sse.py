"""A parser of server-sent events (WHATWG HTML, 9.2): bytes in, events out; reads from nothing itself.

Lines end at CR and LF only. Reading lines as text would also split at characters such as U+2028, which JSON may hold.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ServerEvent:
    """One event as it came."""

    event: str
    data: str
    last_event_id: str | None


class EventParser:
    """Takes bytes as they arrive, and gives an event at each empty line."""

    def __init__(self) -> None:
        self._event = ""
        self._data: list[str] = []
        self._held = b""
        self.last_event_id: str | None = None

    def feed(self, chunk: bytes) -> Iterator[ServerEvent]:
        """Take some bytes; yield the events that they complete."""
        *lines, self._held = (self._held + chunk).split(b"\n")
        for line in lines:
            event = self._line(line.rstrip(b"\r").decode("utf-8", "replace"))
            if event is not None:
                yield event

    def _line(self, line: str) -> ServerEvent | None:
        if not line:
            return self._dispatch()
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            self._data.append(value)
        elif name == "event":
            self._event = value
        elif name == "id" and "\0" not in value:
            self.last_event_id = value
        return None  # a comment (empty name), or a field that nobody knows

    def _dispatch(self) -> ServerEvent | None:
        data, event = self._data, self._event
        self._data, self._event = [], ""
        if not data:
            return None
        return ServerEvent(event or "message", "\n".join(data), self.last_event_id)
