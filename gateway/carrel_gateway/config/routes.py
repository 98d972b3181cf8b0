"""`…/config`: the model and the limits of a session's runs."""

from __future__ import annotations

from uuid import UUID

from fastapi import APIRouter, Response

from carrel_gateway.config.schemas import ConfigUpdate, EffectiveConfig
from carrel_gateway.dependencies import Config, Seen
from carrel_gateway.idempotency.routes import IdempotentRoute
from carrel_gateway.web.conditional import tagged

router = APIRouter(route_class=IdempotentRoute, prefix="/api/sessions/{session_id}", tags=["configuration"])


@router.get("/config")
async def get_config(session_id: UUID, config: Config, response: Response) -> EffectiveConfig:
    """Return what the session's next run goes by."""
    return tagged(response, await config.get(session_id))


@router.put("/config")
async def update_config(
    session_id: UUID, body: ConfigUpdate, config: Config, seen: Seen, response: Response
) -> EffectiveConfig:
    """Change model or limits; a run that is going on keeps what it began with."""
    changed = await config.update(session_id, body.model_dump(exclude_unset=True), seen.on(_itself))
    return tagged(response, changed)


@router.post("/reload")
async def reload_config(session_id: UUID, config: Config) -> EffectiveConfig:
    """Check the configuration against the models and limits of today."""
    return await config.reload(session_id)


def _itself(config: EffectiveConfig) -> EffectiveConfig:
    return config
