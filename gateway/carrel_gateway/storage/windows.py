"""Counters of a sliding window: whether one more call still fits, in this process or in Redis for all of them.

The count of the window before fades while the present one fills. What is counted, and how much is allowed, is others'
business.
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final, Protocol

MAX_KEYS: Final = 50_000
"""Of this process; the one that was used least recently is forgotten. Each takes about 300 bytes."""


class Windows(Protocol):
    """Counts calls by key."""

    async def hit(self, key: str, *, limit: int, seconds: int, cost: int = 1) -> float:
        """Count a call when it fits.

        Parameters
        ----------
        limit
            Calls, by their cost, within a window.
        seconds
            Length of the window.

        Returns
        -------
        float
            0 when it fits, else the seconds after which it would.
        """
        ...

    async def aclose(self) -> None:
        """Close connections."""
        ...


def wait_of(
    limit: int, seconds: int, cost: int, *, before: int, before_left: float, now: int, now_left: float
) -> float:
    """Return the seconds until a call fits.

    Parameters
    ----------
    before, now
        Counts of the window before, and of the present one.
    before_left
        Seconds until the window before counts nothing any more.
    now_left
        Seconds until the present one begins to fade.
    """
    room = limit - cost
    if now <= room:  # the window before must fade
        fits_at = (room - now + 1) * seconds / before if before else seconds
        return max(before_left - fits_at, 0.0)
    return now_left + max(seconds - (room + 1) * seconds / now, 0.0)


class MemoryWindows:
    """Of this process, bounded. The library's own looks through all of its keys at every call."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic, size: int = MAX_KEYS) -> None:
        self._clock = clock
        self._size = size
        self._counts: OrderedDict[tuple[str, int], tuple[float, int, int]] = OrderedDict()
        """Beginning of the present window, its count, and that of the one before."""

    def __len__(self) -> int:
        return len(self._counts)

    async def hit(self, key: str, *, limit: int, seconds: int, cost: int = 1) -> float:
        """Count a call when it fits; return 0, or the seconds after which it would."""
        at = self._clock()
        began, now, before = self._counts.pop((key, seconds), (at, 0, 0))
        passed = int((at - began) // seconds)
        if passed:
            began, now, before = (began + seconds, 0, now) if passed == 1 else (at, 0, 0)
        left = began + seconds - at
        fits = math.floor(before * left / seconds) + now + cost <= limit
        self._counts[key, seconds] = (began, now + cost if fits else now, before)
        if len(self._counts) > self._size:
            self._counts.popitem(last=False)
        if fits:
            return 0.0
        waits = wait_of(limit, seconds, cost, before=before, before_left=left, now=now, now_left=left)
        return max(waits, 0.001)

    async def aclose(self) -> None:
        """Do nothing: nothing is held."""
