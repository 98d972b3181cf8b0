"""Bodies of the notebook routes."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from carrel_gateway.web.fields import ReplyBody, RequestBody


class NotebookIn(RequestBody):
    """A notebook that was edited elsewhere."""

    notebook: dict[str, Any]


class SyncOut(ReplyBody):
    """The cells that came back changed, or new; none of them was run."""

    edited: list[UUID]
