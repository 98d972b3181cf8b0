"""How stored and live events look to callers."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal
from uuid import UUID

import msgspec
import orjson

from carrel_gateway.history.service import EventText, StoredEvent
from carrel_gateway.web.fields import ReplyBody


class EventOut(ReplyBody):
    """One event of a session's log; the payload depends on the type, see docs/reference/http-api.md."""

    seq: int
    id: UUID
    parent_id: UUID | None
    type: str
    actor: str
    payload: dict[str, Any]
    created_at: datetime


class EventList(ReplyBody):
    """Events in order; `last_seq` is what to ask `after` next, `next_cursor` the same as a cursor.

    An empty page is the end, a short one is not.
    """

    items: list[EventOut]
    last_seq: int
    next_cursor: str
    """Always there: a log has no last page."""


class SnippetOut(ReplyBody):
    """The part of a text in which the first word is; `matches` are places of words in it, in characters."""

    text: str
    matches: list[tuple[int, int]]


class HitOut(ReplyBody):
    """A message or a cell in which all words are."""

    kind: Literal["message", "code"]
    session_id: UUID
    session_title: str
    id: UUID
    """Of the message, or the cell's execution."""
    seq: int
    """Number of its event in the session's log."""
    role: Literal["user", "assistant"] | None
    status: str | None
    run_id: UUID | None
    created_at: datetime
    snippet: SnippetOut


class HitList(ReplyBody):
    """A page of hits, newest first; `next_cursor` is absent on the last one."""

    items: list[HitOut]
    next_cursor: str | None = None


def event_document(event: StoredEvent) -> dict[str, Any]:
    """Return a committed event as a JSON document, the same for JSON, SSE and WebSocket."""
    payload = msgspec.to_builtins(event.payload)
    payload.pop("type", None)
    return {
        "seq": event.seq,
        "id": str(event.id),
        "parent_id": None if event.parent_id is None else str(event.parent_id),
        "type": event.type,
        "actor": event.actor,
        "payload": payload,
        "created_at": event.created_at.isoformat(),
    }


def text_document(event: EventText) -> dict[str, Any]:
    """Return the same of an event whose payload is not decoded; for orjson alone."""
    return {
        "seq": event.seq,
        "id": str(event.id),
        "parent_id": None if event.parent_id is None else str(event.parent_id),
        "type": event.type,
        "actor": event.actor,
        "payload": orjson.Fragment(event.untagged),
        "created_at": event.created_at.isoformat(),
    }
