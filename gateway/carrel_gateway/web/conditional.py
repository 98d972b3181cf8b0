"""`ETag` on answers; reads that a caller has already, and writes of what a caller has seen (RFC 9110, 13).

The tag of a file is that of its content, and of a history's export that of its last event; of a document it is the
digest of what is sent, so that a 304 saves the way and not the work. A write under `If-Match` is compared by the
service that does it, in its transaction, with what is there at that moment: `SeenBy.on` gives it what compares.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeVar

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from carrel_gateway.errors import PreconditionFailed

T = TypeVar("T")
Model = TypeVar("Model", bound=BaseModel)

_SESSION: Final = "/api/sessions/{session_id}"
PATHS: Final = frozenset(
    {
        "/api/sessions",
        _SESSION,
        f"{_SESSION}/config",
        f"{_SESSION}/mcp",
        f"{_SESSION}/mcp/{{name}}",
        f"{_SESSION}/files",
        f"{_SESSION}/files/{{name}}",
        f"{_SESSION}/artifacts",
        f"{_SESSION}/artifacts/{{name}}",
        f"{_SESSION}/export",
        f"{_SESSION}/notebook",
        "/api/artifacts/{artifact_id}",
        "/api/agents/{agent_id}",
        "/api/agents/{agent_id}/teams/{team_id}",
        f"{_SESSION}/teams/{{team_id}}",
        f"{_SESSION}/share/{{link_id}}",
        "/api/keys/{key_id}",
        "/api/provider-keys/{provider}",
        "/api/teams/{team_id}",
        "/api/teams/{team_id}/members/{user_id}",
        "/api/users/{user_id}",
        "/api/me",
        "/api/me/preferences",
    }
)
"""Templates of the paths whose GET is conditional."""
GUARDED: Final = frozenset(
    {
        ("PUT", _SESSION),
        ("DELETE", _SESSION),
        ("PUT", f"{_SESSION}/config"),
        ("PUT", f"{_SESSION}/mcp/{{name}}"),
        ("DELETE", f"{_SESSION}/mcp/{{name}}"),
        ("DELETE", f"{_SESSION}/files/{{name}}"),
        ("PUT", "/api/agents/{agent_id}"),
        ("DELETE", "/api/agents/{agent_id}"),
        ("PUT", "/api/agents/{agent_id}/teams/{team_id}"),
        ("DELETE", "/api/agents/{agent_id}/teams/{team_id}"),
        ("PUT", f"{_SESSION}/teams/{{team_id}}"),
        ("DELETE", f"{_SESSION}/teams/{{team_id}}"),
        ("DELETE", f"{_SESSION}/share/{{link_id}}"),
        ("DELETE", "/api/keys/{key_id}"),
        ("PUT", "/api/provider-keys/{provider}"),
        ("DELETE", "/api/provider-keys/{provider}"),
        ("PUT", "/api/teams/{team_id}"),
        ("DELETE", "/api/teams/{team_id}"),
        ("PUT", "/api/teams/{team_id}/members/{user_id}"),
        ("DELETE", "/api/teams/{team_id}/members/{user_id}"),
        ("PUT", "/api/users/{user_id}"),
        ("PUT", "/api/me"),
        ("PUT", "/api/me/preferences"),
    }
)
"""Writes that take `If-Match`: those of what `PATHS` gives a tag to under the same address."""
_NO_TAG: Final = ""


def is_conditional(method: str, path: str) -> bool:
    """Return whether reads of a route are conditional."""
    return method == "GET" and path.replace(":path", "") in PATHS


def is_guarded(method: str, path: str) -> bool:
    """Return whether writes of a route take `If-Match`."""
    return (method, path.replace(":path", "")) in GUARDED


def tag_of(model: BaseModel) -> str:
    """Return the tag of a document."""
    return _tag(model.model_dump_json().encode())


def tagged(response: Response, model: Model) -> Model:
    """Return a document that is answered, with its tag on the answer."""
    response.headers["ETag"] = tag_of(model)
    return model


def if_any(shown: Callable[[T], BaseModel]) -> Callable[[T | None], BaseModel | str]:
    """Return what shows something that may not be there: what is not has no tag."""
    return lambda thing: _NO_TAG if thing is None else shown(thing)


@dataclass(frozen=True, slots=True)
class SeenBy:
    """What the caller of a write says to have seen: its `If-Match`, or nothing."""

    header: str | None

    def on(self, shown: Callable[[T], BaseModel | str]) -> Callable[[T], None] | None:
        """Return what compares the thing, as it is when it is written, with what the caller has seen; none without.

        Parameters
        ----------
        shown
            Returns the document that the caller is shown of the thing, or its tag.
        """
        if self.header is None:
            return None

        def compare(thing: T) -> None:
            now = shown(thing)
            self.require(now if isinstance(now, str) else tag_of(now))

        return compare

    def require(self, tag: str | None) -> None:
        """Compare with the tag of now, strongly; `*` is any tag, but not that of what is not there.

        Raises
        ------
        PreconditionFailed
            It is another one.
        """
        if self.header is None or (self.header.strip() == "*" and tag != _NO_TAG):
            return
        # A weak tag says nothing about equality byte by byte, and so is never the one of now (RFC 9110, 8.8.3.2).
        if not tag or tag not in {part.strip() for part in self.header.split(",")}:
            raise PreconditionFailed(
                "it is not as you have seen it: somebody changed it since; read it again, and send the change with "
                "its ETag of now"
            )


def refuse_tags(header: str | None) -> None:
    """Refuse `If-Match` where nothing would compare it.

    Raises
    ------
    PreconditionFailed
        It names tags.
    """
    if header is not None and header.strip() != "*":
        raise PreconditionFailed(
            "what this request changes has no ETag that it could be compared with; send it again without If-Match"
        )


def tags_of(header: str) -> frozenset[str]:
    """Return the tags of an `If-None-Match`, compared weakly."""
    return frozenset(part.strip().removeprefix("W/") for part in header.split(","))


async def answer(request: Request, response: Response) -> Response:
    """Return the response with its tag, or a 304 in its place."""
    if response.status_code != 200:
        return response
    if not isinstance(response, StreamingResponse) and "etag" not in response.headers:
        response.headers["ETag"] = _tag(bytes(response.body))
    tag, wanted = response.headers.get("etag"), tags_of(request.headers.get("if-none-match", ""))
    if tag is None or not wanted.intersection({tag, "*"}):
        return response
    close = getattr(getattr(response, "body_iterator", None), "aclose", None)
    if close is not None:
        await close()
    return Response(status_code=304, headers={"ETag": tag})


def _tag(document: bytes) -> str:
    return f'"{hashlib.sha256(document).hexdigest()[:32]}"'
