"""Bodies of the job routes."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from carrel_gateway.jobs.model import Status
from carrel_gateway.web.fields import ReplyBody


class JobOut(ReplyBody):
    """A background job of the tenant."""

    id: UUID
    kind: str
    key: str | None
    """While a job of this kind with this key is queued or running, no other one is stored."""
    payload: dict[str, Any]
    priority: int
    """A lower number goes first."""
    status: Status
    attempts: int
    max_attempts: int
    due_at: datetime
    """When a gateway may take it; of a running one, the end of the lease."""
    generation: int
    """How often a gateway took it."""
    cancel_requested: bool
    result: dict[str, Any] | None
    error_code: str | None
    """Of the last attempt that failed."""
    error: str | None
    request_id: str | None
    """The request that asked for it, or for its last retry."""
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


class JobList(ReplyBody):
    """A page, newest first; `next_cursor` is absent on the last one."""

    items: list[JobOut]
    next_cursor: str | None = None
