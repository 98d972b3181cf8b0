"""News of a session as they go over the bus, and what a follower makes of them. Pure; nothing is decoded in vain.

What is committed has its payload as it is stored, and what is only shown is the document that callers get, so whoever
passes either on need not look into it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import msgspec
import orjson

from carrel_gateway.history.events import EventText, LiveEvent, StoredEvent


class Committed(msgspec.Struct, frozen=True, array_like=True, tag_field="kind", tag="committed"):
    """Committed events, in order and without gaps; none when they are too large for the bus."""

    last_seq: int
    events: list[tuple[int, UUID, UUID | None, str, str, str, datetime]]


class LiveText(msgspec.Struct, frozen=True, array_like=True, tag_field="kind", tag="shown"):
    """A provisional event, as the JSON text that callers get: an id of its own, no number, and it is not kept."""

    type: str
    document: bytes


class Gone(msgspec.Struct, frozen=True, array_like=True, tag_field="kind", tag="gone"):
    """The session was deleted."""


@dataclass(frozen=True, slots=True)
class SortedOut:
    """What a follower does next."""

    events: list[EventText | LiveText]
    seen: int
    """Number of the last committed event that the follower has then."""
    behind: bool
    """Whether the log has events that the bus left out."""
    gone: bool


_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Committed | LiveText | Gone] = msgspec.msgpack.Decoder(Committed | LiveText | Gone)


def encode_news(events: list[StoredEvent], payloads: list[str], *, limit_bytes: int) -> bytes:
    """Return what the bus says of committed events; without the events when they are over the limit."""
    rows = [
        (event.seq, event.id, event.parent_id, event.type, event.actor, payload, event.created_at)
        for event, payload in zip(events, payloads, strict=True)
    ]
    if sum(map(len, payloads)) > limit_bytes:
        rows = []
    return _encoder.encode(Committed(events[-1].seq, rows))


def encode_live(event: LiveEvent) -> bytes:
    """Return what the bus says of a provisional event."""
    document = {"live": True, "id": event.id, "type": event.type, "payload": event.data}
    return _encoder.encode(LiveText(event.type, orjson.dumps(document, default=str)))


def encode_gone() -> bytes:
    """Return what the bus says when the session was deleted."""
    return _encoder.encode(Gone())


def sort_out(news: Sequence[bytes], seen: int) -> SortedOut:
    """Return the events of news that a follower does not have yet, in order.

    What comes after a gap is left out, for the log has it; so is what another version of Carrel says in its own way.
    """
    events: list[EventText | LiveText] = []
    for data in news:
        try:
            said = _decoder.decode(data)
        except msgspec.DecodeError:
            return SortedOut(events, seen, behind=True, gone=False)
        if isinstance(said, LiveText):
            events.append(said)
        elif isinstance(said, Gone):
            return SortedOut(events, seen, behind=False, gone=True)
        elif said.last_seq > seen:
            if not said.events or said.events[0][0] > seen + 1:
                return SortedOut(events, seen, behind=True, gone=False)
            events.extend(EventText(*row) for row in said.events if row[0] > seen)
            seen = said.last_seq
    return SortedOut(events, seen, behind=False, gone=False)
