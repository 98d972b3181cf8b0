"""`/`, `/account` and `/docs`: static files of this folder, without a key; the page itself asks for one.

With `CARREL_UI_PATH` the files of that folder go before; those of its top level alone, by the kinds that a page has.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from functools import cache
from importlib.resources import files
from pathlib import PurePath
from typing import Final

from fastapi import APIRouter, Request, Response

from carrel_gateway.errors import NotFound
from carrel_gateway.settings import Settings

router = APIRouter(include_in_schema=False)

_OWN: Final = frozenset(
    {
        "index.html",
        "account.html",
        "docs.html",
        "carrel.css",
        "app.js",
        "stream.js",
        "render.js",
        "account.js",
        "docs.js",
        "icon.svg",
    }
)
_TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".ico": "image/x-icon",
    ".woff2": "font/woff2",
}
_NAME: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}")
"""Of a file; none that leads to another folder, and none that is hidden."""
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


@router.get("/")
async def index(request: Request) -> Response:
    """Return the page."""
    return await _file(request, "index.html")


@router.get("/account")
async def account(request: Request) -> Response:
    """Return the page on which people log in."""
    return await _file(request, "account.html")


@router.get("/docs")
async def api_docs(request: Request) -> Response:
    """Return the API documentation, made in the browser from /openapi.json."""
    return await _file(request, "docs.html")


@router.get("/page/{name}")
async def asset(request: Request, name: str) -> Response:
    """Return a part of the page."""
    return await _file(request, name)


async def _file(request: Request, name: str) -> Response:
    settings: Settings = request.app.state.settings
    media_type = _TYPES.get(PurePath(name).suffix)
    content = await asyncio.to_thread(_content_of, settings, name) if settings.ui_enabled and media_type else None
    if content is None:
        raise NotFound("there is no such part of the page", code="route_not_found")
    headers = {"Content-Security-Policy": POLICY, "Cache-Control": "no-cache"}
    return Response(content, media_type=media_type, headers=headers)


def _content_of(settings: Settings, name: str) -> bytes | None:
    if settings.ui_path and _NAME.fullmatch(name):
        with contextlib.suppress(FileNotFoundError, IsADirectoryError):
            return (settings.ui_path / name).read_bytes()
    return _content(name) if name in _OWN else None


@cache
def _content(name: str) -> bytes:
    return files("carrel_gateway.page").joinpath(name).read_bytes()
