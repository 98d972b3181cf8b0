"""The body of every error: `application/problem+json` (RFC 9457) with a stable `code`. Pure data, no framework."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

import orjson

from carrel_gateway.errors import CarrelError

MEDIA_TYPE: Final = "application/problem+json"
_OWN: Final = frozenset({"type", "title", "status", "detail", "code", "request_id"})


def problem_body(
    status: int, code: str, message: str, *, request_id: str | None = None, extra: Mapping[str, Any] | None = None
) -> bytes:
    """Return the JSON of one problem.

    Parameters
    ----------
    status
        HTTP status.
    code
        Stable name of the problem in snake_case; programs decide by it.
    message
        For people: what happened and what to do.
    request_id
        Id that the log lines of this request carry.
    extra
        Further members, such as `run_id`; they never replace the ones above.
    """
    body = {
        "type": f"urn:carrel:problem:{code}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": message,
        "code": code,
        **({"request_id": request_id} if request_id else {}),
        **{name: value for name, value in (extra or {}).items() if name not in _OWN},
    }
    return orjson.dumps(body, default=str)


def headers_of(error: CarrelError) -> dict[str, str]:
    """Return the headers that an error asks for: Retry-After, and WWW-Authenticate for 401."""
    headers: dict[str, str] = {}
    if error.retry_after_seconds is not None:
        headers["Retry-After"] = str(error.retry_after_seconds)
    if error.status == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="carrel"'
    return headers
