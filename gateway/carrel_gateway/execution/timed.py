"""Reads a stream with a time limit per item that does not disturb the stream: the item comes later, nothing is lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress
from typing import Generic, TypeVar

T = TypeVar("T")


class TimedReader(Generic[T]):
    """An async generator whose next item can be waited for in turns."""

    def __init__(self, stream: AsyncGenerator[T, None]) -> None:
        self._stream = stream
        self._upcoming: asyncio.Task[T] | None = None

    async def next(self, seconds: float | None) -> T | None:
        """Return the next item, or none when it has not come in time.

        Raises
        ------
        StreamEnded
            The stream is over.
        """
        if self._upcoming is None:
            if seconds is None:
                return await self._anext()
            self._upcoming = asyncio.create_task(self._anext())
        done, _ = await asyncio.wait({self._upcoming}, timeout=seconds)
        if not done:
            return None
        upcoming, self._upcoming = self._upcoming, None
        return upcoming.result()

    async def aclose(self) -> None:
        """Stop waiting and close the stream."""
        if self._upcoming is not None:
            self._upcoming.cancel()
            with suppress(asyncio.CancelledError, Exception):  # of the stream, which nobody reads any more
                await self._upcoming
        await self._stream.aclose()

    async def _anext(self) -> T:
        try:
            return await anext(self._stream)
        except StopAsyncIteration as error:
            raise StreamEnded from error


class StreamEnded(Exception):
    """The stream is over."""
