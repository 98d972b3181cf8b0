"""Sets limits, and says which there are and how much of them is used."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from carrel_gateway.audit.service import Action, AuditService
from carrel_gateway.context import Principal, ProcessContext
from carrel_gateway.errors import InvalidInput, NotFound
from carrel_gateway.identity.rights import Right
from carrel_gateway.quotas import repository
from carrel_gateway.quotas.keeper import QuotaReached, today
from carrel_gateway.quotas.repository import Counted, Quota, Resource, Scope
from carrel_gateway.storage.database import Transaction

__all__ = ["QuotaReached", "QuotaService", "QuotaState", "Resource", "Scope"]


@dataclass(frozen=True, slots=True)
class QuotaState:
    """A limit, and how much of it is used."""

    scope: Scope
    scope_id: UUID | None
    """None of the tenant, and of a limit of each user's."""
    resource: Resource
    limit: int
    used: int | None
    """None of a limit of each user's, which each uses for themselves."""


class QuotaService:
    """The quotas of one tenant, as one caller may see and set them."""

    def __init__(self, context: ProcessContext, principal: Principal) -> None:
        self._database = context.database
        self._keeper = context.quotas
        self._principal = principal
        self._audit = AuditService(context, principal)

    async def own(self) -> list[QuotaState]:
        """Return what holds for the caller."""
        tenant_id, user_id = self._principal.tenant_id, self._principal.user_id
        async with self._database.transaction(tenant_id, write=False) as tx:
            limits = await self._keeper.limits(tx)
            return [
                QuotaState(
                    one.scope,
                    None if one.scope_id == tenant_id else one.scope_id,
                    one.resource,
                    one.most,
                    await _used(tx, one),
                )
                for resource in ("sessions", "executions")
                for one in limits.of(tenant_id, user_id, resource)
            ]

    async def list(self) -> list[QuotaState]:
        """Return all limits of the tenant.

        Raises
        ------
        PermissionDenied
            Without the right to read the tenant's.
        """
        self._principal.require(Right.TENANT_READ)
        async with self._database.transaction(self._principal.tenant_id, write=False) as tx:
            return [await self._state(tx, quota) for quota in (await self._keeper.limits(tx)).quotas]

    async def put(
        self, scope: Scope, scope_id: UUID | None, resource: Resource, limit: int | None
    ) -> QuotaState | None:
        """Set a limit, in the place of an earlier one; none takes it away.

        Raises
        ------
        PermissionDenied
            Without the right to change the tenant.
        InvalidInput
            A team is not named, or the tenant is.
        NotFound
            There is no such team or user, or no limit that could be taken away.
        """
        self._principal.require(Right.TENANT_ADMIN)
        if (scope == "tenant" and scope_id is not None) or (scope == "team" and scope_id is None):
            raise InvalidInput("`scope_id` names a team or a user, and nothing for the tenant; a team must be named")
        target = scope_id or self._principal.tenant_id
        async with self._database.transaction(self._principal.tenant_id) as tx:
            if limit is None:
                if not await repository.remove(tx, scope, target, resource):
                    raise NotFound("there is no such limit", code="quota_not_found")
                state = None
            else:
                if scope_id is not None and not await repository.exists(tx, scope, scope_id):
                    raise NotFound(f"there is no such {scope} in the tenant", code=f"{scope}_not_found")
                quota = Quota(scope, target, resource, limit, datetime.now(UTC))
                await repository.put(tx, quota)
                state = await self._state(tx, quota)
            await self._audit.record(tx, Action.QUOTA_SET, target, scope=scope, resource=resource, limit=limit)
        self._keeper.forget(self._principal.tenant_id)
        return state

    async def sweep(self) -> int:
        """Delete the counters of days that are over, and return how many; clocks need not agree about midnight."""
        yesterday = (datetime.now(UTC) - timedelta(days=1)).date().isoformat()
        async with self._database.transaction(self._principal.tenant_id) as tx:
            return await repository.remove_old(tx, yesterday)

    async def _state(self, tx: Transaction, quota: Quota) -> QuotaState:
        of_all = quota.scope_id == tx.tenant_id
        used = None
        if not (of_all and quota.scope == "user"):
            used = await _used(tx, Counted(quota.scope, quota.scope_id, quota.resource, quota.most))
        return QuotaState(quota.scope, None if of_all else quota.scope_id, quota.resource, quota.most, used)


async def _used(tx: Transaction, counted: Counted) -> int:
    if counted.resource == "sessions":
        return await repository.open_sessions(tx, counted)
    return await repository.used(tx, counted, today())
