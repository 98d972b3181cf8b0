"""`WS /v1/kernels/{kernel}/channels`: the Jupyter protocol, for clients that speak to a kernel themselves.

A WebSocket carries for one client (`clients`), in one of two framings (`framing`); the host signs for it. What runs
here is outside of at-most-once and the spool. A client that reads too slowly is cut off, for it must neither slow the
kernel down nor fill the host's memory.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Final

import structlog
from aiohttp import WSCloseCode, WSMsgType, web

from carrel_kernel.backlog import Waiting
from carrel_kernel.clients import Client
from carrel_kernel.connection import Channel
from carrel_kernel.errors import BadRequest, KernelUnavailable
from carrel_kernel.framing import V1, FramingError, pack_legacy, pack_v1, unpack_legacy, unpack_v1
from carrel_kernel.kernel_routes import kernel_of
from carrel_kernel.keys import CLIENTS, SUPERVISOR
from carrel_kernel.supervisor import Supervisor

HEARTBEAT_SECONDS: Final = 30.0
"""Between pings to a silent client; proxies and browsers give up a silent connection after a minute."""
_MAX_FRAME_BYTES: Final = 64 * 1024 * 1024
_MAX_SESSION_ID: Final = 128
_CHANNELS: Final[dict[str, Channel]] = {"shell": "shell", "control": "control", "stdin": "stdin"}
"""What a client may send to."""

_log = structlog.get_logger(__name__)


async def connect(request: web.Request) -> web.StreamResponse:
    """`GET …/channels`, upgraded to a WebSocket."""
    kernel = kernel_of(request)
    session_id = request.query.get("session_id") or None
    if session_id and len(session_id) > _MAX_SESSION_ID:
        raise BadRequest(f"session_id has at most {_MAX_SESSION_ID} characters")
    supervisor, clients = request.app[SUPERVISOR], request.app[CLIENTS]
    clients.check_room()
    await kernel.live()
    socket = web.WebSocketResponse(
        protocols=(V1,), heartbeat=HEARTBEAT_SECONDS, max_msg_size=_MAX_FRAME_BYTES, compress=False
    )
    await socket.prepare(request)
    supervisor.connections += 1
    client = clients.join(kernel, session_id, socket)
    try:
        await _Carrier(socket, client, supervisor).serve()
    finally:
        supervisor.connections -= 1
        clients.leave(client, socket)
    return socket


class _Carrier:
    """One WebSocket while it is open."""

    def __init__(self, socket: web.WebSocketResponse, client: Client, supervisor: Supervisor) -> None:
        self._socket = socket
        self._client = client
        self._supervisor = supervisor
        self._v1 = socket.ws_protocol == V1

    async def serve(self) -> None:
        """Carry messages both ways until one side ends."""
        sender = asyncio.create_task(self._send())
        try:
            await self._client.connect()
            await self._receive()
        except KernelUnavailable:
            await self._socket.close(code=WSCloseCode.GOING_AWAY, message=b"the kernel is gone")
        finally:
            sender.cancel()
            with suppress(asyncio.CancelledError, ConnectionError):
                await sender

    # ------------------------------------------------------------------ kernel → client

    async def _send(self) -> None:
        client = self._client
        while True:
            await client.news.wait()
            client.news.clear()
            while client.holder is self._socket and client.backlog and not client.overflowed:
                await self._transmit(client.backlog.take())
            if client.holder is not self._socket:
                await self._socket.close(code=WSCloseCode.OK, message=b"the session is carried by another connection")
                return
            if client.overflowed:
                await self._socket.close(code=WSCloseCode.TRY_AGAIN_LATER, message=b"read faster")
                return
            if client.gone:
                await self._socket.close(code=WSCloseCode.GOING_AWAY, message=b"the kernel is gone")
                return

    async def _transmit(self, message: Waiting) -> None:
        pack = pack_v1 if self._v1 else pack_legacy
        try:
            frame = pack(message.channel, message.parts)
        except FramingError:  # the kernel sent what JSON cannot carry
            self._supervisor.metrics.malformed.inc()
            return
        try:
            if isinstance(frame, str):
                await self._socket.send_str(frame)
            else:
                await self._socket.send_bytes(frame)
        except ConnectionError:
            if self._client.holder is self._socket:
                self._client.backlog.put_back(message)
            raise

    # ------------------------------------------------------------------ client → kernel

    async def _receive(self) -> None:
        async for message in self._socket:
            if message.type not in (WSMsgType.TEXT, WSMsgType.BINARY):
                continue
            self._supervisor.called()
            try:
                name, parts = self._unpack(message.data)
                channel = _CHANNELS[name]
            except (FramingError, KeyError) as error:
                _log.info("websocket_message_refused", reason=type(error).__name__)
                await self._socket.close(code=WSCloseCode.INVALID_TEXT, message=b"no message of the Jupyter protocol")
                return
            await self._client.send(channel, parts)

    def _unpack(self, frame: str | bytes) -> tuple[str, list[bytes]]:
        if not self._v1:
            return unpack_legacy(frame)
        if isinstance(frame, str):
            raise FramingError("a v1 message is binary")
        return unpack_v1(frame)
