"""Bodies of the chat routes."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import Field, StringConstraints

from carrel_gateway.history.service import Message, QueuedMessage
from carrel_gateway.web.fields import MessageText, ReplyBody, RequestBody


class ChatIn(RequestBody):
    """A message to the session's agent."""

    message: MessageText


class MessageFrame(ChatIn):
    """A message over a WebSocket, which has no headers of its own."""

    type: Literal["message"]
    idempotency_key: Annotated[str | None, StringConstraints(min_length=1, max_length=200)] = None
    """The same as the header `Idempotency-Key`."""
    queue: bool = False
    """While a run is going on, wait for its end."""


class CancelFrame(RequestBody):
    """A request to stop over a WebSocket."""

    type: Literal["cancel"]
    run_id: UUID | None = None
    """Only this run, and none that has begun since."""


class MessageIn(RequestBody):
    """What a question is now; without `content` its answer is made anew."""

    content: MessageText | None = None


class ProducedArtifact(ReplyBody):
    """A file that the run made."""

    id: UUID
    name: str
    content_type: str
    size: int


class ChatOut(ReplyBody):
    """A run that is over."""

    run_id: UUID
    status: Literal["succeeded", "failed", "cancelled"]
    answer: str | None
    """What the agent says; none when it did not get that far."""
    code: str | None
    """Why it did not succeed."""
    message: str | None
    """The same for people."""
    artifacts: list[ProducedArtifact]
    last_seq: int


def message_document(message: Message) -> dict[str, Any]:
    """Return a message as `MessageOut` says, without a second walk through a validator."""
    return {
        "id": message.id,
        "role": message.role,
        "content": message.content,
        "run_id": message.run_id,
        "artifact_ids": message.artifact_ids,
        "created_at": message.created_at,
    }


def queued_document(message: QueuedMessage) -> dict[str, Any]:
    """Return a message that waits as `QueuedOut` says."""
    return {
        "id": message.id,
        "content": message.content,
        "run_id": message.run_id,
        "created_at": message.created_at,
    }


class CancelOut(ReplyBody):
    """The run that was asked to stop, or none when nothing was going on."""

    run_id: UUID | None


class MessageOut(ReplyBody):
    """One message of the conversation."""

    id: UUID
    role: Literal["user", "assistant"]
    content: str
    run_id: UUID | None
    artifact_ids: list[UUID] = Field(default_factory=list[UUID])
    created_at: datetime


class MessageList(ReplyBody):
    """Messages in the order of the conversation; the next page has those before them."""

    items: list[MessageOut]
    next_cursor: str | None = None
