"""How late the event loop comes back from a short sleep: work that does not give way stops every tenant's requests.

It is measured all the time and by the process itself, also where nobody asks anything. What blocked is not found here.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from carrel_gateway import metrics

INTERVAL_SECONDS: Final = 0.05
WINDOW_SECONDS: Final = 30.0
"""Metrics are scraped about as often: what was longest must be seen by one scrape at least."""


class Lag:
    """The longest lag of the last while."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._falling: deque[tuple[float, float]] = deque()  # times and lags, each lag below the one before

    def note(self, seconds: float) -> float:
        """Take in one lag, and return the longest of the window."""
        now = self._clock()
        while self._falling and self._falling[-1][1] <= seconds:
            self._falling.pop()
        self._falling.append((now, seconds))
        while self._falling[0][0] < now - WINDOW_SECONDS:
            self._falling.popleft()
        return self._falling[0][1]


async def watch_lag() -> None:
    """Measure for ever."""
    longest = Lag()
    while True:
        due = time.monotonic() + INTERVAL_SECONDS
        await asyncio.sleep(INTERVAL_SECONDS)
        seconds = max(0.0, time.monotonic() - due)
        metrics.loop_late_seconds.observe(seconds)
        metrics.loop_lag_seconds.set(longest.note(seconds))
