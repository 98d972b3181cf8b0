"""Bodies of the audit routes."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import Json

from carrel_gateway.web.fields import ReplyBody


class AuditEntry(ReplyBody):
    """One thing that somebody did."""

    seq: int
    """Number within the tenant, from 1, without gaps."""
    at: datetime
    actor: UUID
    """The user."""
    credential: UUID | None
    """The key or login that was presented; none for work of the gateway itself."""
    action: str
    target: str
    """Id of what it was done to."""
    detail: Json[dict[str, Any]]
    digest: str
    """SHA-256 over the entry and the digest before it."""


class AuditPage(ReplyBody):
    """A page, newest first; `next_cursor` is absent on the last one."""

    items: list[AuditEntry]
    next_cursor: str | None = None


class AuditVerdict(ReplyBody):
    """Whether the log is as it was written."""

    valid: bool
    entries: int
    """How many are as they were written, from the first on."""
    digest: str
    """Of the last of them: note it with `entries` elsewhere, to compare with later."""
    problem: str | None
    """The first thing that is wrong."""
