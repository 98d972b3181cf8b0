"""What was worked out before and may be forgotten at any time: never the truth, and nothing waits for it.

In this process for one gateway, bounded; in Redis for several (`redis_cache`). A key names its tenant where the value
is a tenant's. Who needs a thing to be there keeps it in the database.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final, Protocol
from uuid import UUID

from carrel_gateway.storage.metrics import CACHE

MAX_ENTRIES: Final = 10_000
MAX_BYTES: Final = 64 * 1024 * 1024
"""Of this process; what was used least recently goes first."""
MAX_VALUE_BYTES: Final = 1024 * 1024
"""A larger value is not kept: it would push out a thousand others."""


def notebook_key(tenant_id: UUID, session_id: UUID) -> str:
    """Return the key of a session's notebook, for who writes it and for who deletes the session."""
    return f"notebook:{tenant_id}:{session_id}"


class CacheBackend(Protocol):
    """Keeps values for a while."""

    async def get(self, key: str) -> bytes | None:
        """Return the value; none when it is not there, or the cache is away."""
        ...

    async def set(self, key: str, value: bytes, ttl: float | None = None) -> None:
        """Keep a value for so many seconds, or as long as the settings say; does nothing when the cache is away."""
        ...

    async def delete(self, key: str) -> None:
        """Forget the value, if it is there."""
        ...

    async def exists(self, key: str) -> bool:
        """Return whether there is a value; false when the cache is away."""
        ...

    async def aclose(self) -> None:
        """Close connections."""
        ...


class MemoryCache:
    """The cache of one process."""

    def __init__(
        self,
        *,
        ttl_seconds: float,
        clock: Callable[[], float] = time.monotonic,
        max_entries: int = MAX_ENTRIES,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        self._ttl_seconds = ttl_seconds
        self._clock = clock
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._entries: OrderedDict[str, tuple[bytes, float]] = OrderedDict()
        """Value, and when it is over."""
        self._bytes = 0

    async def get(self, key: str) -> bytes | None:
        """Return the value, which is then the one that was used last."""
        found = self._live(key)
        CACHE.labels("miss" if found is None else "hit").inc()
        if found is not None:
            self._entries.move_to_end(key)
        return found

    async def set(self, key: str, value: bytes, ttl: float | None = None) -> None:
        """Keep a value, and forget others when there are too many."""
        self._forget(key)
        seconds = self._ttl_seconds if ttl is None else ttl
        if seconds <= 0 or len(value) > MAX_VALUE_BYTES:
            return
        self._entries[key] = (value, self._clock() + seconds)
        self._bytes += len(key) + len(value)
        while len(self._entries) > self._max_entries or self._bytes > self._max_bytes:
            self._forget(next(iter(self._entries)))

    async def delete(self, key: str) -> None:
        """Forget the value, if it is there."""
        self._forget(key)

    async def exists(self, key: str) -> bool:
        """Return whether there is a value; it is not used by that."""
        return self._live(key) is not None

    async def aclose(self) -> None:
        """Do nothing: nothing is held."""

    def _live(self, key: str) -> bytes | None:
        value, over_at = self._entries.get(key, (None, 0.0))
        if value is not None and self._clock() >= over_at:
            self._forget(key)
            return None
        return value

    def _forget(self, key: str) -> None:
        value, _ = self._entries.pop(key, (None, 0.0))
        if value is not None:
            self._bytes -= len(key) + len(value)
