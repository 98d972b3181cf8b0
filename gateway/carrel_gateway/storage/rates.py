"""How often something may be done: sliding windows, counted in Redis for all gateways or, without it, in this process.

Redis away: every gateway counts for itself until it is back. What is counted, and how often it may be, others decide.
"""

from __future__ import annotations

import hashlib
import math
import time
from dataclasses import dataclass
from typing import Any, Final, cast

import structlog
from limits import RateLimitItem, RateLimitItemPerSecond
from limits.aio.storage import MemoryStorage, RedisStorage
from limits.aio.strategies import MovingWindowRateLimiter

from carrel_gateway.settings import Settings

_log = structlog.get_logger(__name__)
_PREFIX: Final = "carrel-rates"
_SECONDS: Final = 1.0
"""So long Redis may take; then this process counts for itself."""


@dataclass(frozen=True, slots=True)
class Limit:
    """So many times within so many seconds."""

    name: str
    times: int
    seconds: int

    def item(self) -> RateLimitItem:
        """Return it as the library has it."""
        return RateLimitItemPerSecond(self.times, self.seconds, self.name)


class Rates:
    """The counters."""

    def __init__(self, redis_url: str | None) -> None:
        self._own = MovingWindowRateLimiter(MemoryStorage())
        self._shared: MovingWindowRateLimiter | None = None
        self._redis: Any = None
        if redis_url:
            storage = RedisStorage(
                f"async+{redis_url}",
                implementation="redispy",
                key_prefix=_PREFIX,
                socket_timeout=_SECONDS,
                socket_connect_timeout=_SECONDS,
            )
            self._redis = cast("Any", storage.bridge).storage
            self._shared = MovingWindowRateLimiter(storage)

    @classmethod
    def of(cls, settings: Settings) -> Rates:
        """Return those that the settings ask for; nothing is connected to yet."""
        return cls(settings.redis_url)

    async def take(self, limit: Limit, *subject: str) -> int:
        """Count one more and return 0 or, when that would be too many, the seconds until there is room."""
        key = hashlib.sha256("\0".join(subject).encode("utf-8", "surrogatepass")).hexdigest()
        if self._shared is not None:
            try:
                return await _take(self._shared, limit, key)
            except Exception as error:  # noqa: BLE001 - a limiter that is away limits less, and lets nobody wait
                _log.warning("rates counted by this process alone", error=type(error).__name__)
        return await _take(self._own, limit, key)

    async def aclose(self) -> None:
        """Close connections."""
        if self._redis is not None:
            await self._redis.aclose()


async def _take(limiter: MovingWindowRateLimiter, limit: Limit, key: str) -> int:
    item = limit.item()
    if await limiter.hit(item, key):
        return 0
    window = await limiter.get_window_stats(item, key)
    return max(1, math.ceil(window.reset_time - time.time()))
