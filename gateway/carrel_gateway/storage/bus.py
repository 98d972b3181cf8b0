"""News between requests, tasks and gateways: at most once, in no guaranteed order, never the truth.

What was missed is in the database. A reader that is too slow, and every reader when Redis was away for more than a
moment, gets `BusOverflow` and reads there again; so nothing here is buffered without bound, and without Redis
everything is slower and nothing is wrong.

Whoever subscribes gets everything that is published from the moment on at which `subscribe` gives the iterator, and
may get something from just before.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Collection
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final, Literal, Protocol, TypeAlias, get_args

from carrel_gateway.storage.metrics import DELIVERED, HEALTHY, LOSSES, PUBLISHED

Source: TypeAlias = Literal["process", "redis"]
Reason: TypeAlias = Literal["slow_reader", "too_large", "unsent", "gap", "cut"]

MAX_MESSAGE_BYTES: Final = 256 * 1024
"""Larger news are not delivered: their readers are told that they have lost something."""
MAX_MESSAGES: Final = 1000
MAX_BYTES: Final = 4 * 1024 * 1024
"""Of one reader; more waiting than that means that it does not read."""
MAX_TAKEN: Final = 256
"""So that a reader of many lets others have their turn."""


_DELIVERED: Final = {source: DELIVERED.labels(source) for source in get_args(Source)}
"""Looking a label up costs more than delivering."""


class BusOverflow(Exception):
    """News were lost to this reader; it reads the log again and goes on with the same iterator."""


class Reader(Protocol):
    """What is published on a channel, piece by piece or as much as there is; each may raise `BusOverflow`."""

    def __aiter__(self) -> AsyncIterator[bytes]: ...

    async def __anext__(self) -> bytes: ...

    async def take(self) -> list[bytes]:
        """Wait until there is something, and return all that waits, up to `MAX_TAKEN` at once."""
        ...


class Bus(Protocol):
    """Publish and subscribe."""

    @property
    def healthy(self) -> bool:
        """Whether news get through now; when not, readers look into the database more often."""
        ...

    async def publish(self, channel: str, data: bytes) -> None:
        """Tell all readers of the channel; does not wait for anything, and fails silently when the bus is away."""
        ...

    def subscribe(self, channel: str) -> AbstractAsyncContextManager[Reader]:
        """Return an iterator of what is published on the channel; it may raise `BusOverflow` and goes on after it."""
        ...

    async def ping(self) -> None:
        """Raise `Unavailable` when the bus is away."""
        ...

    async def aclose(self) -> None:
        """Close connections."""
        ...


class Subscriber:
    """One reader's bounded queue."""

    def __init__(self) -> None:
        self._waiting: deque[bytes] = deque()
        self._bytes = 0
        self._lost = False
        self._news = asyncio.Event()

    def put(self, data: bytes) -> None:
        """Add news, or forget everything when there is no room."""
        if len(self._waiting) >= MAX_MESSAGES or self._bytes + len(data) > MAX_BYTES:
            LOSSES.labels("slow_reader").inc()
            self.lose()
            return
        self._waiting.append(data)
        self._bytes += len(data)
        self._news.set()

    def lose(self) -> None:
        """Say that news were lost."""
        self._waiting.clear()
        self._bytes = 0
        self._lost = True
        self._news.set()

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        await self._filled()
        data = self._waiting.popleft()
        self._bytes -= len(data)
        return data

    async def take(self) -> list[bytes]:
        """Wait until there is something, and return all that waits, up to `MAX_TAKEN` at once."""
        await self._filled()
        taken = [self._waiting.popleft() for _ in range(min(len(self._waiting), MAX_TAKEN))]
        self._bytes -= sum(map(len, taken))
        return taken

    async def _filled(self) -> None:
        while not self._waiting and not self._lost:
            self._news.clear()
            await self._news.wait()
        if self._lost:
            self._lost = False
            raise BusOverflow


class Readers:
    """The readers within this process, by channel."""

    def __init__(self) -> None:
        self._by_channel: dict[str, set[Subscriber]] = {}

    def add(self, channel: str) -> Subscriber:
        """Begin to read."""
        reader = Subscriber()
        self._by_channel.setdefault(channel, set()).add(reader)
        return reader

    def remove(self, channel: str, reader: Subscriber) -> None:
        """Stop reading."""
        readers = self._by_channel[channel]
        readers.discard(reader)
        if not readers:
            del self._by_channel[channel]

    def channels(self) -> list[str]:
        """Return the channels that somebody reads."""
        return list(self._by_channel)

    def has(self, channel: str) -> bool:
        """Return whether somebody reads the channel."""
        return channel in self._by_channel

    def deliver(self, channel: str, data: bytes, source: Source) -> None:
        """Give news to every reader of the channel."""
        readers = self._by_channel.get(channel)
        if readers is None:
            return
        if len(data) > MAX_MESSAGE_BYTES:
            self.lose(channel, "too_large")
            return
        for reader in readers:
            reader.put(data)
        _DELIVERED[source].inc(len(readers))

    def lose(self, channel: str, reason: Reason) -> None:
        """Tell the readers of the channel that news were lost."""
        self._lose(self._by_channel.get(channel, ()), reason)

    def lose_all(self, reason: Reason) -> None:
        """Tell every reader that news were lost."""
        for readers in self._by_channel.values():
            self._lose(readers, reason)

    def _lose(self, readers: Collection[Subscriber], reason: Reason) -> None:
        for reader in readers:
            reader.lose()
        LOSSES.labels(reason).inc(len(readers))


class InProcessBus:
    """The bus of the embedded product: one process."""

    healthy = True

    def __init__(self) -> None:
        self._readers = Readers()
        HEALTHY.set(1)

    async def publish(self, channel: str, data: bytes) -> None:
        """Tell all readers of the channel."""
        PUBLISHED.inc()
        self._readers.deliver(channel, data, "process")

    @asynccontextmanager
    async def subscribe(self, channel: str) -> AsyncGenerator[Reader]:
        """Return an iterator of what is published on the channel."""
        reader = self._readers.add(channel)
        try:
            yield reader
        finally:
            self._readers.remove(channel, reader)

    async def ping(self) -> None:
        """Do nothing: it is there."""

    async def aclose(self) -> None:
        """Do nothing: nothing is held."""
