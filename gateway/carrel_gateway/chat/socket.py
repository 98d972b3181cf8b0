"""A conversation over one WebSocket: messages and cancels come in, the session's events go out.

In: `{"type": "message", "message": "…"}`, with an `idempotency_key` if it may be sent again, and `{"type": "cancel"}`.
Out: events as in `…/events`, live ones with `"live": true`, and `{"type": "problem", "code": …, "detail": …}` for what
could not be done. A reader that is too slow is cut with code 4408 and comes back with `after`; nothing is held for it.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing, suppress
from typing import Any, Protocol, cast
from uuid import UUID

import orjson
from pydantic import ValidationError

from carrel_gateway.chat.schemas import MessageFrame
from carrel_gateway.chat.service import ChatService
from carrel_gateway.chat.supervisor import RunSupervisor
from carrel_gateway.context import Principal, ProcessContext
from carrel_gateway.errors import CarrelError, InvalidInput
from carrel_gateway.history.schemas import event_document, live_document
from carrel_gateway.history.service import HistoryService, StoredEvent
from carrel_gateway.identity import policy
from carrel_gateway.identity.policy import Rule
from carrel_gateway.rates.service import RateLimits
from carrel_gateway.sessions.access import SessionAccess
from carrel_gateway.sessions.service import SessionService

_SEND_SECONDS = 30.0
"""A reader that takes nothing for so long is cut."""


class Socket(Protocol):
    """What is used of a WebSocket; an adapter over the framework's own."""

    async def receive(self) -> Any: ...
    async def send_text(self, data: str) -> None: ...
    async def close(self, code: int = 1000, reason: str | None = None) -> None: ...


class ChatSocket:
    """One connection."""

    def __init__(
        self,
        socket: Socket,
        context: ProcessContext,
        principal: Principal,
        supervisor: RunSupervisor,
        access: SessionAccess,
        rates: RateLimits,
        session_id: UUID,
    ) -> None:
        self._socket = socket
        self._principal = principal
        self._access = access
        self._rates = rates
        self._session_id = session_id
        self._sessions = SessionService(context, principal)
        self._history = HistoryService(context, principal)
        self._chat = ChatService(context, principal, supervisor)
        self._sending = asyncio.Lock()

    async def serve(self, after: int | None) -> None:
        """Serve the connection to its end; `after` is the last event that the client has, none means what comes now."""
        try:
            session = await self._sessions.get(self._session_id)
        except CarrelError as error:
            await self._problem(error)
            await self._socket.close(4404, error.code)
            return
        out = asyncio.create_task(self._events_out(session.last_seq if after is None else max(after, 0)))
        inward = asyncio.create_task(self._messages_in())
        try:
            await asyncio.wait({out, inward}, return_when=asyncio.FIRST_COMPLETED)
            if out.done() and not out.cancelled() and isinstance(out.exception(), TimeoutError):
                await self._socket.close(4408, "too_slow")
        finally:
            for task in (out, inward):
                task.cancel()
            for task in (out, inward):
                with suppress(asyncio.CancelledError, TimeoutError, ConnectionError, RuntimeError):
                    await task

    async def _events_out(self, after: int) -> None:
        async with aclosing(self._history.follow(self._session_id, after=after)) as events:
            async for event in events:
                await self._send(event_document(event) if isinstance(event, StoredEvent) else live_document(event))

    async def _messages_in(self) -> None:
        while True:
            frame = await self._socket.receive()
            if frame["type"] == "websocket.disconnect":
                return
            try:
                await self._rates.count(self._principal, message=True)
                await self._take(frame)
            except CarrelError as error:
                await self._problem(error)

    async def _take(self, frame: dict[str, Any]) -> None:
        try:
            document: Any = orjson.loads(frame.get("text") or frame.get("bytes") or b"")
        except orjson.JSONDecodeError as error:
            raise InvalidInput("a frame must be one JSON object", code="invalid_json") from error
        kind = cast("dict[str, Any]", document).get("type") if isinstance(document, dict) else None
        if kind == "cancel":
            await self._require(policy.CANCEL)
            await self._chat.cancel(self._session_id)
        elif kind == "message":
            try:
                body = MessageFrame.model_validate(document)
            except ValidationError as error:
                first = error.errors(include_url=False, include_input=False)[0]
                raise InvalidInput(f"message: {first['msg']}", code="validation_failed") from error
            await self._require(policy.SEND)
            await self._chat.send(self._session_id, body.message, key=body.idempotency_key)
        else:
            raise InvalidInput('a frame must have "type": "message" or "cancel"', code="unknown_frame")

    async def _require(self, rule: Rule) -> None:
        policy.require(self._principal, rule)
        await self._access.require(self._principal, self._session_id, changes=rule.changes)

    async def _problem(self, error: CarrelError) -> None:
        await self._send(
            {**error.detail, "type": "problem", "status": error.status, "code": error.code, "detail": error.message}
        )

    async def _send(self, document: dict[str, Any]) -> None:
        async with self._sending:
            await asyncio.wait_for(self._socket.send_text(orjson.dumps(document, default=str).decode()), _SEND_SECONDS)
