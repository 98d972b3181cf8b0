"""A work queue of keys. It knows nothing of what the keys stand for.

Guarantees, each with a test:

1. A key is handled by one worker at a time.
2. A key that is added while it waits is handled once; added while it is handled, once more afterwards.
3. A failed key comes back with growing delays, and a success forgets the failures.
4. A delayed key comes at its time; of several times the earliest counts.
5. Groups take turns, and none has more than three quarters of the workers: a thousand keys of one group, however slow,
   do not hold up the one key of another.
6. A fault in handling one key ends neither the worker nor the queue.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import random
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

import structlog

from carrel_operator.errors import OperatorError

logger = structlog.get_logger(__name__)

K = TypeVar("K", bound=Hashable)

FIRST_DELAY: Final = 0.2
LONGEST_DELAY: Final = 60.0
"""Seconds between tries of a key that keeps failing."""


@dataclass(frozen=True)
class Again:
    """What the handler of a key wants next."""

    after: float | None = None
    """Seconds; none: only when the key is added again."""
    retry: bool = False
    """With growing delays."""


class WorkQueue(Generic[K]):
    """Keys that wait, are handled, or are due later."""

    def __init__(
        self,
        group_of: Callable[[K], Hashable],
        *,
        workers: int,
        first_delay: float = FIRST_DELAY,
        longest_delay: float = LONGEST_DELAY,
    ) -> None:
        self._group_of = group_of
        self._workers = workers
        self._most = max(1, workers * 3 // 4)
        """Keys of one group that are handled at the same time."""
        self._busy: Counter[Hashable] = Counter()
        self._group: dict[K, Hashable] = {}
        """Group of each key that waits or is handled; what it is made from may change meanwhile."""
        self._first_delay, self._longest_delay = first_delay, longest_delay
        self._ready: dict[Hashable, deque[K]] = {}
        """Groups in the order of their turns."""
        self._since: dict[K, float] = {}
        """Waiting keys, and since when."""
        self._handled: dict[K, float] = {}
        self._dirty: set[K] = set()
        self._later: list[tuple[float, int, K]] = []
        self._due: dict[K, float] = {}
        """The entry of `_later` that counts for the key."""
        self._failures: dict[K, int] = {}
        self._numbers = itertools.count()
        self._changed = asyncio.Condition()
        self._wakeup = asyncio.Event()

    def __len__(self) -> int:
        """Return how many keys wait for a worker."""
        return len(self._since)

    @property
    def delayed(self) -> int:
        """How many keys are due later."""
        return len(self._due)

    def oldest_wait(self) -> float:
        """Return how many seconds the first of the waiting keys has waited."""
        return time.monotonic() - min(self._since.values(), default=time.monotonic())

    def longest_handling(self) -> float:
        """Return how many seconds the key longest in handling has taken up to now."""
        return time.monotonic() - min(self._handled.values(), default=time.monotonic())

    def add(self, key: K) -> None:
        """Have the key handled as soon as a worker is free."""
        if key in self._handled:
            self._dirty.add(key)
        elif key not in self._since:
            self._since[key] = time.monotonic()
            group = self._group[key] = self._group_of(key)
            self._ready.setdefault(group, deque()).append(key)
            self._wakeup.set()

    def add_after(self, key: K, seconds: float) -> None:
        """Have the key handled after so many seconds, unless an earlier time is set already."""
        at = time.monotonic() + seconds
        if at < self._due.get(key, float("inf")):
            self._due[key] = at
            heapq.heappush(self._later, (at, next(self._numbers), key))
            self._wakeup.set()

    def retry(self, key: K) -> None:
        """Have the key handled again after a delay that grows with each call, up to `forget`."""
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        delay = min(self._first_delay * 2 ** min(failures, 30), self._longest_delay)
        self.add_after(key, delay * random.uniform(0.8, 1.0))  # noqa: S311 (spreads load, is no secret)

    def forget(self, key: K) -> None:
        """Begin the delays of the key anew."""
        self._failures.pop(key, None)

    async def run(self, handle: Callable[[K], Awaitable[Again]]) -> None:
        """Handle keys until cancelled, several at a time; keys that were added before begin to wait now."""
        self._since = dict.fromkeys(self._since, time.monotonic())
        async with asyncio.TaskGroup() as group:
            for _ in range(self._workers):
                group.create_task(self._work(handle))
            group.create_task(self._move())

    async def _move(self) -> None:
        """Move keys that are due to those that wait, and wake workers."""
        while True:
            self._wakeup.clear()
            now = time.monotonic()
            while self._later and self._later[0][0] <= now:
                at, _, key = heapq.heappop(self._later)
                if self._due.get(key) == at:
                    del self._due[key]
                    self.add(key)
            if self._since:
                async with self._changed:
                    self._changed.notify(len(self._since))
            wait = self._later[0][0] - time.monotonic() if self._later else None
            try:  # not `wait_for`, which up to Python 3.11 forgets to be cancelled by what comes just then
                async with asyncio.timeout(wait):
                    await self._wakeup.wait()
            except TimeoutError:
                continue

    async def _work(self, handle: Callable[[K], Awaitable[Again]]) -> None:
        while True:
            async with self._changed:
                await self._changed.wait_for(lambda: self._next_group() is not None)
                key = self._take()
            again = await self._handle(key, handle)
            self._done(key)
            if again.retry:
                self.retry(key)
            else:
                self.forget(key)
            if again.after is not None:
                self.add_after(key, again.after)
            if key in self._dirty:
                self._dirty.discard(key)
                self.add(key)

    async def _handle(self, key: K, handle: Callable[[K], Awaitable[Again]]) -> Again:
        try:
            return await handle(key)
        except OperatorError as error:
            logger.warning("will try again", key=str(key), error=str(error))
        except Exception:  # one key's fault must not end the work on all others
            logger.exception("fault in handling a key", key=str(key))
        return Again(retry=True)

    def _next_group(self) -> Hashable | None:
        return next((group for group in self._ready if self._busy[group] < self._most), None)

    def _done(self, key: K) -> None:
        del self._handled[key]
        group = self._group.pop(key)
        if self._busy[group] == self._most:
            self._wakeup.set()  # its other keys may go on
        self._busy[group] -= 1
        if not self._busy[group]:
            del self._busy[group]

    def _take(self) -> K:
        group = self._next_group()
        keys = self._ready[group]
        key = keys.popleft()
        del self._ready[group]
        if keys:
            self._ready[group] = keys  # at the end: the next turn is another group's
        del self._since[key]
        self._handled[key] = time.monotonic()
        self._busy[group] += 1
        return key
