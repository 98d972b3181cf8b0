"""The API server in memory (`api_server`) over HTTP on loopback, for the few reads that the gateway makes of a session.

    async with api_over_http(ApiServer()) as api: ...

It answers `GET` of one AgentSession and one pod, keeps every path that was asked for, and can send callers elsewhere.
It knows no watches and no rights: what needs them is tested against a real API server (`tests/cluster`).
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web
from tests.support.api_server import ApiServer

from carrel_api import names
from carrel_operator.errors import ApiNotFound

KINDS = {"agentsessions": names.SESSION_KIND, "pods": "Pod"}


class ApiOverHttp:
    """What a gateway reaches under `url`."""

    def __init__(self, server: ApiServer) -> None:
        self.server = server
        self.url = ""
        self.asked: list[str] = []
        """Raw paths, as they came."""
        self.elsewhere: str | None = None
        """Where callers are sent, with all they ask for."""

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request.raw_path)
        if self.elsewhere:
            raise web.HTTPTemporaryRedirect(self.elsewhere)
        parts = request.raw_path.strip("/").split("/")
        where = parts.index("namespaces")
        namespace, plural, name = parts[where + 1 : where + 4]
        try:
            return web.json_response(self.server.get(KINDS[plural], name, namespace))
        except ApiNotFound as error:
            return web.json_response({"kind": "Status", "message": str(error)}, status=404)


class Sink:
    """A server that must not be reached; what reached it is kept."""

    def __init__(self) -> None:
        self.url = ""
        self.seen: list[tuple[str, dict[str, str]]] = []

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.seen.append((f"{request.method} {request.raw_path}", dict(request.headers)))
        return web.json_response({})


@asynccontextmanager
async def listening(handler: Any) -> AsyncIterator[str]:
    """Serve on a free loopback port, and yield the address."""
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        yield f"http://{host}:{port}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def api_over_http(server: ApiServer) -> AsyncIterator[ApiOverHttp]:
    """Serve the objects of an API server in memory."""
    api = ApiOverHttp(server)
    async with listening(api.answer) as api.url:
        yield api


@asynccontextmanager
async def sink() -> AsyncIterator[Sink]:
    """Serve what must not be reached."""
    made = Sink()
    async with listening(made.answer) as made.url:
        yield made
