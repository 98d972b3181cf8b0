"""One execution while the kernel works on it: what has been seen so far, and when that is all."""

from __future__ import annotations

import asyncio
import time
from typing import Any, Final

from carrel_kernel import limits, protocol
from carrel_kernel.executions import Execution
from carrel_kernel.family import Family
from carrel_kernel.ladder import Ladder
from carrel_kernel.outcome import OverLimit, Seen
from carrel_kernel.outputs import Outputs
from carrel_wire.events import Started
from carrel_wire.host import ExecuteRequest

LAST_WORDS_SECONDS: Final = 5.0
"""Reply and idle status come over two sockets; when the kernel is silent for so long after one of them, the other one
is not waited for."""

_LOOK_SECONDS: Final = 0.05
"""Processes that a shorter execution has started have used nothing yet, and looking for them takes a while, too."""

TOGETHER_SECONDS: Final = 0.01
"""So long output waits for the end of the execution once all of it has come."""

TOLD_WITHIN_SECONDS: Final = 0.002
"""A kernel says so late what it does, so as not to be disturbed by saying it (`inside.relay`)."""

SILENT_SECONDS: Final = 10.0
"""A kernel says at once that it takes up what it is given; when it does not for so long, that is presumed."""


class Run:
    """The execution that a kernel has been given. The kernel calls the `on_…` methods."""

    def __init__(
        self, execution: Execution, outputs: Outputs, *, kernel_id: str, incarnation: str, family: Family
    ) -> None:
        self.execution = execution
        self.outputs = outputs
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.started: float | None = None
        """Monotonic time at which the kernel took the code up."""
        self.reply: dict[str, Any] | None = None
        self.execution_count: int | None = None
        self.ladder: Ladder | None = None
        self.stopped: str | None = None
        self._kernel_id = kernel_id
        self._incarnation = incarnation
        self._family = family
        self._cpu = family.cpu_seconds() or 0.0
        self.peak_memory_bytes = 0
        """Largest memory of the kernel's process, and of all below it as often as that was looked at."""
        self._given = time.monotonic()
        """When the kernel had nothing else to do any more."""
        self.idle = False
        """All output has come. What there is goes out together with the end, if that comes soon."""
        self._heard = 0.0
        """Monotonic time of the kernel's last message."""
        self._last_words: asyncio.TimerHandle | None = None
        family.own.reset_peak()

    def on_message(self) -> None:
        """The kernel said something, whatever it was."""
        self._heard = time.monotonic()

    def on_busy(self) -> None:
        """The kernel takes the code up."""
        if self.started is None:
            ago = min(TOLD_WITHIN_SECONDS, time.monotonic() - self._given)
            self.started = time.monotonic() - ago
            n = self.execution.next_n
            when = time.time() - ago
            self.execution.emit(Started(n=n, kernel_id=self._kernel_id, incarnation=self._incarnation, time=when))

    def on_reply(self, content: dict[str, Any]) -> None:
        """The kernel replied."""
        self.reply = content
        self.execution_count = protocol.count_of(content.get("execution_count"))
        self._nearly_done()

    def on_idle(self) -> None:
        """All output of the code has come."""
        self.idle = True
        self._nearly_done()

    def _nearly_done(self) -> None:
        if self.idle and self.reply is not None:
            self._finish()
        elif self._last_words is None:
            self._wait_for_last_words(TOGETHER_SECONDS)

    def _wait_for_last_words(self, seconds: float) -> None:
        self._last_words = asyncio.get_running_loop().call_later(seconds, self._on_silence)

    def _on_silence(self) -> None:
        self.execution.flush()
        left = self._heard + LAST_WORDS_SECONDS - time.monotonic()
        if left > 0:  # it has more to say than could be read by now
            self._wait_for_last_words(left)
        else:
            self._finish()

    def _finish(self) -> None:
        if not self.done.done():
            self.done.set_result(None)

    def measure(self) -> None:
        """Look at the process's memory while it is still there."""
        self.saw_memory(self._family.own.peak_bytes() or limits.resident_bytes(self._family.pid))

    def saw_memory(self, used_bytes: int) -> None:
        """Take note of memory in use."""
        self.peak_memory_bytes = max(self.peak_memory_bytes, used_bytes)

    def close(self) -> None:
        """Stop the timers."""
        if self._last_words:
            self._last_words.cancel()
        if self.ladder:
            self.ladder.stop()

    @property
    def wall_seconds(self) -> float:
        """Time since the kernel took the code up."""
        return 0.0 if self.started is None else time.monotonic() - self.started

    def limited_seconds(self, *, others: bool) -> float:
        """Time that counts for the limit, also of a kernel that does not say that it took the code up.

        Parameters
        ----------
        others
            Whether the kernel works for somebody else, behind whom this has to wait.
        """
        if self.started is not None:
            return self.wall_seconds
        if others:
            self._given = time.monotonic()
        return max(0.0, time.monotonic() - self._given - SILENT_SECONDS)

    def cpu_seconds(self) -> float | None:
        """CPU time since the start, of all processes; none when the kernel's is gone."""
        if self.wall_seconds > _LOOK_SECONDS:
            self._family.look()
        used = self._family.cpu_seconds()
        return None if used is None else max(0.0, round(used - self._cpu, 3))

    def seen(
        self,
        *,
        exit_code: int | None,
        over_limit: OverLimit | None,
        out_of_memory_kill: bool,
        memory_limit_bytes: int | None,
        container_limit_bytes: int | None,
    ) -> Seen:
        """Return what is to be judged."""
        ladder = self.ladder
        return Seen(
            reply=self.reply,
            error=self.outputs.error,
            exit_code=exit_code,
            ladder=ladder.reason if ladder else None,
            rungs=str(ladder) if ladder else "",
            killed_by_ladder=bool(ladder and ladder.killed),
            over_limit=over_limit,
            out_of_memory_kill=out_of_memory_kill,
            stopped=self.stopped,
            memory_limit_bytes=memory_limit_bytes,
            container_limit_bytes=container_limit_bytes,
            peak_memory_bytes=self.peak_memory_bytes,
        )


def execute_content(request: ExecuteRequest) -> dict[str, Any]:
    """Return the content of the kernel's `execute_request`."""
    return {
        "code": request.code,
        "silent": request.silent,
        "store_history": request.store_history and not request.silent,
        "user_expressions": {},
        "allow_stdin": False,  # nobody could answer; `input()` says so at once
        "stop_on_error": False,  # the queue is here, not in the kernel
    }
