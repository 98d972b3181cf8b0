"""Bodies in and out: msgspec structs as JSON, errors in their one form."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import msgspec
from aiohttp import web

from carrel_kernel.errors import BadRequest, HostError
from carrel_wire.host import ErrorBody

_T = TypeVar("_T", bound=msgspec.Struct)


def reply(body: msgspec.Struct | Sequence[msgspec.Struct], *, status: int = 200) -> web.Response:
    """Return a body as JSON."""
    return web.Response(body=msgspec.json.encode(body), status=status, content_type="application/json")


def error_reply(error: HostError) -> web.Response:
    """Return an error as the caller sees it."""
    response = reply(ErrorBody(code=error.code, message=error.message, detail=error.detail), status=error.status)
    response.headers.update(error.headers)
    return response


async def body_of(request: web.Request, kind: type[_T]) -> _T:
    """Return the request's body.

    Raises
    ------
    BadRequest
        It is not JSON, or not of the kind.
    """
    data = await request.read()
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequest(f"the body is no valid {kind.__name__}: {error}") from error
