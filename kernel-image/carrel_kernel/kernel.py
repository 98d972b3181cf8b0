"""One kernel ("context"): its queue, what it runs now, and its process, which may be replaced.

One execution at a time, in the order of arrival. When one with `stop_on_error` does not end well, those that wait
behind it are not run, as in Jupyter. When the process dies, the execution ends with the reason and a new process is
started.
"""

from __future__ import annotations

import asyncio
import signal
import time
import uuid
from collections import deque
from collections.abc import AsyncGenerator, Awaitable
from contextlib import asynccontextmanager, suppress
from typing import Any, Final, Literal

import structlog

from carrel_kernel import limits, protocol
from carrel_kernel.connection import Channel
from carrel_kernel.errors import IncarnationChanged, KernelBusy, KernelUnavailable, QueueFull, Sealed
from carrel_kernel.executions import Execution
from carrel_kernel.live import LiveKernel, Watcher
from carrel_kernel.outcome import Verdict
from carrel_kernel.questions import Questions
from carrel_kernel.run import Run
from carrel_kernel.surroundings import Surroundings
from carrel_kernel.worker import Worker
from carrel_wire.host import ExecuteRequest, ExecutionState, KernelInfo

_CRASH_LOOP_SECONDS: Final = 1.0
"""A kernel that died this young is started again only when somebody wants it."""

_CHANGING: Final = frozenset({"execute_request", "comm_open", "comm_msg", "comm_close"})
"""Requests of clients that run code."""

_log = structlog.get_logger(__name__)


