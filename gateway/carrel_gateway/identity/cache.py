"""Principals that were verified a moment ago, so that a request need not ask the database who calls.

Bounded in number and in time. A tenant's entries are kept only while this process hears the tenant's news (see
`revocations`); without a bus that is known to work they are believed for a few seconds only. Whoever is looked up while
news come in is not kept.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final
from uuid import UUID

import structlog

from carrel_gateway.context import Principal
from carrel_gateway.identity import metrics, revocations
from carrel_gateway.storage.bus import Bus, BusOverflow

SECONDS: Final = 30.0
SECONDS_WITHOUT_BUS: Final = 5.0
SIZE: Final = 10_000
_IDLE_SECONDS: Final = 120.0
"""A tenant whose callers are all forgotten is not listened to any longer."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Entry:
    principal: Principal
    kept_at: float
    ends_at: float
    maker_id: UUID | None


class _Hearing:
    """Whether, and by which task, this process hears the news of one tenant."""

    def __init__(self) -> None:
        self.ready = False
        self.heard = 0
        """How often something was heard or may have been missed."""
        self.task: asyncio.Task[None] | None = None


@dataclass(frozen=True, slots=True)
class Mark:
    """The moment before a look-up."""

    hearing: _Hearing
    heard: int


class PrincipalCache:
    """Principals by the digest of what was presented."""

    def __init__(self, bus: Bus, *, clock: Callable[[], float] = time.monotonic, size: int = SIZE) -> None:
        self._bus = bus
        self._clock = clock
        self._size = size
        self._entries: OrderedDict[bytes, _Entry] = OrderedDict()
        self._hearings: dict[UUID, _Hearing] = {}

    def get(self, digest: bytes) -> Principal | None:
        """Return the principal when it is known, and young enough to be believed."""
        entry = self._entries.get(digest)
        if entry is None:
            return None
        now = self._clock()
        longest = SECONDS if self._bus.healthy else SECONDS_WITHOUT_BUS
        if now >= entry.ends_at or now >= entry.kept_at + longest:
            self._remove(digest)
            return None
        self._entries.move_to_end(digest)
        return entry.principal

    def mark(self, tenant_id: UUID) -> Mark | None:
        """Return the moment before a look-up; none while this process does not hear the tenant's news."""
        hearing = self._hearings.get(tenant_id)
        return Mark(hearing, hearing.heard) if hearing and hearing.ready else None

    def keep(
        self,
        digest: bytes,
        principal: Principal,
        mark: Mark | None,
        *,
        seconds: float = SECONDS,
        maker_id: UUID | None = None,
    ) -> None:
        """Keep a principal that was looked up after the mark, for at most so many seconds.

        It is forgotten with news of its credential, its user, and whoever made the key. Without a mark it begins to
        hear the tenant's news, so that the next one can be kept.
        """
        hearing = self._hearings.get(principal.tenant_id)
        if hearing is None:
            self._listen(principal.tenant_id)
            return
        if mark is None or mark.hearing is not hearing or mark.heard != hearing.heard:
            return
        now = self._clock()
        self._entries[digest] = _Entry(principal, now, now + min(seconds, SECONDS), maker_id)
        self._entries.move_to_end(digest)
        while len(self._entries) > self._size:
            self._entries.popitem(last=False)
        metrics.CACHED.set(len(self._entries))

    async def aclose(self) -> None:
        """Forget everything, and hear nothing more."""
        tasks = [hearing.task for hearing in self._hearings.values() if hearing.task]
        self._hearings.clear()
        self._entries.clear()
        for task in tasks:
            task.cancel()
        for task in tasks:
            with suppress(asyncio.CancelledError):
                await task

    def _listen(self, tenant_id: UUID) -> None:
        hearing = self._hearings[tenant_id] = _Hearing()
        hearing.task = asyncio.create_task(self._hear(tenant_id, hearing), name=f"identity-{tenant_id}")

    async def _hear(self, tenant_id: UUID, hearing: _Hearing) -> None:
        try:
            async with self._bus.subscribe(revocations.channel_of(tenant_id)) as news:
                hearing.ready = True
                while True:
                    try:
                        async with asyncio.timeout(_IDLE_SECONDS):
                            data = await anext(news)
                    except TimeoutError:
                        if not self._has(tenant_id):
                            return
                    except BusOverflow:
                        self._forget(tenant_id, hearing, None)
                    else:
                        self._forget(tenant_id, hearing, revocations.read(data))
        except Exception:  # noqa: BLE001 - without news nobody may be believed for long; the next look-up listens anew
            _log.exception("identity news not heard")
        finally:
            if self._hearings.get(tenant_id) is hearing:
                del self._hearings[tenant_id]
            self._forget(tenant_id, hearing, None)

    def _has(self, tenant_id: UUID) -> bool:
        return any(entry.principal.tenant_id == tenant_id for entry in self._entries.values())

    def _forget(self, tenant_id: UUID, hearing: _Hearing, changed: UUID | None) -> None:
        """Forget the tenant's entries of a credential or user; all of them when it is not known whose."""
        hearing.heard += 1
        gone = [
            digest
            for digest, entry in self._entries.items()
            if entry.principal.tenant_id == tenant_id
            and (changed is None or changed in (entry.principal.credential_id, entry.principal.user_id, entry.maker_id))
        ]
        for digest in gone:
            self._remove(digest)

    def _remove(self, digest: bytes) -> None:
        self._entries.pop(digest, None)
        metrics.CACHED.set(len(self._entries))
