"""The host's side of one kernel's ZeroMQ sockets: sends, and hands on every verified message as it comes.

Sockets are read from the event loop by callbacks, in bounded batches, so that a kernel that floods them cannot keep the
loop. Knows nothing of executions.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import msgspec
import structlog
import zmq

from carrel_kernel import protocol

Channel: TypeAlias = Literal["shell", "control", "stdin", "iopub"]
PORTS: Final[dict[str, int]] = {"shell": 1, "iopub": 2, "stdin": 3, "control": 4, "hb": 5}
"""With the ipc transport a port is only the end of a socket's file name."""

_BATCH_MESSAGES: Final = 64
_BATCH_BYTES: Final = 2 * 1024 * 1024
_BATCH_SECONDS: Final = 0.02
"""Whatever the messages are: a small one may take long."""
_LAST_BATCHES: Final = 20
"""What a dead kernel left is no more than the system's buffers hold; its children may go on sending."""
_RECEIVE_QUEUE: Final = 8
"""Messages that ZeroMQ reads ahead: few, for each may be large. The kernel's own queue blocks when it is full (see
`inside.app`), so a slow host slows a kernel down instead of losing its output or filling memory."""
_MAX_MESSAGE_BYTES: Final = 256 * 1024 * 1024

_NO_WAIT: Final = int(zmq.NOBLOCK)  # numbers, which need not be found out anew for every frame
_MORE: Final = _NO_WAIT | int(zmq.SNDMORE)
_EVENTS: Final = int(zmq.EVENTS)
_READABLE: Final = int(zmq.POLLIN)

_log = structlog.get_logger(__name__)


class ConnectionInfo(msgspec.Struct, frozen=True):
    """Where a kernel listens and the key of its signatures; the content of its connection file."""

    ip: str
    """Prefix of the sockets' paths."""
    key: str
    transport: str = "ipc"
    signature_scheme: str = "hmac-sha256"
    shell_port: int = PORTS["shell"]
    iopub_port: int = PORTS["iopub"]
    stdin_port: int = PORTS["stdin"]
    control_port: int = PORTS["control"]
    hb_port: int = PORTS["hb"]
    kernel_name: str = "carrel"

    def address(self, channel: str) -> str:
        """Return the address of a channel's socket."""
        return f"ipc://{self.ip}-{PORTS[channel]}"

    def remove_sockets(self) -> None:
        """Remove the files that the kernel's sockets left behind."""
        for port in PORTS.values():
            Path(f"{self.ip}-{port}").unlink(missing_ok=True)


def _has_come(socket: zmq.Socket[bytes]) -> bool:
    """Whether a message waits. For sockets that are mostly empty: an exception that says so takes twice as long."""
    return bool(int(socket.get(_EVENTS)) & _READABLE)


def _receive(socket: zmq.Socket[bytes]) -> list[bytes]:
    """Return the frames of a message, each of which knows whether it is the last: asking the socket takes longer.

    Raises
    ------
    zmq.Again
        None waits.
    """
    frame = socket.recv(_NO_WAIT, copy=False)
    frames = [frame.bytes]
    while frame.more:
        frame = socket.recv(_NO_WAIT, copy=False)
        frames.append(frame.bytes)
    return frames


