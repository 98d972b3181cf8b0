"""A platform that asks for sessions to be saved, played by a test: what it says is heard, and it hears the answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import replace

from carrel_gateway.errors import ExecutorFailed
from carrel_gateway.executors.base import Listed, Sighting, SuspensionRequest


class Platform:
    """Requests by name; any number of gateways may follow."""

    def __init__(self) -> None:
        self.requests: dict[str, SuspensionRequest] = {}
        self.explained: dict[str, str] = {}
        self.said: list[str] = []
        self.away = False
        self._followers: set[asyncio.Queue[str | None]] = set()

    def ask(self, request: SuspensionRequest) -> None:
        self.requests[request.name] = request
        self._tell(request.name)

    def ask_again(self, name: str, **changes: str) -> None:
        self.ask(replace(self.requests[name], **changes))

    def withdraw(self, name: str) -> None:
        self.requests.pop(name, None)
        self._tell(name)

    def cut(self) -> None:
        """End what the followers watch."""
        for follower in self._followers:
            follower.put_nowait(None)

    def _tell(self, name: str) -> None:
        for follower in self._followers:
            follower.put_nowait(name)

    def _sight(self, name: str) -> Sighting:
        return Sighting(name, self.requests.get(name), name in self.explained)

    async def follow(self) -> AsyncGenerator[Sighting | Listed, None]:
        if self.away:
            raise ExecutorFailed("away", reason="ApiServer")
        news: asyncio.Queue[str | None] = asyncio.Queue()
        self._followers.add(news)
        try:
            names = set(self.requests) | set(self.explained)
            for name in names:
                yield self._sight(name)
            yield Listed(names)
            while (name := await news.get()) is not None:
                yield self._sight(name)
        finally:
            self._followers.discard(news)

    async def explain(self, name: str, text: str | None) -> None:
        if text is None:
            self.explained.pop(name, None)
        else:
            assert len(text) <= 500
            self.explained[name] = text
            self.said.append(text)
