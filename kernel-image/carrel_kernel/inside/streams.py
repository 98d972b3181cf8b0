"""`sys.stdout` and `sys.stderr` of a kernel: in the order in which both were written, fast, and in bounded memory.

ipykernel's own stream sorts text by parent message at every write, and keeps the two streams apart until they are
flushed. This one keeps text in the order of writing, puts the other stream's text before its own, and waits for the
output thread when it is far ahead of it.

Text goes from a stream's `written` (any thread appends) to the streams' common `_leaving` (under a lock, in order),
and from there to the socket (in the output thread alone, an `OutputThread`).
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, ClassVar, Final, cast

import zmq
from ipykernel.iostream import IOPubThread, OutStream

from carrel_kernel.inside.relay import Bell, has_come, send

_MAX_AHEAD_CHARACTERS: Final = 1024 * 1024
_PIECE_CHARACTERS: Final = 1024 * 1024
"""What is written at once goes out in pieces: the host refuses very large messages."""
_MAX_EVENTS: Final = 1000
"""Messages and other work that wait for the output thread; whoever has more for it waits until it is done."""
_WAIT_SECONDS: Final = 1.0
_CAN_WAIT: Final = (b".status", b".execute_input", b".execute_result")
"""Topics of what begins and ends a cell. Others may be the last words of a process that dies without a warning."""
_MAX_PARTS: Final = 256
"""What is written in more parts is joined: the garbage collector looks at each part that lives, again and again."""


class OrderedStream(OutStream):
    """One of the two streams; both know each other by their class."""

    flush_interval = 0.05  # seconds; a person who watches a progress bar should not see steps
    _all: ClassVar[list[OrderedStream]] = []
    _leaving: ClassVar[deque[tuple[OrderedStream, Any, str]]] = deque()
    _lock: ClassVar[threading.RLock] = threading.RLock()  # a signal handler of the user's may print, too

    _sending: ClassVar[bool] = False
    """Whether the output thread may hold text that is in none of the queues."""
    _forked: ClassVar[bool] = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.written: deque[tuple[Any, str]] = deque()
        self._ahead = 0
        """Characters written since the output thread last had them all."""
        self.other: OrderedStream | None = None
        super().__init__(*args, **kwargs)
        for other in self._all:
            other.other, self.other = self, other
        self._all.append(self)
        os.register_at_fork(after_in_child=self._on_fork)

    def write(self, string: str) -> int:
        """Take text; it is sent within the flush interval."""
        if not isinstance(string, str):  # pyright: ignore[reportUnnecessaryIsInstance]  user code passes anything
            raise TypeError(f"write() argument must be str, not {type(string).__name__}")
        other = self.other
        if other is not None and other.written:
            other.hand_over()
        header: Any = self._parent_header.get(None)
        if header is None:
            header = cast("Any", self._parent_header_global)
        self.written.append((header, string))
        if len(self.written) > _MAX_PARTS:
            self._leave()
        ahead = self._ahead = self._ahead + len(string)
        if not self._flush_pending or ahead > _MAX_AHEAD_CHARACTERS or self._forked:
            self._written_enough()
        return len(string)

    def flush(self) -> None:
        """Wait until everything written so far has left, which costs two changes of threads; none when it has.

        IPython flushes both streams three times per cell, most often with nothing in them.
        """
        other = self.other
        if self._forked or self._sending or self.written or self._leaving or (other is not None and other.written):
            super().flush()

    def _on_fork(self) -> None:
        """What was written before the fork is the parent's to send."""
        OrderedStream._forked = True
        OrderedStream._lock = threading.RLock()  # another thread of the parent may have held it
        self.written.clear()
        self._leaving.clear()

    def _written_enough(self) -> None:
        if self.pub_thread is None:
            raise ValueError("I/O operation on closed file")
        if self._ahead > _MAX_AHEAD_CHARACTERS:
            self.flush()  # waits for the output thread
        elif self._forked:
            self._flush()  # a forked process may end without another chance
        else:
            self._schedule_flush()

    def hand_over(self) -> None:
        """Put what has been written before what anybody writes from now on, without waiting for it to be sent."""
        self._leave()
        if self.pub_thread is not None:
            self.pub_thread.schedule(self._send)

    def _leave(self) -> None:
        with self._lock:
            held: list[str] = []
            held_for: Any = None
            for _ in range(len(self.written)):
                parent, text = self.written.popleft()
                if held and parent is not held_for:
                    self._leaving.append((self, held_for, "".join(held)))
                    held = []
                held_for = parent
                held.append(text)
            if held:
                self._leaving.append((self, held_for, "".join(held)))

    def _flush(self) -> None:
        """Send everything; called in the output thread, or in a forked process."""
        self._flush_pending = False
        self._ahead = 0
        self._leave()
        self._send()

    def _send(self) -> None:
        OrderedStream._sending = True
        while self._leaving:
            stream, parent, text = self._next()
            for start in range(0, len(text), _PIECE_CHARACTERS):
                stream.publish(parent, text[start : start + _PIECE_CHARACTERS])
        OrderedStream._sending = False

    def _next(self) -> tuple[OrderedStream, Any, str]:
        """Return the next text with what follows it on the same stream for the same cell."""
        stream, parent, text = self._leaving.popleft()
        texts = [text]
        while self._leaving and self._leaving[0][0] is stream and self._leaving[0][1] is parent:
            texts.append(self._leaving.popleft()[2])
        return stream, parent, "".join(texts)

    def publish(self, parent: Any, text: str) -> None:
        self.session.pid = os.getpid()  # as ipykernel does: a forked process sends too
        message = cast("Any", self.session.msg("stream", {"name": self.name, "text": text}, parent=parent))
        for hook in cast("list[Any]", self._hooks):
            message = hook(message)
            if message is None:
                return
        self.session.send(self.pub_thread, message, ident=self.topic)


