"""From one thread of a kernel to another's event loop, for less than ipykernel's pairs of ZeroMQ sockets cost.

A `Bell` wakes a loop, once for all that comes until it looks; a `Relay` carries messages with one and stands where
ipykernel has a `SocketPair`; `ShellThread` is ipykernel's with two of them, to the main thread and back. Its subshells
keep sockets of their own.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from contextvars import copy_context
from typing import Any, Final, TypeAlias, cast

import zmq
from ipykernel.shellchannel import ShellChannelThread
from ipykernel.subshell_manager import SubshellManager
from tornado.ioloop import IOLoop
from zmq import backend

from carrel_kernel.inside import system

Frames: TypeAlias = list[Any]
_send: Final[Callable[..., Any]] = cast("Any", backend).Socket.send
_MORE: Final = int(zmq.SNDMORE)
_EVENTS: Final = int(zmq.EVENTS)
_READABLE: Final = int(zmq.POLLIN)
_READ_BYTES: Final = 64
_SOON_SECONDS: Final = 0.002


def send(socket: Any, frames: Sequence[Any], *, copy: bool = True) -> None:
    """Send a message of several frames, as `send_multipart` does with some work for each of them."""
    for frame in frames[:-1]:
        _send(socket, frame, _MORE, copy)
    _send(socket, frames[-1], 0, copy)


def has_come(socket: Any) -> bool:
    """Whether a message waits in the socket. To be asked after sending, which takes what its descriptor would tell."""
    return bool(socket.get(_EVENTS) & _READABLE)


class Bell:
    """Wakes a loop of another thread, which then calls `answer`: at once, or within two milliseconds.

    It rings once until the loop looks. What an interrupt prevents while it rings, the next ring makes good. A thread
    that is woken while another one works takes the interpreter from it, again and again; `ring_soon` is for what has
    time until that one is done.
    """

    def __init__(self, answer: Callable[[], object]) -> None:
        self._answer = answer
        self._read, self._write = os.pipe()
        os.set_blocking(self._read, False)
        self._timer = system.timer(_SOON_SECONDS)
        self._rung = self._set = False
        self._forked = False
        self._loop: asyncio.AbstractEventLoop | None = None
        os.register_at_fork(after_in_child=self._on_fork)

    def hang(self, loop: asyncio.AbstractEventLoop) -> None:
        """Let a loop, running or not, listen from now on."""
        self._loop = loop
        loop.call_soon_threadsafe(loop.add_reader, self._read, self.look)
        if self._timer:
            loop.call_soon_threadsafe(loop.add_reader, self._timer, self.look)

    def fileno(self) -> int:
        """Return the descriptor that can be read when it has rung."""
        return self._read

    def ring(self) -> None:
        """Wake the loop; from any thread."""
        if self._rung:
            return
        try:
            self._rung = True
            os.write(self._write, b"\0")
        except BaseException:
            self._rung = False
            raise

    def ring_soon(self) -> None:
        """Wake the loop within two milliseconds, unless it is woken before; from any thread."""
        if self._timer is None:
            self.ring()
        elif not self._set:
            try:
                self._set = True
                self._timer.start()
            except BaseException:
                self._set = False
                raise

    def look(self) -> None:
        """Answer, if it has rung."""
        if self._forked:  # it has rung for the parent, which reads the same pipe
            return
        with suppress(BlockingIOError):
            os.read(self._read, _READ_BYTES)
        if self._timer and self._set:
            self._timer.stop()
        self._rung = self._set = False  # before the answer: who rings from now on is heard
        self._answer()

    def close(self) -> None:
        """Close its descriptors; in the loop's thread."""
        if self._loop and not self._loop.is_closed():
            self._loop.remove_reader(self._read)
            if self._timer:
                self._loop.remove_reader(self._timer)
        os.close(self._read)
        os.close(self._write)
        if self._timer:
            self._timer.close()

    def _on_fork(self) -> None:
        self._forked = True


