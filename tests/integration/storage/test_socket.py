"""A conversation over a WebSocket that nobody reads: it is cut, nothing is kept for it, and `after` goes on with it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast
from uuid import UUID

import orjson
from prometheus_client import REGISTRY

from carrel_gateway.chat import socket as socket_module
from carrel_gateway.chat.socket import ChatSocket
from carrel_gateway.context import Principal, ProcessContext
from carrel_gateway.history.service import HistoryService
from carrel_gateway.rates.service import RateLimits
from carrel_gateway.sessions.access import SessionAccess
from carrel_gateway.storage.ids import new_id
from carrel_wire.log import UserMessage

DEADLINE = 30.0


class Socket:
    """The framework's side of a connection, whose client takes so many frames and then none."""

    def __init__(self, takes: int) -> None:
        self.frames: list[dict[str, Any]] = []
        self.closed: list[tuple[int, str | None]] = []
        self._takes = takes

    async def receive(self) -> Any:
        return await asyncio.Event().wait()

    async def send_text(self, data: str) -> None:
        if len(self.frames) >= self._takes:
            await asyncio.Event().wait()
        self.frames.append(orjson.loads(data))

    async def close(self, code: int = 1000, reason: str | None = None) -> None:
        self.closed.append((code, reason))


async def until(said: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE):
        while not said():  # noqa: ASYNC110  a state that nobody else waits for
            await asyncio.sleep(0.01)


async def test_a_reader_that_takes_nothing_is_cut_and_goes_on_with_after(
    context: ProcessContext, principal: Principal, session_id: UUID, monkeypatch: Any
) -> None:
    monkeypatch.setattr(socket_module, "_SEND_SECONDS", 0.2)
    history = HistoryService(context, principal)
    access, rates = SessionAccess(context.database), RateLimits(context.settings, context.windows)

    async def again() -> Principal:
        return principal

    def conversation(socket: Socket) -> ChatSocket:
        return ChatSocket(socket, context, principal, cast("Any", None), access, rates, session_id, again)

    cut = REGISTRY.get_sample_value("carrel_slow_readers_total", {"kind": "websocket"}) or 0.0
    for place in range(20):
        await history.append(session_id, [UserMessage(message_id=new_id(), content=str(place))], actor="user")
    slow = Socket(takes=5)
    async with asyncio.timeout(DEADLINE):
        await conversation(slow).serve(after=0)
    assert slow.closed == [(4408, "too_slow")]
    assert [frame["seq"] for frame in slow.frames] == [1, 2, 3, 4, 5]
    assert REGISTRY.get_sample_value("carrel_slow_readers_total", {"kind": "websocket"}) == cut + 1

    quick = Socket(takes=10_000)
    serving = asyncio.create_task(conversation(quick).serve(after=5))
    await until(lambda: len(quick.frames) == 16)
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)
    assert [frame["seq"] for frame in quick.frames] == list(range(6, 22))
