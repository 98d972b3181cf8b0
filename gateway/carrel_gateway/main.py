"""The application: routes, middleware, and the lifespan that makes everything one process holds.

No behaviour of its own; each feature's folder has that.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import cache
from typing import Any, Final

import structlog
from fastapi import APIRouter, FastAPI
from fastapi.middleware.cors import CORSMiddleware
from fastapi.routing import APIRoute

from carrel_gateway import housekeeping, metrics, problems
from carrel_gateway.accounts import routes as accounts
from carrel_gateway.accounts.first import make_first_administrator
from carrel_gateway.accounts.parts import open_parts as open_accounts
from carrel_gateway.agents.models.registry import ModelRegistry
from carrel_gateway.artifacts import routes as artifacts
from carrel_gateway.audit import routes as audit
from carrel_gateway.chat import routes as chat
from carrel_gateway.chat.supervisor import RunSupervisor
from carrel_gateway.config import routes as config
from carrel_gateway.credentials import routes as credentials
from carrel_gateway.credentials.first import make_first_key
from carrel_gateway.dependencies import Gateway, admit_body, count_open_call
from carrel_gateway.errors import CarrelError
from carrel_gateway.execution import routes as execution
from carrel_gateway.execution.startup import recover_left_behind
from carrel_gateway.health import routes as health
from carrel_gateway.history import routes as history
from carrel_gateway.identity.authenticator import Authenticator
from carrel_gateway.identity.keys import InstallationKey, installation_key
from carrel_gateway.jobs import routes as jobs
from carrel_gateway.jobs.schedules import Planner
from carrel_gateway.jobs.worker import JobWorker
from carrel_gateway.lag import watch_lag
from carrel_gateway.mcp_servers import routes as mcp_servers
from carrel_gateway.models import routes as models
from carrel_gateway.notebook import routes as notebook
from carrel_gateway.opening import open_context
from carrel_gateway.page import routes as page
from carrel_gateway.people import routes as people
from carrel_gateway.provider_keys import routes as provider_keys
from carrel_gateway.quotas import routes as quotas
from carrel_gateway.rates.service import RateLimits
from carrel_gateway.sessions import routes as sessions
from carrel_gateway.sessions.access import SessionAccess
from carrel_gateway.settings import Settings
from carrel_gateway.sharing import routes as sharing
from carrel_gateway.stored_agents import routes as stored_agents
from carrel_gateway.suspension import routes as suspension
from carrel_gateway.suspension.checkpoints import checkpoint_for_ever
from carrel_gateway.suspension.keeping import SessionKeeper
from carrel_gateway.uploads import routes as uploads
from carrel_gateway.usage import routes as usage
from carrel_gateway.web import openapi
from carrel_gateway.web.guards import refuse_exposure
from carrel_gateway.web.middleware import Envelope
from carrel_gateway.web.routing import RouteTable
from carrel_wire import __version__

_ROUTERS: Final[tuple[APIRouter, ...]] = (
    health.router,
    accounts.router,
    accounts.me,
    accounts.invited,
    sessions.router,
    suspension.router,
    chat.router,
    history.router,
    history.search_router,
    execution.router,
    artifacts.router,
    uploads.router,
    notebook.router,
    config.router,
    mcp_servers.router,
    mcp_servers.templates,
    models.router,
    credentials.router,
    audit.router,
    jobs.router,
    usage.router,
    usage.me,
    quotas.router,
    quotas.me,
    people.router,
    stored_agents.router,
    provider_keys.router,
    sharing.router,
    sharing.shown,
    chat.sockets,
    artifacts.signed,
    page.router,
)

_log = structlog.get_logger(__name__)


def create_app(settings: Settings) -> FastAPI:
    """Return the application for these settings; nothing is opened before its lifespan begins.

    Raises
    ------
    ExposedLocalExecutor
        It would offer unisolated kernels to other machines.
    """
    refuse_exposure(settings)
    app = FastAPI(
        title="Carrel",
        version=__version__,
        description="A desk of its own for every data-analysis conversation.",
        lifespan=_lifespan,
        docs_url=None,  # own page: the bundled one loads its parts from other servers
        redoc_url=None,
        redirect_slashes=False,
        telemetry={"tracing": False, "metrics": False, "logs": False},  # it would look for providers at each request
    )
    app.state.settings = settings
    describe = app.openapi
    app.openapi = cache(lambda: openapi.complete(describe()))
    problems.install(app)
    routes = [route for router in _ROUTERS for route in router.routes]
    table = RouteTable([route for route in routes if isinstance(route, APIRoute)], count_open_call)
    app.router.routes += [table, *routes]
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"],
            allow_headers=[
                "Authorization",
                "Content-Type",
                "Accept",
                "Last-Event-ID",
                "Idempotency-Key",
                *uploads.REQUEST_HEADERS,
            ],
            expose_headers=[
                "X-Request-Id",
                "Retry-After",
                "Carrel-Run-Id",
                "Content-Disposition",
                *uploads.ANSWER_HEADERS,
            ],
        )
    app.add_middleware(Envelope, settings=settings, admit=admit_body)  # added last, so it is the outermost
    return app


async def drain(app: FastAPI) -> None:
    """End streams and hand runs and jobs over, so that others go on with them while requests come to their end."""
    gateway: Gateway = app.state.gateway
    gateway.closing.set()
    await asyncio.gather(gateway.supervisor.aclose(), gateway.jobs.aclose())


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncGenerator[None]:
    settings: Settings = app.state.settings
    async with AsyncExitStack() as stack:
        try:
            context = await open_context(settings)
        except CarrelError as error:
            app.state.refusal = error  # whoever serves says it in one line; a server only knows tracebacks
            raise
        stack.push_async_callback(context.aclose)
        registry = ModelRegistry(settings)
        stack.push_async_callback(registry.aclose)
        supervisor = RunSupervisor(context, registry)
        requests = context.executor.suspension_requests()
        keeper = SessionKeeper(context, requests) if requests else None
        key = installation_key(settings)
        if key is None:
            app.state.first_key = await make_first_key(context)  # whoever serves shows it
        authenticator = Authenticator(context, InstallationKey(key) if key else None)
        authenticator.start()
        stack.push_async_callback(authenticator.aclose)
        opened = await stack.enter_async_context(open_accounts(context))
        planner = Planner(context, housekeeping.SCHEDULES)
        worker = JobWorker(context, [planner.kind, *housekeeping.kinds(context, opened)], tick=planner.tick)
        app.state.gateway = Gateway(
            context=context,
            supervisor=supervisor,
            models=registry,
            jobs=worker,
            keeper=keeper,
            authenticator=authenticator,
            accounts=opened,
            rates=RateLimits(settings, context.windows),
            access=SessionAccess(context.database),
            started_at=time.monotonic(),
            closing=asyncio.Event(),
        )
        await make_first_administrator(opened)
        await recover_left_behind(context)
        await supervisor.start()
        stack.push_async_callback(supervisor.aclose)
        worker.start()
        stack.push_async_callback(worker.aclose)
        if settings.metrics_port:
            stop_metrics = metrics.serve(settings.host, settings.metrics_port)
            stack.push_async_callback(asyncio.to_thread, stop_metrics)
        works = [watch_lag(), checkpoint_for_ever(context)]
        if keeper:
            works.append(keeper.run())
        for work in works:
            stack.push_async_callback(_end, asyncio.create_task(work))
        _log.info("started", version=__version__, executor=settings.executor_type, storage=settings.storage_type)
        yield
        _log.info("stopping")


async def _end(task: asyncio.Task[Any]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