class Relay:
    """Messages of any thread to the loop of one, with what ipykernel uses of a `SocketPair` and its sockets.

    A patient one delivers within two milliseconds, or when it is hurried.
    """

    def __init__(self, *, patient: bool = False) -> None:
        self._patient = patient
        self.from_socket = self.to_stream = self
        self._frames: deque[Frames] = deque()
        self._bell = Bell(self._deliver)
        self._callback: Callable[[Frames], object] | None = None
        self._running: set[asyncio.Future[Any]] = set()

    def on_recv(self, io_loop: Any, callback: Callable[[Frames], object], copy: bool = False) -> None:  # noqa: ARG002  as there
        """Have messages delivered to a function, or to a coroutine's, in a loop of Tornado's."""
        self._callback = callback
        self._bell.hang(io_loop.asyncio_loop)

    def send_multipart(self, frames: Frames, copy: bool = True) -> None:  # noqa: ARG002  nothing is ever copied
        """Send a message; from any thread."""
        self._frames.append(frames)
        if self._patient:
            self._bell.ring_soon()
        else:
            self._bell.ring()

    def hurry(self) -> None:
        """Have delivered at once what waits."""
        if self._frames:
            self._bell.ring()

    def send(self, frame: bytes, copy: bool = True) -> None:
        """Send a message of one frame."""
        self.send_multipart([zmq.Frame(frame)], copy)

    def close(self) -> None:
        """Deliver nothing any more."""
        self._bell.close()

    # What event loops of graphical toolkits ask of the stream to the main thread (`ipykernel.eventloops`).

    def getsockopt(self, option: int) -> int:
        """Return the descriptor, which is all that can be asked for."""
        if option != zmq.FD:
            raise zmq.ZMQError(zmq.EINVAL)
        return self._bell.fileno()

    def flush(self, flag: int = 0, limit: int | None = None) -> int:  # noqa: ARG002  as there
        """Deliver what has come, and return how many messages that were."""
        waited = len(self._frames)
        self._bell.look()
        return waited - len(self._frames)

    def _deliver(self) -> None:
        callback = self._callback
        for _ in range(len(self._frames) if callback else 0):
            result = cast("Any", callback)(self._frames.popleft())
            if isinstance(result, Awaitable):
                running = asyncio.ensure_future(cast("Awaitable[Any]", result))
                self._running.add(running)
                running.add_done_callback(self._running.discard)


class ShellManager(SubshellManager):
    """ipykernel's, with relays between the shell channel's thread and the main one."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._shell_channel_to_main.close()
        self._main_to_shell_channel.close()
        self._shell_channel_to_main: Any = Relay()
        self._main_to_shell_channel: Any = Relay(patient=True)
        self._main_to_shell_channel.on_recv(self._shell_channel_io_loop, self._send_on_shell_channel)

    def set_on_recv_callback(self, on_recv_callback: Callable[..., Coroutine[Any, Any, Any]]) -> None:
        """Have requests taken up in this thread, each as one task, where ipykernel makes two."""
        super().set_on_recv_callback(on_recv_callback)
        context = copy_context()

        def take_up(frames: Frames) -> asyncio.Task[Any]:
            return asyncio.create_task(on_recv_callback(None, frames), context=context)

        self._shell_channel_to_main.on_recv(IOLoop.current(), take_up)

    def hurry(self) -> None:
        """Have the main thread's replies sent at once."""
        self._main_to_shell_channel.hurry()

    def _send_on_shell_channel(self, msg: Frames) -> None:
        """Send a reply at once, where ipykernel queues it; a request that came meanwhile is taken up."""
        stream: Any = self._shell_stream
        send(stream.socket, msg)
        if has_come(stream.socket):
            stream.flush(zmq.POLLIN)


class ShellThread(ShellChannelThread):
    """ipykernel's thread of the shell channel."""

    @property
    def manager(self) -> SubshellManager:
        """Its manager, made when it is first asked for, in the main thread."""
        if self._manager is None:
            self._manager = ShellManager(self._zmq_context, self.io_loop, self.shell_stream)
        return self._manager
