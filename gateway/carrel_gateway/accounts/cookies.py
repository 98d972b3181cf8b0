"""The one cookie of the API: a browser's refresh token. Scripts cannot read it, and no other site can have it sent.

`__Host-` has browsers refuse it without `Secure`, with a `Domain`, or from another path; so no neighbour can plant one.
"""

from __future__ import annotations

from typing import Final

from starlette.requests import HTTPConnection
from starlette.responses import Response

NAME: Final = "__Host-carrel-refresh"


def put(response: Response, token: str, *, seconds: int) -> None:
    """Have the browser keep the token."""
    response.set_cookie(NAME, token, max_age=seconds, path="/", secure=True, httponly=True, samesite="strict")


def take_away(response: Response) -> None:
    """Have the browser forget it."""
    response.delete_cookie(NAME, path="/", secure=True, httponly=True, samesite="strict")


def read(connection: HTTPConnection) -> str | None:
    """Return the token that the browser sent."""
    return connection.cookies.get(NAME)
