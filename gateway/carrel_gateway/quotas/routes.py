"""`/api/me/quotas` and `/api/quotas`: what holds for oneself, and the limits of the tenant."""

from __future__ import annotations

from fastapi import APIRouter

from carrel_gateway.dependencies import Quotas
from carrel_gateway.idempotency.routes import IdempotentRoute
from carrel_gateway.quotas.schemas import QuotaIn, QuotaList, QuotaOut

me = APIRouter(prefix="/api/me/quotas", tags=["identity"])
router = APIRouter(route_class=IdempotentRoute, prefix="/api/quotas", tags=["administration"])


@me.get("")
async def list_own_quotas(quotas: Quotas) -> QuotaList:
    """List the limits that hold for oneself, and how much of them is used."""
    return QuotaList.model_validate({"items": await quotas.own()})


@router.get("")
async def list_quotas(quotas: Quotas) -> QuotaList:
    """List the limits of the tenant, its teams and its users."""
    return QuotaList.model_validate({"items": await quotas.list()})


@router.put("")
async def put_quota(body: QuotaIn, quotas: Quotas) -> QuotaList:
    """Set a limit, or take it away; it holds at once here, and within ten seconds in other gateways."""
    state = await quotas.put(body.scope, body.scope_id, body.resource, body.limit)
    return QuotaList(items=[QuotaOut.model_validate(state)] if state else [])
