"""JSON answers that are built from documents, without a second walk through a validator: the hot reads."""

from __future__ import annotations

from typing import Any

import orjson
from starlette.responses import Response


class JsonReply(Response):
    """A response whose content is encoded by orjson; ids and times may be objects."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """Return the body."""
        return orjson.dumps(content, default=str, option=orjson.OPT_UTC_Z)
