"""`WS /v1/kernels/{kernel}/channels`: the Jupyter protocol, for clients that speak to a kernel themselves.

Each client has sockets of its own to the kernel, so replies and input requests find their way by themselves; the host
signs for it. What runs here is outside of at-most-once and the spool. A client that reads too slowly is cut off, for it
must neither slow the kernel down nor fill the host's memory.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from typing import Final

import msgspec
import structlog
from aiohttp import WSCloseCode, WSMsgType, web

from carrel_kernel import protocol
from carrel_kernel.connection import Channel, KernelConnection
from carrel_kernel.errors import KernelUnavailable
from carrel_kernel.framing import V1, FramingError, pack_legacy, pack_v1, unpack_legacy, unpack_v1
from carrel_kernel.kernel import Kernel
from carrel_kernel.kernel_routes import kernel_of
from carrel_kernel.keys import SUPERVISOR
from carrel_kernel.supervisor import Supervisor

MAX_WAITING_BYTES: Final = 64 * 1024 * 1024
_MAX_FRAME_BYTES: Final = 64 * 1024 * 1024
_HEARTBEAT_SECONDS: Final = 30.0
_CHANNELS: Final[dict[str, Channel]] = {"shell": "shell", "control": "control", "stdin": "stdin"}
"""What a client may send to."""
_SUBSCRIBED_SECONDS: Final = 10.0
"""A kernel that holds its interpreter this long welcomes nobody; then output may be missed, as with plain Jupyter."""

_log = structlog.get_logger(__name__)


async def connect(request: web.Request) -> web.StreamResponse:
    """`GET …/channels`, upgraded to a WebSocket."""
    kernel = kernel_of(request)
    await kernel.live()
    socket = web.WebSocketResponse(
        protocols=(V1,), heartbeat=_HEARTBEAT_SECONDS, max_msg_size=_MAX_FRAME_BYTES, compress=False
    )
    await socket.prepare(request)
    supervisor = request.app[SUPERVISOR]
    supervisor.connections += 1
    client = _Client(socket, kernel, supervisor)
    try:
        await client.serve()
    finally:
        supervisor.connections -= 1
    return socket


class _Client:
    """One WebSocket."""

    def __init__(self, socket: web.WebSocketResponse, kernel: Kernel, supervisor: Supervisor) -> None:
        self._socket = socket
        self._kernel = kernel
        self._supervisor = supervisor
        self._v1 = socket.ws_protocol == V1
        self._connection: KernelConnection | None = None
        self._waiting: deque[str | bytes] = deque()
        self._waiting_bytes = 0
        self._wake = asyncio.Event()
        self._subscribed = asyncio.Event()
        """Some output has come, the kernel's `iopub_welcome` if nothing else: from now on none is missed."""
        self._too_slow = False

    async def serve(self) -> None:
        """Carry messages both ways until one side ends."""
        await self._attach()
        self._kernel.on_new_process.add(self._on_new_process)
        sender = asyncio.create_task(self._send())
        try:
            await self._receive()
        finally:
            self._kernel.on_new_process.discard(self._on_new_process)
            sender.cancel()
            with suppress(asyncio.CancelledError, ConnectionError):
                await sender
            self._detach()

    async def _attach(self) -> None:
        live = await self._kernel.live()
        self._detach()
        self._connection = KernelConnection(
            self._supervisor.zmq_context,
            live.info,
            on_parts=self._on_parts,
            on_batch=self._wake.set,
            on_malformed=self._supervisor.metrics.malformed.inc,
            channels=("shell", "control", "stdin", "iopub"),
        )

    def _detach(self) -> None:
        self._subscribed.clear()
        if self._connection:
            self._connection.close()
            self._connection = None

    def _on_new_process(self) -> None:
        """The kernel was replaced: say so as jupyter_server does, and connect to the new one."""
        header = msgspec.json.encode(protocol.header("status", "restart", ""))
        content = msgspec.json.encode({"execution_state": "restarting"})
        self._queue("iopub", [header, b"{}", b"{}", content])
        self._detach()
        self._wake.set()

    # ------------------------------------------------------------------ kernel → client

    def _on_parts(self, channel: Channel, parts: list[bytes]) -> None:
        if channel == "iopub":
            self._subscribed.set()
        self._queue(channel, parts)

    def _queue(self, channel: Channel, parts: list[bytes]) -> None:
        if self._too_slow:
            return
        try:
            frame = pack_v1(channel, parts) if self._v1 else pack_legacy(channel, parts)
        except FramingError as error:
            raise protocol.MalformedError("no message") from error
        self._waiting.append(frame)
        self._waiting_bytes += len(frame)
        if self._waiting_bytes > MAX_WAITING_BYTES:
            self._too_slow = True
            self._waiting.clear()
            self._detach()
        self._wake.set()

    async def _send(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._waiting:
                frame = self._waiting.popleft()
                self._waiting_bytes -= len(frame)
                if isinstance(frame, str):
                    await self._socket.send_str(frame)
                else:
                    await self._socket.send_bytes(frame)
            if self._too_slow:
                await self._socket.close(code=WSCloseCode.TRY_AGAIN_LATER, message=b"read faster")
                return
            if self._connection is None:
                try:
                    await self._attach()
                except KernelUnavailable:
                    await self._socket.close(code=WSCloseCode.GOING_AWAY, message=b"the kernel is gone")
                    return

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
            with suppress(TimeoutError):
                async with asyncio.timeout(_SUBSCRIBED_SECONDS):
                    await self._subscribed.wait()
            if self._connection:
                self._connection.send_parts(channel, parts)

    def _unpack(self, frame: str | bytes) -> tuple[str, list[bytes]]:
        if not self._v1:
            return unpack_legacy(frame)
        if isinstance(frame, str):
            raise FramingError("a v1 message is binary")
        return unpack_v1(frame)
