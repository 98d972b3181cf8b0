"""The words of the log: what is stored, what is only shown, what read models hold, and how news look on the bus."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, TypeAlias
from uuid import UUID

import msgspec

from carrel_wire.log import (
    ArtifactStored,
    AssistantMessage,
    CellEdited,
    CellFinished,
    CellIntended,
    CellOutputs,
    LogPayload,
    RunStarted,
    UserMessage,
    decode_payload,
)

Actor: TypeAlias = Literal["user", "agent", "kernel", "system"]
_encoder = msgspec.json.Encoder()


@dataclass(frozen=True, slots=True)
class Fence:
    """The right to write to a run: it ends when another gateway takes the run over under a greater generation."""

    run_id: UUID
    generation: int


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """A committed event; `seq` is its number in the session, from 1, without gaps."""

    session_id: UUID
    seq: int
    id: UUID
    parent_id: UUID | None
    """Run or execution that it belongs to."""
    type: str
    actor: str
    payload: LogPayload
    created_at: datetime


@dataclass(frozen=True, slots=True)
class EventText:
    """A committed event with its payload as it is stored: whoever only passes it on need not decode it."""

    seq: int
    id: UUID
    parent_id: UUID | None
    type: str
    actor: str
    payload: str
    created_at: datetime

    def decoded(self, session_id: UUID) -> StoredEvent:
        """Return the event with its payload decoded."""
        payload = decode_payload(self.payload)
        return StoredEvent(
            session_id, self.seq, self.id, self.parent_id, self.type, self.actor, payload, self.created_at
        )

    @property
    def untagged(self) -> str:
        """The payload without its type, which stands first in it: the JSON text that callers get."""
        tag = f'{{"type":"{self.type}"'
        if not self.payload.startswith(tag):
            raise ValueError(f"the payload of event {self.seq} does not begin with its type")
        return "{" + self.payload[len(tag) :].removeprefix(",")


@dataclass(frozen=True, slots=True)
class LiveEvent:
    """Something that is shown and not kept; its id is its own and no number of the log."""

    type: str
    id: str
    data: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Message:
    """One message of the conversation."""

    id: UUID
    seq: int
    role: Literal["user", "assistant"]
    content: str
    run_id: UUID | None
    artifact_ids: list[UUID]
    created_at: datetime
    superseded_seq: int | None = None
    """Event with which HEAD moved away from it; none while the conversation has it."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell with its outputs (nbformat 4), in the parts in which they came."""

    execution_id: UUID
    seq: int
    code: str
    status: str
    run_id: UUID | None
    execution_count: int | None
    wall_seconds: float | None
    cpu_seconds: float | None
    peak_memory_bytes: int | None
    bytes_out: int
    message: str | None
    created_at: datetime
    finished_at: datetime | None
    outputs: list[dict[str, Any]]


def event_id_of(payload: LogPayload) -> UUID | None:
    """Return the id of what the event begins, which is the event's own; none when it begins nothing."""
    match payload:
        case RunStarted(run_id=begun) | ArtifactStored(artifact_id=begun) | CellIntended(execution_id=begun):
            return begun
        case UserMessage(message_id=begun) | AssistantMessage(message_id=begun):
            return begun
        case _:
            return None


def parent_id_of(payload: LogPayload) -> UUID | None:
    """Return the execution or the run that the event belongs to."""
    match payload:
        case CellOutputs(execution_id=execution_id) | CellFinished(execution_id=execution_id):
            return execution_id
        case CellEdited(execution_id=execution_id):
            return execution_id
        case RunStarted():
            return None
        case ArtifactStored(execution_id=execution_id) if execution_id is not None:
            return execution_id
        case _:
            return getattr(payload, "run_id", None)


class News(msgspec.Struct, frozen=True, array_like=True, tag_field="kind", tag="committed"):
    """Committed events, in order and without gaps; none when they are too large for the bus."""

    last_seq: int
    events: list[tuple[int, UUID, UUID | None, str, str, str, datetime]]


class Live(msgspec.Struct, frozen=True, array_like=True, tag_field="kind", tag="live"):
    """A provisional event."""

    type: str
    id: str
    data: dict[str, Any]


class Gone(msgspec.Struct, frozen=True, array_like=True, tag_field="kind", tag="gone"):
    """The session was deleted."""


_news_encoder = msgspec.msgpack.Encoder()
_news_decoder: msgspec.msgpack.Decoder[News | Live | Gone] = msgspec.msgpack.Decoder(News | Live | Gone)


def encode_payload(payload: LogPayload) -> str:
    """Return the JSON text of a payload, as it is stored."""
    return _encoder.encode(payload).decode()


def encode_news(events: list[StoredEvent], payloads: list[str], *, limit_bytes: int) -> bytes:
    """Return what the bus says of committed events; without the events when they are over the limit."""
    rows = [
        (event.seq, event.id, event.parent_id, event.type, event.actor, payload, event.created_at)
        for event, payload in zip(events, payloads, strict=True)
    ]
    if sum(map(len, payloads)) > limit_bytes:
        rows = []
    return _news_encoder.encode(News(events[-1].seq, rows))


def encode_live(event: LiveEvent) -> bytes:
    """Return what the bus says of a provisional event."""
    return _news_encoder.encode(Live(event.type, event.id, event.data))


def encode_gone() -> bytes:
    """Return what the bus says when the session was deleted."""
    return _news_encoder.encode(Gone())


def decode_news(data: bytes) -> News | Live | Gone:
    """Return what the bus said.

    Raises
    ------
    msgspec.DecodeError
        It is of another version of Carrel; the log has the same.
    """
    return _news_decoder.decode(data)


def events_of(news: News, session_id: UUID) -> list[StoredEvent]:
    """Return the events of news."""
    return [
        StoredEvent(session_id, seq, own, parent, kind, actor, decode_payload(payload), created_at)
        for seq, own, parent, kind, actor, payload, created_at in news.events
    ]