class KernelConnection:
    """Sockets to one kernel process.

    `on_parts(channel, parts)` gets header, parent header, metadata, content and buffers of each message; `on_batch` is
    called after one or more of them; `on_malformed` for each message that was dropped.
    """

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        info: ConnectionInfo,
        *,
        on_parts: Callable[[Channel, list[bytes]], None],
        on_batch: Callable[[], None],
        on_malformed: Callable[[], None],
        channels: Iterable[Channel] = ("shell", "control", "iopub"),
    ) -> None:
        self.session = uuid.uuid4().hex
        self._key = info.key.encode()
        self._on_parts = on_parts
        self._on_batch = on_batch
        self._on_malformed = on_malformed
        self._loop = asyncio.get_running_loop()
        self._sockets: dict[Channel, zmq.Socket[bytes]] = {}
        self._seen = protocol.Signatures()
        self._closed = False
        for channel in channels:
            self._open(context, channel, info.address(channel))

    def _open(self, context: zmq.Context[zmq.Socket[bytes]], channel: Channel, address: str) -> None:
        socket = context.socket(zmq.SUB if channel == "iopub" else zmq.DEALER)
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.RCVHWM, _RECEIVE_QUEUE)
        socket.setsockopt(zmq.MAXMSGSIZE, _MAX_MESSAGE_BYTES)
        socket.setsockopt(zmq.RECONNECT_IVL, 10)
        if channel == "iopub":
            socket.setsockopt(zmq.SUBSCRIBE, b"")
        else:  # input requests come to the socket of the identity that executed
            socket.setsockopt(zmq.IDENTITY, self.session.encode())
        socket.connect(address)
        self._sockets[channel] = socket
        self._loop.add_reader(int(socket.getsockopt(zmq.FD)), self._drain, channel)
        self._loop.call_soon(self._drain, channel)

    def send(self, channel: Channel, msg_type: str, content: dict[str, Any], msg_id: str | None = None) -> str:
        """Send a message of the host's own and return its id."""
        id_ = msg_id or uuid.uuid4().hex
        self.send_frames(channel, protocol.pack(self._key, protocol.header(msg_type, id_, self.session), content))
        return id_

    def send_parts(self, channel: Channel, parts: list[bytes]) -> None:
        """Sign and send a client's message."""
        self.send_frames(channel, protocol.sign(self._key, parts))

    def send_frames(self, channel: Channel, frames: list[bytes]) -> None:
        """Send signed frames; dropped when the kernel takes nothing any more, which its death will explain."""
        if self._closed:
            return
        socket = self._sockets[channel]
        try:
            for frame in frames[:-1]:
                socket.send(frame, _MORE)
            socket.send(frames[-1], _NO_WAIT)
        except zmq.ZMQError as error:
            _log.warning("kernel_send_failed", channel=channel, reason=str(error))
        # The descriptor is edge-triggered, and sending may have consumed the edge of a message that came in between.
        if _has_come(socket):
            self._loop.call_soon(self._drain, channel)

    def close(self) -> None:
        """Close the sockets; nothing is delivered afterwards."""
        if self._closed:
            return
        self._closed = True
        for socket in self._sockets.values():
            self._loop.remove_reader(int(socket.getsockopt(zmq.FD)))
            socket.close()

    def drain_now(self) -> None:
        """Deliver what has already arrived, such as the last words of a kernel that died."""
        for channel in self._sockets:
            for _ in range(_LAST_BATCHES):
                if not self._drain(channel):
                    break

    def _drain(self, channel: Channel) -> bool:
        """Deliver a batch; whether more may wait."""
        if self._closed:
            return False
        more = False
        socket = self._sockets[channel]
        taken = size = 0
        until = self._loop.time() + _BATCH_SECONDS
        try:
            while taken < _BATCH_MESSAGES and size < _BATCH_BYTES and self._loop.time() < until:
                frames = _receive(socket)
                taken += 1
                size += sum(map(len, frames))
                self._deliver(channel, frames)
                if self._closed:
                    return False
            more = True
            self._loop.call_soon(self._drain, channel)  # others get their turn first
        except zmq.Again:
            pass
        except zmq.ZMQError as error:
            _log.warning("kernel_receive_failed", channel=channel, reason=str(error))
        if taken:
            self._on_batch()
        return more

    def _deliver(self, channel: Channel, frames: list[bytes]) -> None:
        try:
            self._on_parts(channel, protocol.verify(self._key, frames, self._seen))
        except protocol.MalformedError as error:
            self._on_malformed()
            _log.debug("kernel_message_dropped", channel=channel, reason=str(error))
        except Exception:  # noqa: BLE001  a message that finds a defect costs that message, and not all after it
            self._on_malformed()
            _log.exception("kernel_message_failed", channel=channel)
