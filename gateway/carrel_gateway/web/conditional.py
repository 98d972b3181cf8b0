"""Reads that a caller has already: `ETag` on the answer, and 304 when `If-None-Match` names it (RFC 9110, 13).

The tag of a file is that of its content, and of a history's export that of its last event; of a document it is the
digest of what would be sent, so that a 304 saves the way and not the work. Writes are not conditional here.
"""

from __future__ import annotations

import hashlib
from typing import Final

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

_SESSION: Final = "/api/sessions/{session_id}"
PATHS: Final = frozenset(
    {
        "/api/sessions",
        _SESSION,
        f"{_SESSION}/config",
        f"{_SESSION}/files",
        f"{_SESSION}/files/{{name}}",
        f"{_SESSION}/artifacts",
        f"{_SESSION}/artifacts/{{name}}",
        f"{_SESSION}/export",
        f"{_SESSION}/notebook",
        "/api/artifacts/{artifact_id}",
    }
)
"""Templates of the paths whose GET is conditional."""


def is_conditional(method: str, path: str) -> bool:
    """Return whether reads of a route are conditional."""
    return method == "GET" and path.replace(":path", "") in PATHS


def tags_of(header: str) -> frozenset[str]:
    """Return the tags of an `If-None-Match`, compared weakly."""
    return frozenset(part.strip().removeprefix("W/") for part in header.split(","))


async def answer(request: Request, response: Response) -> Response:
    """Return the response with its tag, or a 304 in its place."""
    if response.status_code != 200:
        return response
    if not isinstance(response, StreamingResponse):
        digest = hashlib.sha256(bytes(response.body)).hexdigest()[:32]
        response.headers.setdefault("ETag", f'"{digest}"')
    tag, wanted = response.headers.get("etag"), tags_of(request.headers.get("if-none-match", ""))
    if tag is None or not wanted.intersection({tag, "*"}):
        return response
    close = getattr(getattr(response, "body_iterator", None), "aclose", None)
    if close is not None:
        await close()
    return Response(status_code=304, headers={"ETag": tag})
