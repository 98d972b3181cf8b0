"""The interrupt ladder: SIGINT, after 2 s SIGINT again, after 5 s SIGKILL. Each rung is counted and reported."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from itertools import pairwise
from typing import Final, Literal, TypeAlias

import structlog

from carrel_kernel.metrics import Metrics

Reason: TypeAlias = Literal["interrupted", "timeout"]
RUNGS: Final[tuple[tuple[float, signal.Signals], ...]] = (
    (0.0, signal.SIGINT),
    (2.0, signal.SIGINT),
    (5.0, signal.SIGKILL),
)
"""Seconds since the first rung, and what is sent."""

_log = structlog.get_logger(__name__)


class Ladder:
    """One climb; it ends with `stop` or with the kernel."""

    def __init__(self, send: Callable[[signal.Signals], None], reason: Reason, metrics: Metrics, kernel: str) -> None:
        self.reason: Reason = reason
        self.climbed: list[signal.Signals] = []
        self._send = send
        self._metrics = metrics
        self._kernel = kernel
        self._rung()
        self._task = asyncio.create_task(self._climb())

    def _rung(self) -> None:
        number = RUNGS[len(self.climbed)][1]
        self.climbed.append(number)
        self._metrics.signals.labels(number.name).inc()
        _log.info("kernel_signalled", kernel=self._kernel, signal=number.name, reason=self.reason)
        self._send(number)

    async def _climb(self) -> None:
        for (before, _), (after, _) in pairwise(RUNGS):
            await asyncio.sleep(after - before)
            self._rung()

    @property
    def killed(self) -> bool:
        """Whether the last rung was reached."""
        return signal.SIGKILL in self.climbed

    def stop(self) -> None:
        """Climb no further."""
        self._task.cancel()

    def __str__(self) -> str:
        return " → ".join(number.name for number in self.climbed)
