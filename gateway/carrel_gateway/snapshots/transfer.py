"""Moves contents between kernel hosts and the object store, several at a time, each compared with its digest."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Final, TypeVar

from carrel_gateway.errors import CarrelError, KernelLost

AT_ONCE: Final = 4

_T = TypeVar("_T")


class ContentChanged(CarrelError):
    """A content is not (any more) what the manifest says: the workspace has changed while it was saved."""

    status = 409
    code = "workspace_changed"


async def each(items: Iterable[_T], act: Callable[[_T], Awaitable[None]]) -> None:
    """Do something for each item, a few at a time; what fails first comes out, and the rest is cancelled."""
    at_once = asyncio.Semaphore(AT_ONCE)

    async def one(item: _T) -> None:
        async with at_once:
            await act(item)

    tasks = [asyncio.create_task(one(item)) for item in items]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def compared(chunks: AsyncIterator[bytes], digest: str, size: int) -> AsyncIterator[bytes]:
    """Yield the bytes of a content.

    Raises
    ------
    ContentChanged
        They are others, or there are fewer or more of them.
    """
    seen, left = hashlib.sha256(), size
    try:
        async for chunk in chunks:
            seen.update(chunk)
            left -= len(chunk)
            if left < 0:
                break
            yield chunk
    except KernelLost as error:  # the host cuts the connection when it sees that the content has changed
        raise ContentChanged("a file changed while it was saved, or the kernel host was lost") from error
    if left or seen.hexdigest() != digest:
        raise ContentChanged("a file changed while it was saved; let the session come to rest, and try again")
