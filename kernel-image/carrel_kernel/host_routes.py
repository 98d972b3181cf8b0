"""Routes of the host as a whole: health, metrics, bind, reach and state."""

from __future__ import annotations

from aiohttp import web

from carrel_kernel.errors import WrongSession
from carrel_kernel.keys import GRANT, REACHES, SUPERVISOR
from carrel_kernel.replies import body_of, reply
from carrel_wire.host import BindRequest, ReachRequest


async def health(_: web.Request) -> web.Response:
    """`GET /healthz`: the event loop answers."""
    return web.json_response({"status": "ok"})


async def ready(request: web.Request) -> web.Response:
    """`GET /readyz`: the workspace is prepared, so the host can be bound."""
    return web.json_response({"status": "ok", "bound": request.app[SUPERVISOR].binding is not None})


async def metrics(request: web.Request) -> web.Response:
    """`GET /metrics` in Prometheus' text format."""
    supervisor = request.app[SUPERVISOR]
    supervisor.measure()
    return web.Response(
        body=supervisor.metrics.render(), headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
    )


async def bind(request: web.Request) -> web.Response:
    """`POST /v1/bind`."""
    wanted = await body_of(request, BindRequest)
    named = request[GRANT].session_uid
    if named is not None and named != wanted.session_uid:
        raise WrongSession("the token is for another session than the one to bind")
    return reply(await request.app[SUPERVISOR].bind(wanted))


async def reach(request: web.Request) -> web.Response:
    """`POST /v1/reach`."""
    return reply(await request.app[REACHES].attempt(await body_of(request, ReachRequest)))


async def state(request: web.Request) -> web.Response:
    """`GET /v1/state`."""
    return reply(await request.app[SUPERVISOR].state())
