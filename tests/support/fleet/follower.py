"""A reader of one session's stream who writes down every committed event that it was shown, and checks it at the end.

What it was shown is committed: whatever died after, the log must have that very event under that number. It comes back
with `Last-Event-ID`, to whichever gateway answers, and must miss nothing and see nothing twice.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from typing import Any

import httpx

_RETRY_SECONDS = 0.2
_SILENCE_SECONDS = 60.0
"""Streams ping; one that says nothing for so long is dead."""


class Follower:
    """One reader."""

    def __init__(self, client: httpx.AsyncClient, session_id: str) -> None:
        self._client = client
        self._path = f"/api/sessions/{session_id}/events"
        self.seen: list[dict[str, Any]] = []
        self.connections = 0

    async def work(self, stop: asyncio.Event) -> None:
        """Follow until told to stop."""
        following = asyncio.create_task(self._follow())
        try:
            await stop.wait()
            if following.done():
                following.result()
        finally:
            following.cancel()
            with suppress(asyncio.CancelledError):
                await following

    def check(self, log: list[dict[str, Any]]) -> None:
        """Compare what was shown with the whole log."""
        numbers = [event["seq"] for event in self.seen]
        assert numbers == list(range(1, len(numbers) + 1)), "the stream had a gap, or showed an event twice"
        for shown, stored in zip(self.seen, log, strict=False):
            assert shown == stored, f"event {shown['seq']} was shown and is not what the log has"
        assert len(self.seen) <= len(log), "events were shown that the log does not have"

    async def _follow(self) -> None:
        while True:
            headers = {"Accept": "text/event-stream", "Last-Event-ID": str(len(self.seen))}
            with suppress(httpx.TransportError):
                async with self._client.stream("GET", self._path, headers=headers, timeout=_SILENCE_SECONDS) as reply:
                    if reply.status_code == 200:
                        self.connections += 1
                        await self._read(reply)
                    else:
                        assert reply.status_code in {429, 502, 503, 504}, reply.status_code
            await asyncio.sleep(_RETRY_SECONDS)

    async def _read(self, reply: httpx.Response) -> None:
        number: str | None = None
        async for line in reply.aiter_lines():
            name, _, value = line.partition(": ")
            if name == "id":
                number = value
            elif name == "data" and number is not None:
                self.seen.append(json.loads(value))
            elif not line:
                number = None
