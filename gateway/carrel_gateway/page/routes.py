"""`/`, `/account` and `/docs`: static files of this folder, without a key; the page itself asks for one."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Final

from fastapi import APIRouter, Response

from carrel_gateway.errors import NotFound

router = APIRouter(include_in_schema=False)

_TYPES: Final = {
    "index.html": "text/html; charset=utf-8",
    "account.html": "text/html; charset=utf-8",
    "docs.html": "text/html; charset=utf-8",
    "carrel.css": "text/css; charset=utf-8",
    "app.js": "text/javascript; charset=utf-8",
    "stream.js": "text/javascript; charset=utf-8",
    "render.js": "text/javascript; charset=utf-8",
    "account.js": "text/javascript; charset=utf-8",
    "docs.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


@router.get("/")
async def index() -> Response:
    """Return the page."""
    return _file("index.html")


@router.get("/account")
async def account() -> Response:
    """Return the page on which people log in."""
    return _file("account.html")


@router.get("/docs")
async def api_docs() -> Response:
    """Return the API documentation, made in the browser from /openapi.json."""
    return _file("docs.html")


@router.get("/page/{name}")
async def asset(name: str) -> Response:
    """Return a part of the page."""
    return _file(name)


def _file(name: str) -> Response:
    if name not in _TYPES:
        raise NotFound("there is no such part of the page", code="route_not_found")
    headers = {"Content-Security-Policy": POLICY, "Cache-Control": "no-cache"}
    return Response(_content(name), media_type=_TYPES[name], headers=headers)


@cache
def _content(name: str) -> bytes:
    return files("carrel_gateway.page").joinpath(name).read_bytes()
