"""The cache of several gateways, in Redis. When Redis fails there is nothing in it, and nobody waits for it for long.

How much Redis keeps is for Redis to say (`maxmemory` with an eviction policy); every value has an end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar, cast

import structlog
from redis.asyncio import Redis

from carrel_gateway.storage.cache import MAX_VALUE_BYTES
from carrel_gateway.storage.metrics import CACHE
from carrel_gateway.storage.redis_clients import FAILURES, close_client, open_client

PREFIX: Final = "carrel.cache:"
ANSWER_SECONDS: Final = 0.5
AWAY_SECONDS: Final = 2.0
"""After a failure Redis is left alone for so long: to work a thing out is quicker than to wait for nothing."""

_T = TypeVar("_T")
_log = structlog.get_logger(__name__)


class RedisCache:
    """The cache of several gateways."""

    def __init__(self, url: str, *, ttl_seconds: float) -> None:
        """Connect when it is first used.

        Raises
        ------
        InvalidRedisUrl
            It is none.
        """
        self._client = open_client(url, connections=8, timeout_seconds=ANSWER_SECONDS)
        self._ttl_seconds = ttl_seconds
        self._away_until = 0.0

    async def get(self, key: str) -> bytes | None:
        """Return the value; none when it is not there, or Redis is away."""

        async def ask(client: Redis) -> bytes | None:
            return cast("bytes | None", await client.get(PREFIX + key))

        found = await self._try(ask, None)
        CACHE.labels("miss" if found is None else "hit").inc()
        return found

    async def set(self, key: str, value: bytes, ttl: float | None = None) -> None:
        """Keep a value, unless Redis is away; then an older one may still be there when it is back."""
        seconds = self._ttl_seconds if ttl is None else ttl
        if seconds <= 0 or len(value) > MAX_VALUE_BYTES:
            await self.delete(key)
            return

        async def ask(client: Redis) -> None:
            await client.set(PREFIX + key, value, px=max(int(seconds * 1000), 1))

        await self._try(ask, None)

    async def delete(self, key: str) -> None:
        """Forget the value, unless Redis is away; its end comes all the same."""

        async def ask(client: Redis) -> None:
            await client.delete(PREFIX + key)

        await self._try(ask, None)

    async def exists(self, key: str) -> bool:
        """Return whether there is a value; false when Redis is away."""

        async def ask(client: Redis) -> bool:
            return bool(await client.exists(PREFIX + key))

        return await self._try(ask, False)

    async def aclose(self) -> None:
        """Close all connections."""
        await close_client(self._client)

    async def _try(self, ask: Callable[[Redis], Awaitable[_T]], otherwise: _T) -> _T:
        loop = asyncio.get_running_loop()
        if loop.time() >= self._away_until:
            try:
                async with asyncio.timeout(ANSWER_SECONDS):
                    return await ask(self._client)
            except FAILURES as error:
                if loop.time() >= self._away_until:  # the first of those that waited together
                    _log.warning("cache_away", error=type(error).__name__)
                self._away_until = loop.time() + AWAY_SECONDS
        CACHE.labels("failure").inc()
        return otherwise
