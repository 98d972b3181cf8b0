"""The cookies of the API: a browser's refresh token and, while it signs in elsewhere, what it was sent away with.

Scripts can read neither, and no other site can have the first one sent; the second one must come along when the other
server sends the browser back.

`__Host-` has browsers refuse it without `Secure`, with a `Domain`, or from another path; so no neighbour can plant one.
"""

from __future__ import annotations

from typing import Final

from starlette.requests import HTTPConnection
from starlette.responses import Response

NAME: Final = "__Host-carrel-refresh"
ATTEMPT: Final = "__Host-carrel-oidc"


def put(response: Response, token: str, *, seconds: int) -> None:
    """Have the browser keep the token."""
    response.set_cookie(NAME, token, max_age=seconds, path="/", secure=True, httponly=True, samesite="strict")


def take_away(response: Response) -> None:
    """Have the browser forget it."""
    response.delete_cookie(NAME, path="/", secure=True, httponly=True, samesite="strict")


def read(connection: HTTPConnection) -> str | None:
    """Return the token that the browser sent."""
    return connection.cookies.get(NAME)


def put_attempt(response: Response, sealed: str, *, seconds: int) -> None:
    """Have the browser keep what it was sent away with."""
    response.set_cookie(ATTEMPT, sealed, max_age=seconds, path="/", secure=True, httponly=True, samesite="lax")


def take_attempt_away(response: Response) -> None:
    """Have the browser forget it: it is good once."""
    response.delete_cookie(ATTEMPT, path="/", secure=True, httponly=True, samesite="lax")


def read_attempt(connection: HTTPConnection) -> str | None:
    """Return what the browser came back with."""
    return connection.cookies.get(ATTEMPT)
