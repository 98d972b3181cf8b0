"""Carries one execution out on a live kernel: sends the code, watches time, memory and death, and tells the end.

The queue, and which process it is, are `kernel`'s.
"""

from __future__ import annotations

import asyncio
from typing import Final

import structlog

from carrel_kernel import limits
from carrel_kernel.caps import CHECK_BYTES, DiskWatch, Meter, Overflow
from carrel_kernel.executions import Execution
from carrel_kernel.ladder import Ladder, Reason
from carrel_kernel.live import LAST_OUTPUT_SECONDS, LiveKernel
from carrel_kernel.outcome import Verdict, judge
from carrel_kernel.outputs import Outputs
from carrel_kernel.run import Run, execute_content
from carrel_kernel.surroundings import Surroundings
from carrel_wire.events import Finished
from carrel_wire.host import ExecuteRequest

_POLL_SECONDS: Final = 0.2

_log = structlog.get_logger(__name__)


class Worker:
    """The one place of a kernel where an execution runs."""

    def __init__(self, kernel_id: str, around: Surroundings) -> None:
        self.run: Run | None = None
        self.peak_memory_bytes = 0
        self._kernel_id = kernel_id
        self._around = around

    async def carry_out(self, execution: Execution, request: ExecuteRequest, live: LiveKernel) -> Verdict:
        """Have the process run the code, and return how it ended when all of that has been told."""
        around = self._around
        path, may_write = around.workspace.overflow_path(execution.id), around.workspace.may_write
        outputs = Outputs(
            execution,
            Overflow(f"{around.workspace.root}/{path}", around.caps.overflow_bytes, may_write),
            Meter(around.caps, around.allowance),
            DiskWatch(may_write, free_bytes=CHECK_BYTES),
            overflow_path=path,
        )
        run = Run(execution, outputs, kernel_id=self._kernel_id, incarnation=live.incarnation, family=live.family)
        self.run = run
        try:
            live.send("shell", "execute_request", execute_content(request), execution.id)
            await self._watch(run, live, request.timeout_seconds)
            if live.death.done():
                await asyncio.sleep(LAST_OUTPUT_SECONDS)
                live.connection.drain_now()
                if not live.busy_with:  # it worked for nobody else, and had no time to say for whom it did
                    run.on_busy()
            return await self._conclude(run, live)
        finally:
            run.close()
            self.run = None
            if not run.done.done():
                run.done.set_result(None)
            if live.death.done():
                live.close()

    async def _watch(self, run: Run, live: LiveKernel, timeout_seconds: float | None) -> None:
        waited = (run.done, live.death)
        while not run.done.done() and not live.death.done():
            wait = _POLL_SECONDS
            if timeout_seconds is not None and not run.ladder:
                wait = min(wait, max(0.0, timeout_seconds - run.wall_seconds))
            done, _ = await asyncio.wait(waited, timeout=wait, return_when=asyncio.FIRST_COMPLETED)
            if not done:
                run.measure()
                self.check_memory(live, limits.resident_bytes(live.process.pid))
                if timeout_seconds is not None:
                    seconds = run.limited_seconds(others=live.has_clients and bool(live.busy_with))
                    if seconds >= timeout_seconds:
                        self.climb(live, "timeout")

    def climb(self, live: LiveKernel, reason: Reason) -> None:
        """Begin to interrupt what runs, unless that has begun already."""
        if self.run and self.run.ladder is None:
            self.run.ladder = Ladder(live.signal, reason, self._around.metrics, self._kernel_id)

    async def _conclude(self, run: Run, live: LiveKernel) -> Verdict:
        """Emit what is left: held output, artifacts, and the end."""
        if run.ladder:
            run.ladder.stop()
        wall = run.wall_seconds
        run.measure()
        died = live.death.done()
        verdict = judge(
            run.seen(
                exit_code=live.death.result() if died else None,
                over_limit=live.over_limit,
                out_of_memory_kill=died and live.killed_for_memory(),
                memory_limit_bytes=self._around.binding.memory_limit_bytes,
                container_limit_bytes=self._container_limit(live),
            )
        )
        verdict = await self._keep_usable(live, verdict)
        execution = run.execution
        run.outputs.close()
        if reason := run.outputs.meter.reason:
            self._around.metrics.truncated.labels(reason).inc()
        request = execution.request
        if request is None or not request.silent:
            for artifact in await self._around.workspace.artifacts(execution.flush):
                execution.emit(artifact.event(execution.next_n))
        self.peak_memory_bytes = max(self.peak_memory_bytes, run.peak_memory_bytes)
        self.end(execution, verdict, run=run, wall=wall)
        return verdict

    def _container_limit(self, live: LiveKernel) -> int | None:
        """Return the container's limit when it may have been met."""
        met = live.death.done() or live.over_limit is not None
        return self._around.place.container.limit_bytes() if met else None

    async def _keep_usable(self, live: LiveKernel, verdict: Verdict) -> Verdict:
        """See to it that something can run after this, at the price of the process if need be."""
        if verdict.lost_state:
            return verdict
        if verdict.status != "out_of_memory":
            live.reserve.after_cell()
            return verdict
        if live.reserve.after_memory_error():
            return verdict
        live.kill()
        await asyncio.wait((live.death,))  # nothing must be sent to it any more
        message = f"{verdict.message}; nothing could run beside what it holds, so the kernel was replaced"
        return Verdict("out_of_memory", message, lost_state=True)

    def end(self, execution: Execution, verdict: Verdict, *, run: Run | None = None, wall: float = 0.0) -> None:
        """Tell the end of an execution, with what was measured when it ran."""
        execution.finish(
            Finished(
                n=execution.next_n,
                status=verdict.status,
                wall_seconds=round(wall, 6),
                execution_count=run.execution_count if run else None,
                cpu_seconds=run.cpu_seconds() if run else None,
                peak_memory_bytes=(run.peak_memory_bytes or None) if run else None,
                bytes_out=run.outputs.meter.bytes_out if run else 0,
                message=verdict.message,
                lost_state=verdict.lost_state,
            )
        )
        metrics = self._around.metrics
        metrics.executions.labels(verdict.status).inc()
        metrics.output_bytes.inc(execution.spool.size)
        if run:
            metrics.execution_seconds.observe(wall)

    def check_memory(self, live: LiveKernel, used_bytes: int) -> None:
        """Kill a process that, with those below it, uses more than the limit in spite of `RLIMIT_DATA`."""
        if self.run:
            self.run.saw_memory(used_bytes)
        limit = self._around.binding.memory_limit_bytes
        if limit is not None and used_bytes > limit:
            _log.warning("kernel_over_memory_limit", kernel=self._kernel_id)
            live.kill("kernel")
