"""Replies of the routes of uploads in parts."""

from __future__ import annotations

from datetime import datetime
from typing import Literal
from uuid import UUID

from carrel_gateway.web.fields import ReplyBody


class UploadOut(ReplyBody):
    """An upload in parts."""

    id: UUID
    session_id: UUID
    name: str
    content_type: str
    length: int
    """Bytes of the whole file."""
    received: int
    """Bytes that have come."""
    state: Literal["open", "done"]
    artifact_id: UUID | None = None
    """The file that it has become."""
    created_at: datetime
    updated_at: datetime
