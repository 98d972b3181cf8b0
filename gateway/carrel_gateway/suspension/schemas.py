"""Bodies of suspend, resume and fork."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from carrel_gateway.sessions.schemas import SessionOut
from carrel_gateway.web.fields import ReplyBody, RequestBody, Title


class ForkIn(RequestBody):
    """A fork; everything may be left out."""

    title: Title | None = None


class Loss(ReplyBody):
    """A variable or file that is not there, and why."""

    name: str
    reason: str
    type: str = ""


class SnapshotOut(ReplyBody):
    """What a session's state is kept as."""

    id: UUID
    created_at: datetime
    size: int
    """Bytes of all contents."""
    variables: list[str]
    """Names of what is saved, modules included."""
    files: list[str]
    not_saved: list[Loss]
    """Variables and files that are not, all of them."""


class SuspendedOut(ReplyBody):
    """A session without a kernel, whose state is kept."""

    session: SessionOut
    snapshot: SnapshotOut


class ResumedOut(ReplyBody):
    """A session with a kernel that has its state again."""

    session: SessionOut
    variables: int
    """How many are back."""
    files: int
    not_restored: list[Loss]
    """Variables and files that are not back, the first 200 of them."""
    not_restored_count: int


class ForkedOut(ReplyBody):
    """A new session with the history of another, and the state that it had."""

    session: SessionOut
    snapshot: SnapshotOut | None
    """None where the other session had no kernel, and so no state."""
