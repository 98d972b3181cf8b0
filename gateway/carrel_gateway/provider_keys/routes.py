"""`/api/provider-keys`: one's own keys of model providers, and the tenant's."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Path, Query, Response, status

from carrel_gateway.dependencies import ProviderKeys, Seen
from carrel_gateway.errors import NotFound
from carrel_gateway.idempotency.routes import IdempotentRoute
from carrel_gateway.provider_keys.schemas import ProviderKeyIn, ProviderKeyList, ProviderKeyOut
from carrel_gateway.web.conditional import if_any, tagged

router = APIRouter(route_class=IdempotentRoute, prefix="/api/provider-keys", tags=["identity"])
Provider = Annotated[str, Path(pattern="^[a-z0-9_-]{1,40}$", description="As in the names of models: `openai`.")]
Scope = Annotated[Literal["own", "tenant"], Query(description="`tenant`: for everybody in it, by its administrators.")]


@router.get("")
async def list_provider_keys(keys: ProviderKeys) -> ProviderKeyList:
    """List what there is; the keys themselves are shown to nobody."""
    return ProviderKeyList.model_validate({"items": await keys.list()})


@router.get("/{provider}")
async def get_provider_key(
    provider: Provider, keys: ProviderKeys, response: Response, scope: Scope = "own"
) -> ProviderKeyOut:
    """Say whether there is a key of a provider, and how it ends."""
    found = next((key for key in await keys.list() if (key.provider, key.scope) == (provider, scope)), None)
    if found is None:
        raise NotFound("there is no key of that provider", code="provider_key_not_found")
    return tagged(response, ProviderKeyOut.model_validate(found))


@router.put("/{provider}")
async def put_provider_key(
    provider: Provider, body: ProviderKeyIn, keys: ProviderKeys, seen: Seen, response: Response, scope: Scope = "own"
) -> ProviderKeyOut:
    """Store a key, in the place of an earlier one; runs that begin from now on use it."""
    expected = seen.on(if_any(ProviderKeyOut.model_validate))
    stored = await keys.put(provider, body.key.get_secret_value(), tenant=scope == "tenant", expected=expected)
    return tagged(response, ProviderKeyOut.model_validate(stored))


@router.delete("/{provider}", status_code=status.HTTP_204_NO_CONTENT)
async def delete_provider_key(provider: Provider, keys: ProviderKeys, seen: Seen, scope: Scope = "own") -> Response:
    """Delete a key."""
    expected = seen.on(if_any(ProviderKeyOut.model_validate))
    await keys.remove(provider, tenant=scope == "tenant", expected=expected)
    return Response(status_code=status.HTTP_204_NO_CONTENT)
