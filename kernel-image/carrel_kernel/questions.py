"""What the host itself asks of a kernel's process, from the question to the moment when the kernel is done with it.

Questions are short or have a deadline of their own. One that hangs is interrupted, and costs the process when that does
not help. Cells wait until all are answered, so that a signal for one of them hits no cell.
"""

from __future__ import annotations

import asyncio
import signal
import time
from itertools import takewhile
from typing import Any

from carrel_kernel.errors import KernelUnavailable
from carrel_kernel.live import LiveKernel


class Questions:
    """The questions of one kernel."""

    def __init__(self, hung_seconds: float) -> None:
        self._hung_seconds = hung_seconds
        self._replies: dict[str, asyncio.Future[dict[str, Any]]] = {}
        self._due: dict[str, float] = {}
        """Ids that the kernel is not done with, and until when it should be."""
        self._sign: str | None = None
        """The question by which a kernel that says nothing is to show that it lives."""
        self._none = asyncio.Event()
        self._none.set()

    def __contains__(self, msg_id: object) -> bool:
        """Whether a message is a question that the kernel is not done with."""
        return msg_id in self._due

    async def ask(self, live: LiveKernel, msg_type: str, content: dict[str, Any], *, seconds: float) -> dict[str, Any]:
        """Send a request to a process and return its reply's content.

        Raises
        ------
        KernelUnavailable
            The kernel died.
        TimeoutError
            No reply came in time; the kernel was interrupted, and is replaced if that does not help.
        """
        reply: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        msg_id = live.send("shell", msg_type, content)
        self._replies[msg_id] = reply
        self._due[msg_id] = time.monotonic() + seconds
        self._none.clear()
        try:
            waited = (reply, live.death)
            await asyncio.wait(waited, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            if reply.done():
                return reply.result()
            if live.death.done():
                raise KernelUnavailable("the kernel died meanwhile")
            live.connection.drain_now()
            if msg_id in live.busy_with:  # nobody's cell must be hit
                live.process.signal(signal.SIGINT)
            raise TimeoutError
        finally:
            del self._replies[msg_id]

    def awaits(self, msg_id: str) -> bool:
        """Whether somebody waits for the reply to a message."""
        if msg_id == self._sign:
            return True
        reply = self._replies.get(msg_id)
        return reply is not None and not reply.done()

    def on_reply(self, msg_id: str, content: dict[str, Any]) -> None:
        """The reply that was awaited has come."""
        if msg_id == self._sign:
            self.on_idle(msg_id)
        else:
            self._replies[msg_id].set_result(content)

    def on_idle(self, msg_id: str) -> None:
        """The kernel is done with a message, perhaps with a question."""
        if msg_id == self._sign:  # it takes them up in their order: what it was asked before, it has forgotten
            self._sign = None
            for id_ in list(takewhile(lambda id_: id_ != msg_id, self._due)):
                del self._due[id_]
        self._due.pop(msg_id, None)
        if not self._due:
            self._none.set()

    def on_death(self) -> None:
        """There is no process any more that could answer."""
        self._due.clear()
        self._sign = None
        self._none.set()

    async def settled(self) -> bool:
        """Wait until the kernel is done with all questions; whether there was any."""
        waited = not self._none.is_set()
        await self._none.wait()
        return waited

    def hung(self, live: LiveKernel) -> bool:
        """Whether the process hangs over a question.

        One that has not said what it works on may have forgotten a question, or hang so hard that it could not say so:
        it is asked for a sign of life.
        """
        now, working = time.monotonic(), live.busy_with
        overdue = {id_ for id_, due in self._due.items() if now > max(due, working.get(id_, due)) + self._hung_seconds}
        if working:
            return not working.keys().isdisjoint(overdue)
        if overdue and self._sign is None:
            self._sign = live.send("shell", "kernel_info_request", {})
            self._due[self._sign] = now
        return self._sign in overdue
