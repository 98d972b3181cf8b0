"""`/api/models`: the models that sessions may choose, and whether a run with one could begin."""

from __future__ import annotations

from fastapi import APIRouter

from carrel_gateway.dependencies import GatewayOf, ProviderKeys
from carrel_gateway.errors import CarrelError, NotFound
from carrel_gateway.models.schemas import ModelList, ModelOut, Validation

router = APIRouter(prefix="/api/models", tags=["models"])


@router.get("")
async def list_models(gateway: GatewayOf, keys: ProviderKeys) -> ModelList:
    """List the models, the default first."""
    own = await keys.providers()
    models = [ModelOut.model_validate(model) for model in gateway.models.list()]
    return ModelList(
        items=[model.model_copy(update={"key_present": model.key_present or model.provider in own}) for model in models]
    )


@router.get("/{name:path}/validate")
async def validate_model(name: str, gateway: GatewayOf, keys: ProviderKeys) -> Validation:
    """Say whether a run with the model could begin: whether there is a key for it. The provider is not asked."""
    if name not in {model.name for model in gateway.models.list()}:
        raise NotFound(f"no model is called {name!r} here; GET /api/models lists them")
    try:
        gateway.models.require(name, has_key=await keys.key_for(name) is not None)
    except CarrelError as error:
        return Validation(name=name, valid=False, code=error.code, message=error.message)
    return Validation(name=name, valid=True)
