"""Bodies of the session routes."""

from __future__ import annotations

from datetime import datetime
from typing import Literal
from uuid import UUID

from carrel_gateway.config.schemas import SessionConfig
from carrel_gateway.web.fields import ModelName, ReplyBody, RequestBody, Title


class SessionCreate(RequestBody):
    """A new conversation; everything may be left out."""

    title: Title | None = None
    agent_id: UUID | None = None
    """A stored agent, whose configuration of now the session begins with."""
    model: ModelName | None = None
    config: SessionConfig | None = None
    """With an agent: what is named goes before the agent's."""


class SessionUpdate(RequestBody):
    """What is named is changed, what is left out stays."""

    title: Title | None = None
    model: ModelName | None = None
    config: SessionConfig | None = None


class SessionOut(ReplyBody):
    """A conversation, with its own kernel, files and history."""

    id: UUID
    title: str
    status: Literal["active", "archived"]
    model: str
    config: SessionConfig
    last_seq: int
    """Number of the last event of its log."""
    suspended_at: datetime | None
    """When its kernel was given back; it gets one with the state of then when code is run."""
    stale_seq: int | None
    """Event with which cells left the conversation that its kernel has run and remembers; a restart forgets them."""
    forked_from: UUID | None
    """Session whose history and state it began with."""
    created_at: datetime
    updated_at: datetime


class DeletionOut(ReplyBody):
    """What was removed of a session, in numbers."""

    session_id: UUID
    complete: bool
    """False while a part that is needed for it is away: nobody sees the session any more, and the rest goes soon."""
    rows: dict[str, int]
    """Table → rows."""
    objects: int
    """Files and saved state in the object store."""


class SessionList(ReplyBody):
    """A page, newest first; `next_cursor` is absent on the last one."""

    items: list[SessionOut]
    next_cursor: str | None = None
