"""Connections to Redis, with timeouts, and what can go wrong with them. What is said over them is others' business."""

from __future__ import annotations

from typing import Final

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from carrel_gateway.errors import CarrelError

FAILURES: Final = (RedisError, OSError, TimeoutError)
"""What a call may raise when Redis is away, silent, or unwilling."""
CONNECT_SECONDS: Final = 1.0
"""Redis on the same network answers in a thousandth of that."""


class InvalidRedisUrl(CarrelError):
    """CARREL_REDIS_URL cannot be used."""

    code = "invalid_redis_url"


def open_client(url: str, *, connections: int, timeout_seconds: float) -> Redis:
    """Return a client that has not connected yet, asks for everything once, and waits only so long.

    Parameters
    ----------
    connections
        At most so many at once; whoever wants another one waits for at most the timeout.
    timeout_seconds
        Longest silence of the server while an answer is awaited.

    Raises
    ------
    InvalidRedisUrl
        It is none; the message does not repeat it, for it may hold a password.
    """
    try:
        pool = BlockingConnectionPool.from_url(
            url,
            max_connections=connections,
            timeout=timeout_seconds,
            socket_timeout=timeout_seconds,
            socket_connect_timeout=CONNECT_SECONDS,
            retry=Retry(NoBackoff(), 0),  # whoever asks knows better whether, and when, to ask again
        )
    except ValueError as error:
        raise InvalidRedisUrl("CARREL_REDIS_URL must begin with redis:// or rediss://") from error
    return Redis(connection_pool=pool)


async def close_client(client: Redis) -> None:
    """Close the client and all its connections."""
    await client.aclose()
    await client.connection_pool.disconnect()
