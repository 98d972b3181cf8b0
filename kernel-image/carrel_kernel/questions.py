"""What the host itself asks of a kernel's process, from the question to the moment when the kernel is done with it.

Questions are short or have a deadline of their own. One that hangs is interrupted, and costs the process when that does
not help. Cells wait until all are answered, so that a signal for one of them hits no cell.
"""

from __future__ import annotations

import asyncio
import signal
import time
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
        reply = self._replies.get(msg_id)
        return reply is not None and not reply.done()

    def on_reply(self, msg_id: str, content: dict[str, Any]) -> None:
        """The reply that was awaited has come."""
        self._replies[msg_id].set_result(content)

    def on_idle(self, msg_id: str) -> None:
        """The kernel is done with a message, perhaps with a question."""
        self._due.pop(msg_id, None)
        if not self._due:
            self._none.set()

    def on_death(self) -> None:
        """There is no process any more that could answer."""
        self._due.clear()
        self._none.set()

    async def settled(self) -> bool:
        """Wait until the kernel is done with all questions; whether there was any."""
        waited = not self._none.is_set()
        await self._none.wait()
        return waited

    def hung(self, live: LiveKernel) -> bool:
        """Whether the process hangs over a question; those that it has forgotten are given up."""
        now, working = time.monotonic(), live.busy_with
        overdue = [id_ for id_, due in self._due.items() if now > max(due, working.get(id_, due)) + self._hung_seconds]
        if not working:  # the kernel has not said that it is done with them, and does nothing
            for id_ in overdue:
                self.on_idle(id_)
        return not working.keys().isdisjoint(overdue)
