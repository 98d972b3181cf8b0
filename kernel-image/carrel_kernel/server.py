"""The HTTP surface: which route needs which scope, authentication before anything else, and errors as JSON.

Every route is declared in one table with its scope; a request to one that is not declared there is refused. What the
routes do is in `*_routes` and `channels`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias

import structlog
from aiohttp import web

from carrel_kernel import (
    archive_routes,
    channels,
    execution_routes,
    file_routes,
    host_routes,
    kernel_routes,
    snapshot_routes,
)
from carrel_kernel.auth import KeyFile, authenticate, authorize
from carrel_kernel.clients import Clients
from carrel_kernel.errors import HostError, NotFound, RefusedByServer, Unbound
from carrel_kernel.keys import CLIENTS, GRANT, REACHES, SUPERVISOR
from carrel_kernel.reaching import Reaches
from carrel_kernel.replies import error_reply
from carrel_kernel.supervisor import Supervisor
from carrel_wire.tokens import BIND, EXECUTE, FILES, STATE

Handler: TypeAlias = Callable[[web.Request], Awaitable[web.StreamResponse]]
MAX_BODY_BYTES: Final = 16 * 1024 * 1024
"""Of requests but uploads, which are streamed."""

_KERNEL: Final = "/v1/kernels/{kernel}"
_EXECUTION: Final = _KERNEL + "/executions/{execution}"
OPEN: Final = None

ROUTES: Final[tuple[tuple[str, str, str | None, Handler], ...]] = (
    ("GET", "/healthz", OPEN, host_routes.health),
    ("GET", "/readyz", OPEN, host_routes.ready),
    ("GET", "/metrics", OPEN, host_routes.metrics),
    ("POST", "/v1/bind", BIND, host_routes.bind),
    ("POST", "/v1/reach", BIND, host_routes.reach),
    ("GET", "/v1/state", STATE, host_routes.state),
    ("GET", "/v1/kernels", EXECUTE, kernel_routes.list_kernels),
    ("POST", "/v1/kernels", EXECUTE, kernel_routes.create),
    ("GET", _KERNEL, EXECUTE, kernel_routes.get),
    ("DELETE", _KERNEL, EXECUTE, kernel_routes.delete),
    ("POST", _KERNEL + "/interrupt", EXECUTE, kernel_routes.interrupt),
    ("POST", _KERNEL + "/restart", EXECUTE, kernel_routes.restart),
    ("GET", _KERNEL + "/variables", EXECUTE, kernel_routes.variables),
    ("POST", _KERNEL + "/complete", EXECUTE, kernel_routes.complete),
    ("POST", _KERNEL + "/inspect", EXECUTE, kernel_routes.inspect),
    ("POST", _KERNEL + "/snapshot", EXECUTE, snapshot_routes.take),
    ("POST", _KERNEL + "/restore", EXECUTE, snapshot_routes.restore),
    ("POST", _KERNEL + "/seal", EXECUTE, snapshot_routes.seal),
    ("DELETE", _KERNEL + "/seal", EXECUTE, snapshot_routes.unseal),
    ("GET", _KERNEL + "/channels", EXECUTE, channels.connect),
    ("PUT", _EXECUTION, EXECUTE, execution_routes.execute),
    ("GET", _EXECUTION + "/events", EXECUTE, execution_routes.events),
    ("POST", _EXECUTION + "/ack", EXECUTE, execution_routes.ack),
    ("GET", "/v1/files", FILES, file_routes.list_files),
    ("GET", "/v1/files/{path:.+}", FILES, file_routes.read),
    ("HEAD", "/v1/files/{path:.+}", FILES, file_routes.read),
    ("PUT", "/v1/files/{path:.+}", FILES, file_routes.write),
    ("DELETE", "/v1/files/{path:.+}", FILES, file_routes.delete),
    ("POST", "/v1/snapshots/missing", FILES, snapshot_routes.missing),
    ("GET", "/v1/snapshots/blobs/{sha256}", FILES, snapshot_routes.read),
    ("PUT", "/v1/snapshots/blobs/{sha256}", FILES, snapshot_routes.write),
    ("GET", "/v1/changes", FILES, file_routes.changes),
    ("GET", "/v1/archives", FILES, archive_routes.download),
    ("GET", "/v1/archives/{path:.+}", FILES, archive_routes.download),
    ("PUT", "/v1/archives/{path:.+}", FILES, archive_routes.upload),
)
"""Method, path, scope (none: without a token) and handler of every route."""

_SCOPES: Final[dict[Handler, str | None]] = {handler: scope for _, _, scope, handler in ROUTES}
_BEFORE_BIND: Final = frozenset({BIND, STATE})

_log = structlog.get_logger(__name__)


def create_app(supervisor: Supervisor, keys: KeyFile) -> web.Application:
    """Return the application of one host."""

    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            _admit(request, supervisor, keys)
            return await handler(request)
        except HostError as error:
            supervisor.metrics.refused.labels(error.code).inc()
            return error_reply(error)
        except web.HTTPException as error:
            return error_reply(_from_aiohttp(error))
        except ConnectionError:  # the caller has gone; nobody is there to be told
            raise
        except Exception:  # noqa: BLE001  the edge: a defect is logged and answered, and the host goes on
            _log.exception("request_failed", method=request.method, route=_route(request))
            return error_reply(HostError("the kernel host failed; see its log"))

    app = web.Application(middlewares=[guard], client_max_size=MAX_BODY_BYTES)
    app[SUPERVISOR] = supervisor
    app[CLIENTS] = Clients(supervisor.zmq_context, supervisor.metrics)
    app[REACHES] = Reaches(supervisor, supervisor.metrics)
    for method, path, _, handler in ROUTES:
        app.router.add_route(method, path, handler)
    return app


def _admit(request: web.Request, supervisor: Supervisor, keys: KeyFile) -> None:
    """Authenticate and authorize before the handler, and before a body is read.

    Raises
    ------
    Unauthenticated, ScopeMissing, Unbound, WrongSession
        In this order.
    """
    handler = request.match_info.handler
    if handler in _SCOPES and _SCOPES[handler] is OPEN:
        return
    grant = authenticate(request.headers.get("Authorization"), keys)
    scope = _SCOPES.get(handler)
    if scope is None:
        raise NotFound("there is no such route")
    authorize(grant, scope, supervisor.session_uid)
    if supervisor.binding is None and scope not in _BEFORE_BIND:
        raise Unbound("the host is not bound to a session yet; bind it first")
    request[GRANT] = grant
    supervisor.called()


def _from_aiohttp(error: web.HTTPException) -> HostError:
    """Return an error of the host's own form for what aiohttp refuses by itself."""
    codes = {404: "not_found", 405: "method_not_allowed", 413: "too_large"}
    return RefusedByServer(error.reason, status=error.status, code=codes.get(error.status, "bad_request"))


def _route(request: web.Request) -> str:
    resource = request.match_info.route.resource
    return resource.canonical if resource else "unknown"
