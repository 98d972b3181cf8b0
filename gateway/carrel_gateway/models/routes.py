"""`/api/models`: the models that sessions may choose, and whether a run with one could begin."""

from __future__ import annotations

from fastapi import APIRouter, Depends

from carrel_gateway.dependencies import GatewayOf, require_caller
from carrel_gateway.errors import CarrelError, NotFound
from carrel_gateway.models.schemas import ModelList, ModelOut, Validation

router = APIRouter(prefix="/api/models", tags=["models"], dependencies=[Depends(require_caller)])


@router.get("")
async def list_models(gateway: GatewayOf) -> ModelList:
    """List the models, the default first."""
    return ModelList(items=[ModelOut.model_validate(model) for model in gateway.models.list()])


@router.get("/{name:path}/validate")
async def validate_model(name: str, gateway: GatewayOf) -> Validation:
    """Say whether a run with the model could begin: whether the server holds its key. The provider is not asked."""
    if name not in {model.name for model in gateway.models.list()}:
        raise NotFound(f"no model is called {name!r} here; GET /api/models lists them")
    try:
        gateway.models.require(name)
    except CarrelError as error:
        return Validation(name=name, valid=False, code=error.code, message=error.message)
    return Validation(name=name, valid=True)
