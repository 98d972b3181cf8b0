"""Calls that are counted ahead, so that who calls often is not looked up for every call.

A lease is a few calls of one budget, which weigh one each, taken from a shared counter at once. It is as large as what
is used up soon: it grows while it is used up in half of its life, and begins anew with one call when some of it was
left over. So next to nothing of a budget is lost, however many processes share it.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

MAX_LEASES: Final = 10_000
LIFE: Final = 0.1
"""Of a window: so much later than it was counted a call may be made."""
_SHARE: Final = 50
"""A lease is at most this part of a limit, so that small limits are counted call by call."""
_MOST: Final = 32
"""With it the counter is asked for one call in thirty."""


@dataclass(slots=True)
class _Lease:
    size: int
    left: int
    taken_at: float
    until: float
    renewal: asyncio.Future[None] | None = None

    def take(self, now: float) -> bool:
        """Return whether one of it was left."""
        if not self.left or now >= self.until:
            return False
        self.left -= 1
        return True

    def next_size(self, now: float, most: int) -> int:
        """Return how many calls to take next."""
        if self.left:  # its life was over before it was used up
            return 1
        fast = now - self.taken_at <= (self.until - self.taken_at) / 2
        return min(self.size * 2 if fast else self.size, most)


class Leases:
    """The leases of one process, by budget."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic, size: int = MAX_LEASES) -> None:
        self._clock = clock
        self._size = size
        self._held: OrderedDict[tuple[str, int], _Lease] = OrderedDict()

    def __len__(self) -> int:
        return len(self._held)

    async def hit(
        self, key: str, *, limit: int, seconds: int, cost: int, acquire: Callable[[int], Awaitable[bool]]
    ) -> bool:
        """Count a call when it fits.

        Parameters
        ----------
        acquire
            Counts so many calls in the shared counter, all or none, and returns whether they fitted.
        """
        most = min(limit // _SHARE, _MOST)
        if cost > 1 or most < 2:
            return await acquire(cost)
        lease = self._of(key, seconds)
        now = self._clock()
        if lease.take(now):
            return True
        if lease.renewal:  # by somebody else, just now: it may be enough for all who came meanwhile
            await asyncio.wait([lease.renewal])
            return lease.take(self._clock()) or await acquire(1)
        lease.renewal = asyncio.get_running_loop().create_future()
        try:
            size, lease.left = lease.next_size(now, most), 0
            fits = await acquire(size)
            if not fits and size > 1:
                size = 1
                fits = await acquire(1)
            if fits:
                lease.size, lease.left = size, size - 1
                lease.taken_at = self._clock()
                lease.until = lease.taken_at + seconds * LIFE
            return fits
        finally:
            lease.renewal.set_result(None)
            lease.renewal = None

    def _of(self, key: str, seconds: int) -> _Lease:
        lease = self._held.get((key, seconds))
        if lease is None:
            lease = self._held[key, seconds] = _Lease(1, 0, -seconds, 0)
            if len(self._held) > self._size:
                self._held.popitem(last=False)
        else:
            self._held.move_to_end((key, seconds))
        return lease
