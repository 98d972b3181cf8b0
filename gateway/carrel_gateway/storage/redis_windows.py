"""Counters of a sliding window in Redis, for all gateways together, with those of this process to fall back to.

The counting is one script of the library `limits`; for whoever calls often a few calls are counted ahead (`leases`).
When Redis does not answer soon, this process counts by itself for a while. It knows what it let through before, so a
caller gets no new budget by that, but the others do not know any more what is let through here: at most one budget for
each gateway.
"""

from __future__ import annotations

import asyncio
from typing import Final

import structlog
from limits.aio.storage import RedisStorage

from carrel_gateway.storage.leases import Leases
from carrel_gateway.storage.metrics import WINDOW_FALLBACKS
from carrel_gateway.storage.redis_clients import FAILURES, close_client, open_client
from carrel_gateway.storage.windows import MemoryWindows, wait_of

ANSWER_SECONDS: Final = 1.0
"""It stands in the way of every request, but only once in a while when Redis is away."""
AWAY_SECONDS: Final = 5.0
"""After a failure Redis is left alone for so long, so that requests do not wait again and again."""

_log = structlog.get_logger(__name__)


class RedisWindows:
    """Counts in Redis or, when it is away, in this process."""

    def __init__(self, url: str) -> None:
        """Connect when a first call is counted.

        Raises
        ------
        InvalidRedisUrl
            It is none.
        """
        self._client = open_client(url, connections=16, timeout_seconds=ANSWER_SECONDS)
        self._storage = RedisStorage(
            "async+redis://",
            implementation="redispy",
            key_prefix="carrel.rates",
            connection_pool=self._client.connection_pool,  # pyright: ignore[reportArgumentType]  its hint forgets pools
        )
        self._own = MemoryWindows()
        self._leases = Leases()
        self._away_until = 0.0

    async def hit(self, key: str, *, limit: int, seconds: int, cost: int = 1) -> float:
        """Count a call when it fits; return 0, or the seconds after which it would."""
        loop = asyncio.get_running_loop()
        if loop.time() >= self._away_until:
            try:
                waits = await self._hit(key, limit, seconds, cost, deadline=loop.time() + ANSWER_SECONDS)
            except FAILURES as error:
                if loop.time() >= self._away_until:  # the first of those that waited together
                    WINDOW_FALLBACKS.inc()
                    _log.warning("rates_counted_here", error=type(error).__name__)
                self._away_until = loop.time() + AWAY_SECONDS
            else:
                if not waits:
                    await self._own.hit(key, limit=limit, seconds=seconds, cost=cost)
                return waits
        return await self._own.hit(key, limit=limit, seconds=seconds, cost=cost)

    async def _hit(self, key: str, limit: int, seconds: int, cost: int, *, deadline: float) -> float:
        async def acquire(amount: int) -> bool:
            async with asyncio.timeout_at(deadline):
                return await self._storage.acquire_sliding_window_entry(key, limit, seconds, amount)

        if await self._leases.hit(key, limit=limit, seconds=seconds, cost=cost, acquire=acquire):
            return 0.0
        async with asyncio.timeout_at(deadline):
            before, before_left, now, now_left = await self._storage.get_sliding_window(key, seconds)
        waits = wait_of(
            limit, seconds, cost, before=before, before_left=before_left, now=now, now_left=max(now_left - seconds, 0.0)
        )
        return max(waits, 0.001)

    async def aclose(self) -> None:
        """Close all connections."""
        await close_client(self._client)