class OutputThread(IOPubThread):
    """The thread that sends a kernel's output: ipykernel's, woken by a bell, and it misses no subscriber.

    It is woken once for all messages of a short cell.
    """

    def _setup_event_pipe(self) -> None:
        self._bell = Bell(self._work_off)
        self._bell.hang(cast("Any", self.io_loop).asyncio_loop)

    def schedule(self, f: Callable[[], object]) -> None:
        """Have work done in this thread, and wait for it when very much is left to do: memory is bounded."""
        self._have_done(f, self._bell.ring)

    def send_multipart(self, msg: Any, *args: Any, **kwargs: Any) -> None:
        """Have a message sent; what frames a cell within two milliseconds, or when the thread is hurried."""
        can_wait = msg[0].endswith(_CAN_WAIT)
        ring = self._bell.ring_soon if can_wait else self._bell.ring
        self._have_done(lambda: self._really_send(msg, *args, **kwargs), ring)

    def hurry(self) -> None:
        """Have sent at once what waits."""
        if self._events:
            self._bell.ring()

    def _have_done(self, work: Callable[[], object], ring: Callable[[], None]) -> None:
        if not self.thread.is_alive():
            work()
            return
        self._events.append(work)
        ring()
        if len(self._events) > _MAX_EVENTS and threading.current_thread() is not self.thread:
            self._wait()

    def _wait(self) -> None:
        done = threading.Event()
        self._events.append(done.set)
        self._bell.ring()
        while not done.wait(_WAIT_SECONDS) and self.thread.is_alive():
            pass

    def _work_off(self) -> None:
        """Do all that waits, and look for subscribers.

        The socket's descriptor tells only of changes, and sending takes the one that a subscriber made meanwhile:
        nobody would welcome it until another came. Source: `ZMQ_FD` in zmq_getsockopt(3).
        """
        self._handle_event(None)
        if self.socket is not None and has_come(self.socket):
            self._xpub_stream.flush(zmq.POLLIN)

    def _really_send(self, msg: Any, *args: Any, copy: bool = True, **kwargs: Any) -> None:
        """Send a message. Other threads do so only in forked processes, and when this one has ended."""
        if threading.current_thread() is self.thread and self.socket is not None:
            send(self.socket, msg, copy=copy)
        else:
            super()._really_send(msg, *args, copy=copy, **kwargs)
