"""Replies of the file and artifact routes."""

from __future__ import annotations

from datetime import datetime
from typing import Literal
from uuid import UUID

from carrel_gateway.web.fields import ReplyBody


class ArtifactOut(ReplyBody):
    """An uploaded file (category `data`), or a file that a cell made (`artifacts`): one version of its name."""

    id: UUID
    session_id: UUID
    name: str
    version: int
    size: int
    """Bytes."""
    content_type: str
    sha256: str
    category: Literal["data", "artifacts", "notebooks"]
    execution_id: UUID | None = None
    run_id: UUID | None = None
    created_at: datetime


class ArtifactList(ReplyBody):
    """A page of files, or of versions of one; `next_cursor` is null on the last one."""

    items: list[ArtifactOut]
    next_cursor: str | None = None


class SignedUrl(ReplyBody):
    """An address that needs no key for as long as it lives."""

    url: str
    expires_in_seconds: int
