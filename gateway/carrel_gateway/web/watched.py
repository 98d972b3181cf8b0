"""A response in pieces that ends when whoever reads it would not be let in any more.

What makes the pieces is left as when the reader goes away; what it follows goes on. Event streams that readers come
back to are `sse.EventStream`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from typing import Any

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from carrel_gateway.web import sse


class WatchedStream(StreamingResponse):
    """The response.

    Parameters
    ----------
    refusal
        Returns what to say last to a reader who would be refused now, and none while they would not be.
    """

    def __init__(
        self,
        pieces: AsyncGenerator[bytes, None],
        refusal: Callable[[], Awaitable[bytes | None]],
        *,
        media_type: str,
        headers: Mapping[str, str],
    ) -> None:
        super().__init__(pieces, media_type=media_type, headers=headers)
        self._pieces = pieces
        self._refusal = refusal

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the pieces until they end, or the reader goes or loses the right to them."""
        writing = asyncio.create_task(super().__call__(scope, receive, send))
        looking = asyncio.create_task(self._until_refused())
        tasks: list[asyncio.Task[Any]] = [writing, looking]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            is_over = writing.done()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._pieces.aclose()
        if is_over:
            writing.result()
        else:
            await send({"type": "http.response.body", "body": looking.result()})

    async def _until_refused(self) -> bytes:
        while True:
            await asyncio.sleep(sse.LOOK_SECONDS)
            last = await self._refusal()
            if last is not None:
                return last