class Kernel:
    """A kernel by its id."""

    def __init__(self, kernel_id: str, around: Surroundings) -> None:
        self.id = kernel_id
        self.incarnation = str(uuid.uuid4())
        self.last_activity = time.time()
        self.changes = 0
        """Grows with whatever may change the variables; what it was at a snapshot tells whether that still holds."""
        self.touched = False
        """Something has run in this process that may have changed its variables."""
        self.sealed = False
        """Its state is in a snapshot for good: nothing runs in it any more."""
        self.watchers: set[Watcher] = set()
        self._around = around
        self._queue: deque[Execution] = deque()
        self._wanted = asyncio.Event()
        self._current: Execution | None = None
        self._interrupted: set[str] = set()
        self._worker = Worker(kernel_id, around)
        self._live: LiveKernel | None = None
        self._starting = asyncio.Lock()
        self._alone = asyncio.Lock()
        """Held by an execution, or by what must have the idle process to itself."""
        self._questions = Questions(around.hung_seconds)
        self._execution_count = 0
        self._restarts = 0
        self._cause: Literal["requested", "died"] = "died"
        self._closed = False
        self._tasks: set[asyncio.Task[Any]] = set()
        self._spawn(self._work())
        self._start_in_background()

    # ------------------------------------------------------------------ what callers want

    def submit(self, execution: Execution) -> None:
        """Queue a new execution.

        Raises
        ------
        QueueFull
            Too many wait already; it has not been queued.
        Sealed
            The kernel runs nothing any more.
        """
        self.check_open()
        if len(self._queue) >= self._around.max_queue:
            raise QueueFull(f"{self._around.max_queue} executions wait already; let some finish first")
        self.changes += 1
        self._queue.append(execution)
        self._wanted.set()

    def check_incarnation(self, wanted: str | None) -> None:
        """Refuse a request that was meant for another process.

        Raises
        ------
        IncarnationChanged
        """
        if wanted is not None and wanted != self.incarnation:
            raise IncarnationChanged("the kernel is a new one; its variables are gone", incarnation=self.incarnation)

    def interrupt(self) -> bool:
        """Interrupt what runs, by the ladder; whether anything did."""
        if self._worker.run and self._live:
            self._worker.climb(self._live, "interrupted")
            return True
        if self._current:  # it waits for the kernel to start
            self._interrupted.add(self._current.id)
            return True
        if self._live and self._clients_run():  # that client decides whether it wants more than one signal
            self._live.process.signal(signal.SIGINT)
            return True
        return False

    async def restart(self) -> None:
        """Replace the process; what runs and waits ends as `kernel_died`.

        Raises
        ------
        KernelUnavailable
            The new one did not start.
        """
        run = self._stop("the kernel was restarted")
        if self._live:
            self._cause = "requested"
            self._live.kill()
            await asyncio.wait((self._live.death,))
        if run:
            await asyncio.wait((run.done,))
        await self._ensure()

    async def aclose(self, reason: str, *, grace_seconds: float = 0.0) -> None:
        """End the kernel: what runs and waits ends as `kernel_died`."""
        self._closed = True
        run = self._stop(reason)
        live = self._live
        if live:
            if grace_seconds and not run:
                live.process.signal(signal.SIGTERM)
                await asyncio.wait((live.death,), timeout=grace_seconds)
            live.kill()
            await asyncio.wait((live.death,))
        if run:
            await asyncio.wait((run.done,))
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._current and self._current.finished is None:  # it waited for a process
            self._worker.end(self._current, Verdict("kernel_died", f"not run: {reason}", lost_state=True))
        for watcher in list(self.watchers):
            watcher.on_delete()
        if live:
            live.close()

    async def request(self, msg_type: str, content: dict[str, Any], *, seconds: float) -> dict[str, Any]:
        """Send a request to the idle kernel and return its reply's content.

        Raises
        ------
        KernelBusy
            Something runs or waits.
        KernelUnavailable, TimeoutError
            As `Questions.ask` does.
        """
        live = await self._ensure()
        self._check_idle()
        return await self.ask(live, msg_type, content, seconds=seconds)

    async def ask(self, live: LiveKernel, msg_type: str, content: dict[str, Any], *, seconds: float) -> dict[str, Any]:
        """Send a request to the process that `alone` gave, and return its reply's content.

        Raises
        ------
        KernelUnavailable, TimeoutError
            As `Questions.ask` does.
        """
        return await self._questions.ask(live, msg_type, content, seconds=seconds)

    @asynccontextmanager
    async def alone(self) -> AsyncGenerator[LiveKernel]:
        """Give the idle process, and keep executions waiting until the block ends.

        Raises
        ------
        KernelBusy
            Something runs or waits.
        KernelUnavailable, Sealed
        """
        live = await self._ensure()
        self._check_idle()
        async with self._alone:  # free, or it would be busy: nothing comes in between
            yield live

    def _check_idle(self) -> None:
        if self.busy:
            raise KernelBusy("the kernel runs something; ask again when it is idle", kernel=self.id)

    def check_open(self) -> None:
        """Raise when nothing runs in it any more.

        Raises
        ------
        Sealed
        """
        if self.sealed:
            raise Sealed("the kernel's state is in a snapshot, and nothing runs in it any more", kernel=self.id)

    async def seal(self) -> None:
        """End the kernel: from now on its state is what the last snapshot has."""
        self.sealed = True
        await self.aclose("the kernel was sealed")

    async def live(self) -> LiveKernel:
        """Return the running process, started when there is none.

        Raises
        ------
        KernelUnavailable
        """
        return await self._ensure()

    @property
    def state(self) -> ExecutionState:
        """What the kernel does now."""
        if self._current or self._queue or self._alone.locked() or self._clients_run():
            return "busy"
        if self._live:
            return "idle"
        return "starting" if self._starting.locked() else "dead"

    @property
    def busy(self) -> bool:
        """Whether code runs or waits."""
        return self.state == "busy"

    def _clients_run(self) -> bool:
        """Whether a WebSocket client's code runs; the host's own short questions do not count."""
        return self._live is not None and any(msg_id not in self._questions for msg_id in self._live.busy_with)

    def info(self) -> KernelInfo:
        """Return the kernel's description."""
        pid = self._live.process.pid if self._live else None
        memory = limits.resident_bytes(pid) if pid else 0
        run = self._worker.run
        peak = max(self._worker.peak_memory_bytes, memory, run.peak_memory_bytes if run else 0)
        return KernelInfo(
            id=self.id,
            incarnation=self.incarnation,
            execution_state=self.state,
            current_execution=self._current.id if self._current else None,
            execution_count=self._execution_count,
            last_activity=time.time() if self.busy else self.last_activity,
            pid=pid,
            memory_bytes=memory,
            peak_memory_bytes=peak,
            cpu_seconds=limits.cpu_seconds(pid) if pid else 0.0,
            restarts=self._restarts,
            fresh_because=self._live.process.fresh_because if self._live else None,
            sealed=self.sealed,
        )

    async def check(self) -> None:
        """Kill the process if it uses more memory than it may, or if a question of the host's has hung it."""
        live = self._live
        if live is None:
            return
        used = await asyncio.to_thread(live.family.memory_bytes)
        if self._live is not live:
            return
        self._worker.check_memory(live, used)
        if self._questions.hung(live):
            _log.warning("kernel_hung", kernel=self.id, incarnation=live.incarnation)
            live.kill()

    @property
    def memory_bytes(self) -> int:
        """Memory of the process and those below it. Blocks shortly."""
        return self._live.family.memory_bytes() if self._live else 0

    def relieve(self) -> None:
        """Kill the process, for the container is nearly out of memory."""
        if self._live:
            self._live.kill("container")

    # ------------------------------------------------------------------ the process

    def _spawn(self, work: Awaitable[Any]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _start_in_background(self) -> None:
        async def start() -> None:
            with suppress(KernelUnavailable):  # logged; whoever needs the kernel is told
                await self._ensure()

        self._spawn(start())

    async def _ensure(self) -> LiveKernel:
        async with self._starting:
            self.check_open()
            if self._closed:
                raise KernelUnavailable("the kernel is being deleted")
            if self._live is None:
                try:
                    self._live = await self._start()
                except KernelUnavailable as error:
                    _log.warning("kernel_not_started", kernel=self.id, reason=error.message)
                    raise
                for watcher in list(self.watchers):
                    watcher.on_start(self._live)
            return self._live

    async def _start(self) -> LiveKernel:
        around, began = self._around, time.monotonic()
        process, spare = await around.take_spare()
        live = await LiveKernel.start(
            process,
            around.place,
            around.binding,
            self.incarnation,
            on_parts=self._on_parts,
            on_batch=self._on_batch,
            on_malformed=around.metrics.malformed.inc,
        )
        live.death.add_done_callback(lambda _: self._on_death(live))
        origin = "forked" if process.fresh_because is None else "fresh"
        around.metrics.kernel_starts.labels("yes" if spare else "no", origin).inc()
        around.metrics.kernel_start_seconds.observe(time.monotonic() - began)
        _log.info(
            "kernel_started",
            kernel=self.id,
            incarnation=live.incarnation,
            pid=process.pid,
            spare=spare,
            fresh_because=process.fresh_because,
        )
        return live

    def _on_death(self, live: LiveKernel) -> None:
        if self._live is not live or live.death.cancelled():
            return
        self._live = None
        self._questions.on_death()
        self.incarnation = str(uuid.uuid4())
        self.changes += 1
        self.touched = False
        self._execution_count = 0
        cause, self._cause = self._cause, "died"
        if self._worker.run is None:
            live.close()
        if self._closed:
            return
        for watcher in list(self.watchers):
            watcher.on_end()
        self._restarts += 1
        self._around.metrics.kernel_restarts.labels(cause).inc()
        _log.warning("kernel_ended", kernel=self.id, incarnation=live.incarnation, code=live.death.result())
        if cause == "died" and time.monotonic() - live.started > _CRASH_LOOP_SECONDS:
            self._start_in_background()

    # ------------------------------------------------------------------ messages

    def _on_parts(self, live: LiveKernel, channel: Channel, parts: list[bytes]) -> None:
        message = protocol.unpack(parts)
        run = self._worker.run
        if run or not self._alone.locked():  # being saved is nothing that the session does
            self.last_activity = time.time()
        ours = run if run and message.parent.msg_id == run.execution.id else None
        if channel != "iopub":
            if self._questions.awaits(message.parent.msg_id):
                self._questions.on_reply(message.parent.msg_id, message.content())
            elif ours and message.header.msg_type == "execute_reply":
                ours.on_reply(message.content())
            return
        match message.header.msg_type:
            case "iopub_welcome":
                live.welcomed()
            case "status":
                self._on_status(live, message, ours)
            case "execute_input":
                self._execution_count = protocol.count_of(message.content().get("execution_count")) or 0
            case msg_type:
                # Threads of earlier cells write under their own cell's id: what they write belongs to what runs now.
                if message.parent.session != live.connection.session:
                    return
                if run:
                    run.outputs.take(msg_type, message.raw_content)
                else:
                    self._around.metrics.late_output.inc()

    def _on_status(self, live: LiveKernel, message: protocol.Message, ours: Run | None) -> None:
        state = message.content().get("execution_state")
        if state == "busy":
            live.on_busy(message.parent.msg_id)
            if message.parent.msg_id not in self._questions and message.parent.msg_type in _CHANGING:
                self.changes += 1
                self.touched = True
            if ours:
                ours.on_busy()
        elif state == "idle":
            live.on_idle(message.parent.msg_id)
            self._questions.on_idle(message.parent.msg_id)
            if ours:
                ours.on_idle()

    def _on_batch(self) -> None:
        if run := self._worker.run:
            run.on_message()
            if not run.idle:
                run.execution.flush()

    # ------------------------------------------------------------------ executions

    async def _work(self) -> None:
        while True:
            while not self._queue:
                self._wanted.clear()
                await self._wanted.wait()
            execution = self._current = self._queue.popleft()
            try:
                async with self._alone:
                    await self._execute(execution)
            except Exception:  # noqa: BLE001  a defect ends this execution, not the kernel
                _log.exception("execution_failed", kernel=self.id, execution=execution.id)
                if execution.finished is None:
                    self._worker.end(execution, Verdict("kernel_died", "the kernel host failed; see its log"))
            self._current = None
            self.last_activity = time.time()

    async def _execute(self, execution: Execution) -> None:
        request = execution.request or ExecuteRequest(code=execution.spool.meta.code)
        try:
            live = await self._quiet()
        except KernelUnavailable as error:
            verdict = Verdict("kernel_died", f"not run: {error.message}", lost_state=True)
            self._worker.end(execution, verdict)
        else:
            verdict = self._refusal(execution, request)
            if verdict:
                self._worker.end(execution, verdict)
            else:
                self.touched = True
                verdict = await self._worker.carry_out(execution, request, live)
        if verdict.status != "ok" and request.stop_on_error and not request.silent:
            self._abort(verdict)

    async def _quiet(self) -> LiveKernel:
        """Return the process once it has answered the host's questions: a signal for one of them must hit no cell.

        Raises
        ------
        KernelUnavailable
        """
        live = await self._ensure()
        while await self._questions.settled():
            live = await self._ensure()
        return live

    def _refusal(self, execution: Execution, request: ExecuteRequest) -> Verdict | None:
        """Return why an execution must not run now, after what happened while it waited."""
        if execution.id in self._interrupted:
            self._interrupted.discard(execution.id)
            return Verdict("interrupted", "not run: it was interrupted before it began")
        if request.incarnation is not None and request.incarnation != self.incarnation:
            message = "not run: the kernel that it was meant for is gone, and its variables with it"
            return Verdict("kernel_died", message, lost_state=True)
        return None

    def _abort(self, verdict: Verdict) -> None:
        """End what waits, because what ran before it did not end well."""
        status: Literal["kernel_died", "interrupted"] = "kernel_died" if verdict.lost_state else "interrupted"
        message = f"not run: an earlier execution ended as {verdict.status}"
        while self._queue:
            self._worker.end(self._queue.popleft(), Verdict(status, message, lost_state=verdict.lost_state))

    def _stop(self, reason: str) -> Run | None:
        """End what waits, and let what runs end with the process."""
        while self._queue:
            self._worker.end(self._queue.popleft(), Verdict("kernel_died", f"not run: {reason}", lost_state=True))
        if self._worker.run:
            self._worker.run.stopped = reason
        return self._worker.run
