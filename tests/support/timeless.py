"""Time that passes only when nothing else is to be done: hours of waiting are over at once, and every run is the same.

`Timeless` is an event loop, together with the clocks that the operator reads: while it runs, `time.monotonic` of the
operator's modules and `datetime.now` everywhere say what the loop says. A loop that waits for nothing at all is a
fault. Threads are not waited for: what the operator gives to one is done in its place.
"""

from __future__ import annotations

import asyncio
import selectors
import sys
import time
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from types import ModuleType, SimpleNamespace, TracebackType
from typing import Any, Self, TypeVar
from unittest import mock

import time_machine

T = TypeVar("T")
BEGIN = datetime(2026, 11, 29, 12, 0, 0, tzinfo=UTC)
LONG_UP = 100_000.0
"""Seconds for which the machine has been up: a moment that was never is long ago."""


class Timeless(asyncio.SelectorEventLoop):
    """An event loop whose time jumps to the next thing that is due."""

    def __init__(self) -> None:
        self._seconds = LONG_UP
        super().__init__(_Jump(self._pass))
        self._wall = time_machine.travel(BEGIN, tick=False)
        self._patches = [
            mock.patch.object(module, "time", SimpleNamespace(monotonic=self.time)) for module in _modules_with_time()
        ]
        self._patches.append(mock.patch.object(asyncio, "to_thread", _at_once))

    def time(self) -> float:
        """Return the seconds of this loop."""
        return self._seconds

    def __enter__(self) -> Self:
        """Make its time everybody's."""
        self._traveller = self._wall.start()
        for patch in self._patches:
            patch.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End what still runs, and give time back."""
        self.run(end_others())
        for patch in self._patches:
            patch.stop()
        self._wall.stop()
        self.close()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run to the end of the coroutine."""
        return self.run_until_complete(coroutine)

    def _pass(self, seconds: float) -> None:
        self._seconds += seconds
        self._traveller.move_to(BEGIN + timedelta(seconds=self._seconds - LONG_UP))


async def end_others() -> None:
    """Cancel all tasks but the one that asks."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


class _Jump(selectors.DefaultSelector):
    def __init__(self, jump: Callable[[float], None]) -> None:
        super().__init__()
        self._jump = jump

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise AssertionError("everything waits, and nothing is due")
        if timeout > 0:
            self._jump(timeout)
        return super().select(0)


def _modules_with_time() -> list[ModuleType]:
    return [
        module
        for name, module in sorted(sys.modules.items())
        if name.startswith("carrel_operator") and getattr(module, "time", None) is time
    ]


async def _at_once(act: Callable[..., T], *arguments: Any) -> T:
    return act(*arguments)
