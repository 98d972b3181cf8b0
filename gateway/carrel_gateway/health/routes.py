"""`/health`, `/health/ready`, `/info`: without a key, and without anything that is worth one."""

from __future__ import annotations

from fastapi import APIRouter, Response, status

from carrel_gateway.dependencies import GatewayOf
from carrel_gateway.health import service
from carrel_gateway.health.schemas import Health, Info, Readiness

router = APIRouter(tags=["health"])


@router.get("/health")
async def health() -> Health:
    """Return that the process answers."""
    return Health()


@router.get("/health/ready", responses={503: {"model": Readiness, "description": "The database is away."}})
async def ready(gateway: GatewayOf, response: Response) -> Readiness:
    """Return how every part is, with its latency; 503 only when the database is away."""
    found = await service.readiness(gateway.context, gateway.models, gateway.jobs, gateway.keeper)
    if found.status == "away":
        response.status_code = status.HTTP_503_SERVICE_UNAVAILABLE
        response.headers["Retry-After"] = "5"
    return found


@router.get("/info")
async def info(gateway: GatewayOf) -> Info:
    """Return what this server is."""
    return service.info(gateway.context, gateway.started_at)
