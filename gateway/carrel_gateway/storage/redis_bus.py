"""The bus over Redis publish/subscribe: one connection for all readers of the process, and one to publish on.

When Redis goes away, or falls silent on a connection that still stands, publishing fails silently and readers are told
that they have lost something; a task connects again and subscribes to everything anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, Final, cast

import structlog
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.client import PubSub
from redis.exceptions import RedisError

from carrel_gateway.errors import CarrelError, Unavailable
from carrel_gateway.storage.bus import Readers

TIMEOUT_SECONDS: Final = 1.0
"""Publishing stands in the way of requests; Redis on the same network answers in a thousandth of that."""
CONNECTIONS: Final = 8
_FIRST_PAUSE_SECONDS: Final = 0.05
_LONGEST_PAUSE_SECONDS: Final = 2.0
_SILENCE_SECONDS: Final = 1.0
"""After a failure nothing is published for so long, so that requests do not wait again and again."""
_QUIET_SECONDS: Final = 5.0
"""When nothing came for so long, the listening connection asks for a sign of life."""
_QUIET_TURNS: Final = 3
"""So many times in a row without anything, not even that sign, and the connection is given up."""
_OWN: Final = "carrel"
"""A channel that nobody publishes on: a connection listens to at least one."""

_log = structlog.get_logger(__name__)


class InvalidRedisUrl(CarrelError):
    """CARREL_REDIS_URL cannot be used."""

    code = "invalid_redis_url"


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
            It is none; the message does not repeat it, for it may hold a password.
        """
        try:
            pool = BlockingConnectionPool.from_url(
                url,
                max_connections=CONNECTIONS,
                timeout=TIMEOUT_SECONDS,
                socket_timeout=TIMEOUT_SECONDS,
                socket_connect_timeout=TIMEOUT_SECONDS,
            )
            # The timeouts hold for connecting and writing; each read of the listener names its own.
            listening: Redis = Redis.from_url(
                url, socket_timeout=TIMEOUT_SECONDS, socket_connect_timeout=TIMEOUT_SECONDS
            )
        except ValueError as error:
            raise InvalidRedisUrl("CARREL_REDIS_URL must begin with redis:// or rediss://") from error
        self._client: Redis = Redis(connection_pool=pool)
        self._listening = listening
        self._readers = Readers()
        self._confirmed: dict[str, asyncio.Event] = {}
        self._pubsub: PubSub | None = None
        self._telling = asyncio.Lock()
        self._quiet_until = 0.0
        self._listener = asyncio.create_task(self._listen_for_ever(), name="redis-bus")

    @property
    def healthy(self) -> bool:
        """Whether this process hears what others publish."""
        return self._pubsub is not None

    async def publish(self, channel: str, data: bytes) -> None:
        """Tell all readers of the channel, here and elsewhere; when Redis is away, those here."""
        loop = asyncio.get_running_loop()
        if loop.time() >= self._quiet_until:
            try:
                await self._client.publish(channel, data)
            except (RedisError, OSError, TimeoutError) as error:
                self._quiet_until = loop.time() + _SILENCE_SECONDS
                _log.warning("bus_publish_failed", error=type(error).__name__)
            else:
                return
        self._readers.deliver(channel, data)

    @asynccontextmanager
    async def subscribe(self, channel: str) -> AsyncGenerator[AsyncIterator[bytes]]:
        """Return an iterator of what is published on the channel."""
        first = not self._readers.has(channel)
        reader = self._readers.add(channel)
        try:
            confirmed = self._confirmed.setdefault(channel, asyncio.Event())
            if first:
                await self._tell(channel)
            with suppress(TimeoutError):  # without Redis the reader looks into the database
                await asyncio.wait_for(confirmed.wait(), TIMEOUT_SECONDS if self.healthy else 0)
            yield reader
        finally:
            self._readers.remove(channel, reader)
            if not self._readers.has(channel):
                self._confirmed.pop(channel, None)
                await self._tell(channel)

    async def ping(self) -> None:
        """Ask Redis for an answer.

        Raises
        ------
        BusAway
            None came, or this process does not hear what others publish.
        """
        if not self.healthy:
            raise BusAway("the connection to Redis is being made; live output is delayed until it stands")
        try:
            await self._client.execute_command("PING")
        except (RedisError, OSError, TimeoutError) as error:
            raise BusAway("Redis does not answer; live output is delayed until it does") from error

    async def aclose(self) -> None:
        """Close all connections."""
        self._listener.cancel()
        with suppress(asyncio.CancelledError):
            await self._listener
        await self._listening.aclose()
        await self._client.aclose()
        await self._client.connection_pool.disconnect()

    async def _tell(self, channel: str) -> None:
        """Subscribe or unsubscribe, as it is wanted by now; when that fails, the listener begins anew."""
        async with self._telling:
            if self._pubsub is None:
                return
            try:
                if self._readers.has(channel):
                    await self._pubsub.subscribe(channel)
                else:
                    await self._pubsub.unsubscribe(channel)
            except (RedisError, OSError, TimeoutError) as error:
                _log.warning("bus_subscribe_failed", error=type(error).__name__)

    async def _listen_for_ever(self) -> None:
        pause = _FIRST_PAUSE_SECONDS
        while True:
            try:
                async with self._listening.pubsub() as pubsub:
                    await pubsub.subscribe(_OWN, *self._readers.channels())
                    while True:
                        message = await _next_message(pubsub)
                        if self._pubsub is None:
                            self._pubsub = pubsub
                            pause = _FIRST_PAUSE_SECONDS
                            await self._catch_up(pubsub)
                        self._take(message)
            except (RedisError, OSError, TimeoutError) as error:
                _log.warning("bus_lost", error=type(error).__name__)
            finally:
                self._forget()
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)

    async def _catch_up(self, pubsub: PubSub) -> None:
        """Subscribe to what was asked for while the connection was being made, and have all readers look again."""
        channels = self._readers.channels()
        if channels:
            await pubsub.subscribe(*channels)
        self._readers.lose_all()

    def _take(self, message: dict[str, Any]) -> None:
        if message["type"] == "pong":
            return
        channel = message["channel"].decode()
        if message["type"] == "message":
            self._readers.deliver(channel, message["data"])
        elif message["type"] == "subscribe" and channel in self._confirmed:
            self._confirmed[channel].set()

    def _forget(self) -> None:
        self._pubsub = None
        for event in self._confirmed.values():
            event.clear()
        self._readers.lose_all()


async def _next_message(pubsub: PubSub) -> dict[str, Any]:
    """Return what comes next, asking for a sign of life in between.

    A server that lost its power, or a network that drops everything, closes no connection: reading alone would wait
    for ever.

    Raises
    ------
    TimeoutError
        Nothing came, asked for or not.
    """
    for _ in range(_QUIET_TURNS):
        message = cast("dict[str, Any] | None", await pubsub.get_message(timeout=_QUIET_SECONDS))
        if message is not None:
            return message
        await pubsub.ping()
    raise TimeoutError("Redis is silent")
