"""Asks each part whether it is there, all at once and with a deadline."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final

import structlog

from carrel_gateway.agents.models.registry import ModelRegistry
from carrel_gateway.context import ProcessContext
from carrel_gateway.errors import CarrelError
from carrel_gateway.health.schemas import Info, PartHealth, Readiness
from carrel_gateway.jobs.worker import JobWorker
from carrel_gateway.suspension.keeping import SessionKeeper
from carrel_wire import __version__

PART_SECONDS: Final = 3.0
"""A part that does not answer for so long is away; probes of a cluster wait about as long."""

_log = structlog.get_logger(__name__)


async def readiness(
    context: ProcessContext, models: ModelRegistry, jobs: JobWorker, keeper: SessionKeeper | None
) -> Readiness:
    """Return how every part is."""
    pings: dict[str, Callable[[], Awaitable[None]]] = {
        "database": context.database.ping,
        "bus": context.bus.ping,
        "object_store": context.objects.ping,
        "executor": context.executor.ping,
        "jobs": jobs.ping,
    }
    if keeper:
        pings["suspension"] = keeper.ping
    found = await asyncio.gather(*(_check(name, ping) for name, ping in pings.items()))
    parts = dict(zip(pings, found, strict=True))
    parts["model_provider"] = _model_provider(context.settings.llm_model, models)
    if parts["database"].status != "ok":
        return Readiness(status="away", parts=parts)
    degraded = any(part.status == "away" for part in parts.values())
    return Readiness(status="degraded" if degraded else "ok", parts=parts)


async def _check(name: str, ping: Callable[[], Awaitable[None]]) -> PartHealth:
    started = time.perf_counter()
    message: str | None = None
    try:
        await asyncio.wait_for(ping(), PART_SECONDS)
    except TimeoutError:
        message = f"no answer within {PART_SECONDS:g} s"
    except CarrelError as error:
        message = error.message
    except Exception:  # noqa: BLE001 - whatever a driver raises is the same to whoever asks; the log has it
        _log.exception("part away", part=name)
        message = "away; the server's log says why"
    latency = round((time.perf_counter() - started) * 1000, 2)
    return PartHealth(status="away" if message else "ok", latency_milliseconds=latency, message=message)


def _model_provider(name: str, models: ModelRegistry) -> PartHealth:
    """Say whether the default model could be called; a probe must not cost money, so it is not called."""
    try:
        models.require(name)
    except CarrelError as error:
        return PartHealth(status="away", message=error.message)
    return PartHealth(status="ok", latency_milliseconds=0.0)


def info(context: ProcessContext, started_at: float) -> Info:
    """Return what this server is; `started_at` by the monotonic clock."""
    settings = context.settings
    return Info(
        version=__version__,
        executor=settings.executor_type,
        isolated=settings.executor_type != "local",
        database="sqlite" if settings.database.startswith("sqlite") else "postgresql",
        storage=settings.storage_type,
        bus="redis" if settings.redis_url else "in_process",
        default_model=settings.llm_model,
        upload_max_bytes=settings.upload_max_bytes,
        oidc=settings.oidc_issuer is not None,
        uptime_seconds=round(time.monotonic() - started_at, 1),
    )
