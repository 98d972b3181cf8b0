"""The bus of several gateways, over Redis streams: an outbox, an inbox, and the readers of this process.

Readers of the same process get news at once, without Redis; others over their inboxes. Publishing never waits for
Redis. `docs/reference/bus.md` says what happens when Redis is away or slow.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from typing import Final

from carrel_gateway.errors import Unavailable
from carrel_gateway.storage.bus import MAX_MESSAGE_BYTES, Reader, Readers
from carrel_gateway.storage.metrics import PUBLISHED
from carrel_gateway.storage.redis_clients import FAILURES, close_client, open_client
from carrel_gateway.storage.redis_inbox import SILENCE_SECONDS, Inbox
from carrel_gateway.storage.redis_outbox import Outbox

SEND_SECONDS: Final = 5.0
"""Nobody waits for it: a slow Redis gets its time."""
ANSWER_SECONDS: Final = 1.0
"""A request or a stream begins after this time at the latest; until Redis knows of it, it looks into the log."""
_FLUSH_SECONDS: Final = 0.5
_CANCEL_SECONDS: Final = 0.1


class BusAway(Unavailable):
    """Redis does not answer."""

    code = "bus_away"


class RedisBus:
    """The bus of several gateways."""

    def __init__(self, url: str) -> None:
        """Begin to connect.

        Raises
        ------
        InvalidRedisUrl
            It is none.
        """
        self._readers = Readers()
        self._asking = open_client(url, connections=2, timeout_seconds=ANSWER_SECONDS)
        self._sending = open_client(url, connections=1, timeout_seconds=SEND_SECONDS)
        self._hearing = open_client(url, connections=1, timeout_seconds=SILENCE_SECONDS)
        self._outbox = Outbox(self._sending, self._readers)
        self._inbox = Inbox(self._hearing, self._readers, self._outbox)
        self._tasks = [
            asyncio.create_task(self._outbox.run(), name="bus-outbox"),
            asyncio.create_task(self._inbox.run(), name="bus-inbox"),
        ]

    @property
    def healthy(self) -> bool:
        """Whether this process hears what others publish, and others what it publishes."""
        return self._inbox.hears and self._outbox.timely and not any(task.done() for task in self._tasks)

    async def publish(self, channel: str, data: bytes) -> None:
        """Tell the readers of the channel here, now, and those elsewhere as soon as Redis takes it."""
        PUBLISHED.inc()
        self._readers.deliver(channel, data, "process")
        if len(data) > MAX_MESSAGE_BYTES:
            self._outbox.put_loss(channel)
        else:
            self._outbox.put(channel, data)

    @asynccontextmanager
    async def subscribe(self, channel: str) -> AsyncGenerator[Reader]:
        """Return an iterator of what is published on the channel."""
        reader = self._readers.add(channel)
        try:
            if channel not in self._outbox.registered:
                known = self._outbox.change(channel)
                await asyncio.wait({known}, timeout=ANSWER_SECONDS if self.healthy else 0)
            yield reader
        finally:
            self._readers.remove(channel, reader)
            if not self._readers.has(channel):
                self._outbox.change(channel)

    async def ping(self) -> None:
        """Ask Redis for an answer.

        Raises
        ------
        BusAway
            None came, or this process does not hear what others publish.
        """
        if not self.healthy:
            raise BusAway("the connection to Redis is being made, or is slow; live output is delayed until it stands")
        try:
            await self._asking.execute_command("PING")
        except FAILURES as error:
            raise BusAway("Redis does not answer; live output is delayed until it does") from error

    async def aclose(self) -> None:
        """Send what is waiting, for a moment, and close all connections."""
        if self.healthy:
            await self._outbox.flush(_FLUSH_SECONDS)
        for task in self._tasks:
            while not task.done():  # the client takes some cancellations for a timeout of its own, and goes on
                task.cancel()
                await asyncio.wait({task}, timeout=_CANCEL_SECONDS)
        if self._inbox.hears:
            with suppress(*FAILURES):
                async with asyncio.timeout(_FLUSH_SECONDS):
                    await self._inbox.remove()
        self._inbox.stop()
        for client in (self._hearing, self._sending, self._asking):
            await close_client(client)
