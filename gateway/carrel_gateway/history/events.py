"""The words of the log: what is stored, what is only shown, and what read models hold."""

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
class QueuedMessage:
    """A question that waits for the end of the run that is going on; no part of the conversation yet."""

    id: UUID
    run_id: UUID
    """Run that it will begin."""
    seq: int
    """Number of its `message.queued`."""
    user_id: UUID
    content: str
    model: str | None
    created_at: datetime


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


def encode_payload(payload: LogPayload) -> str:
    """Return the JSON text of a payload, as it is stored."""
    return _encoder.encode(payload).decode()
