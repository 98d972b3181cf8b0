"""Holds what people do against the limits; one of each process.

Executions are counted ahead, some at a time, so that no write stands in the way of one (`storage.leases`); what is left
of such a lease when nobody goes on, or the process ends, is lost: at most a fiftieth of the limit. Sessions are counted
where they are, under the lock of whose they are: a counter beside rows that several parts change would go astray.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

from carrel_gateway.errors import TooMany
from carrel_gateway.quotas import repository
from carrel_gateway.quotas.metrics import REACHED
from carrel_gateway.quotas.repository import Counted, Limits, Resource
from carrel_gateway.settings import Settings
from carrel_gateway.storage.database import Database, Transaction
from carrel_gateway.storage.leases import Leases

KNOWN_SECONDS: Final = 10.0
"""So long a limit that another gateway was told of may not be known here."""
_TENANTS: Final = 10_000
_DAY: Final = 24 * 3600
_AGAIN_SECONDS: Final = 60
"""When a session ends, nobody knows."""
_WHOSE: Final = {"tenant": "the tenant", "team": "a team of yours", "user": "you"}


class QuotaReached(TooMany):
    """A quota has no room; the message says whose and what to do."""

    code = "quota_reached"


def today() -> str:
    """Return the day in UTC."""
    return datetime.now(UTC).date().isoformat()


class QuotaKeeper:
    """The limits of all tenants, as far as this process has met them."""

    def __init__(self, database: Database, settings: Settings, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._database = database
        most = settings.max_concurrent_sessions
        self._otherwise: dict[Resource, int] = {"sessions": most} if most else {}
        self._clock = clock
        self._leases = Leases(clock=clock)
        self._known: OrderedDict[UUID, tuple[float, Limits]] = OrderedDict()

    def forget(self, tenant_id: UUID) -> None:
        """Ask for a tenant's limits anew."""
        self._known.pop(tenant_id, None)

    async def limits(self, tx: Transaction) -> Limits:
        """Return the limits of a transaction's tenant, as they are now."""
        return await repository.limits(tx, self._otherwise)

    async def count_execution(self, tenant_id: UUID, user_id: UUID) -> None:
        """Count an execution that is about to begin.

        Raises
        ------
        QuotaReached
            The day has no room for it.
        """
        limits = await self._limits(tenant_id)
        day, taken = today(), list[Counted]()
        for counted in limits.of(tenant_id, user_id, "executions"):
            if not await self._take(tenant_id, counted, day):
                for before in taken:
                    await self._change(tenant_id, before, day, -1)
                raise _reached(counted, "executions today", _until_tomorrow(), "it begins anew at midnight UTC")
            taken.append(counted)

    async def admit_session(self, tx: Transaction, user_id: UUID) -> None:
        """Check within a transaction that one more session may be there, and have others wait for its end.

        Raises
        ------
        QuotaReached
        """
        limits = await self.limits(tx)
        found = limits.of(tx.tenant_id, user_id, "sessions")
        await repository.lock(tx, found)
        for counted in found:
            if await repository.open_sessions(tx, counted) >= counted.most:
                raise _reached(counted, "sessions", _AGAIN_SECONDS, "archive or delete one")

    async def _take(self, tenant_id: UUID, counted: Counted, day: str) -> bool:
        async def acquire(amount: int) -> bool:
            return await self._change(tenant_id, counted, day, amount)

        key = f"{tenant_id}:{counted.scope}:{counted.scope_id}:{day}"
        return await self._leases.hit(key, limit=counted.most, seconds=_DAY, cost=1, acquire=acquire)

    async def _change(self, tenant_id: UUID, counted: Counted, day: str, amount: int) -> bool:
        name = self._database.dialect.name
        return await self._database.run(tenant_id, lambda: repository.take(name, tenant_id, counted, day, amount))

    async def _limits(self, tenant_id: UUID) -> Limits:
        known = self._known.get(tenant_id)
        if known and self._clock() < known[0]:
            return known[1]
        async with self._database.transaction(tenant_id, write=False) as tx:
            limits = await self.limits(tx)
        self._known[tenant_id] = self._clock() + KNOWN_SECONDS, limits
        self._known.move_to_end(tenant_id)
        if len(self._known) > _TENANTS:
            self._known.popitem(last=False)
        return limits


def _until_tomorrow() -> int:
    now = datetime.now(UTC)
    midnight = (now + timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)
    return max(1, round((midnight - now).total_seconds()))


def _reached(counted: Counted, what: str, again: int, otherwise: str) -> QuotaReached:
    REACHED.labels(counted.resource, counted.scope).inc()
    return QuotaReached(
        f"{_WHOSE[counted.scope]} may have {counted.most} {what}, and no more; {otherwise}, or ask an administrator of "
        "your tenant for more",
        resource=counted.resource,
        scope=counted.scope,
        limit=counted.most,
        retry_after_seconds=again,
        reason="quota",
    )
