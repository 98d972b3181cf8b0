"""A conversation over one WebSocket: messages and cancels come in, the session's events go out.

In: `{"type": "message", "message": "…"}`, with an `idempotency_key` if it may be sent again and `"queue": true` if it
may wait for the end of a run, and `{"type": "cancel"}`, with a `run_id` if only that run is meant.
Out: events as in `…/events`, live ones with `"live": true`, and `{"type": "problem", "code": …, "detail": …}` for what
could not be done. A reader that is too slow is cut with code 4408 and comes back with `after`; nothing is held for it.
Whoever would not be let in any more is cut with 4401, 4403 or 4404.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing, suppress
from typing import Any, Protocol, TypeVar, cast
from uuid import UUID

import orjson
from pydantic import BaseModel, ValidationError

from carrel_gateway.chat.schemas import CancelFrame, MessageFrame
from carrel_gateway.chat.service import ChatService
from carrel_gateway.chat.supervisor import RunSupervisor
from carrel_gateway.context import Principal, ProcessContext
from carrel_gateway.errors import CarrelError, InvalidInput, Unavailable
from carrel_gateway.history.schemas import text_document
from carrel_gateway.history.service import HistoryService, LiveText
from carrel_gateway.identity import policy
from carrel_gateway.identity.policy import Rule
from carrel_gateway.metrics import slow_readers
from carrel_gateway.rates.service import RateLimits
from carrel_gateway.sessions.access import SessionAccess
from carrel_gateway.sessions.service import SessionService

Frame = TypeVar("Frame", bound=BaseModel)
LOOK_SECONDS = 20.0
"""So long a socket may outlive the right to it."""
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
        again: Callable[[], Awaitable[Principal]],
    ) -> None:
        self._socket = socket
        self._principal = principal
        self._access = access
        self._rates = rates
        self._again = again
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
        looks = asyncio.create_task(self._look_again())
        out = asyncio.create_task(self._events_out(session.last_seq if after is None else max(after, 0)))
        inward = asyncio.create_task(self._messages_in())
        try:
            await asyncio.wait({out, inward, looks}, return_when=asyncio.FIRST_COMPLETED)
            if looks.done():
                error = looks.result()
                await self._socket.close(4000 + error.status, error.code)
            elif out.done() and not out.cancelled() and isinstance(out.exception(), TimeoutError):
                slow_readers.labels("websocket").inc()
                await self._socket.close(4408, "too_slow")
        finally:
            for task in (out, inward, looks):
                task.cancel()
            for task in (out, inward, looks):
                with suppress(asyncio.CancelledError, TimeoutError, ConnectionError, RuntimeError):
                    await task

    async def _events_out(self, after: int) -> None:
        async with aclosing(self._history.relay(self._session_id, after=after)) as batches:
            async for batch in batches:
                for event in batch:
                    live = isinstance(event, LiveText)
                    await self._send_bytes(event.document if live else orjson.dumps(text_document(event)))

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
            wanted = _validated(CancelFrame, document)
            await self._require(policy.CANCEL)
            await self._chat.cancel(self._session_id, wanted.run_id)
        elif kind == "message":
            body = _validated(MessageFrame, document)
            await self._require(policy.SEND)
            await self._chat.send(self._session_id, body.message, key=body.idempotency_key, queue=body.queue)
        else:
            raise InvalidInput('a frame must have "type": "message" or "cancel"', code="unknown_frame")

    async def _look_again(self) -> CarrelError:
        """Return why whoever is connected would not be let in any more, as soon as that is so."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                await self._again()
            except Unavailable:
                continue  # it is as it was, while that cannot be found out
            except CarrelError as error:
                return error

    async def _require(self, rule: Rule) -> None:
        """Check that whoever is connected may do something at this moment."""
        self._principal = await self._again()
        policy.require(self._principal, rule)
        await self._access.require(self._principal, self._session_id, changes=rule.changes)

    async def _problem(self, error: CarrelError) -> None:
        await self._send(
            {**error.detail, "type": "problem", "status": error.status, "code": error.code, "detail": error.message}
        )

    async def _send(self, document: dict[str, Any]) -> None:
        await self._send_bytes(orjson.dumps(document, default=str))

    async def _send_bytes(self, document: bytes) -> None:
        async with self._sending, asyncio.timeout(_SEND_SECONDS):
            await self._socket.send_text(document.decode())


def _validated(kind: type[Frame], document: Any) -> Frame:
    try:
        return kind.model_validate(document)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "frame"
        raise InvalidInput(f"{where}: {first['msg']}", code="validation_failed") from error
