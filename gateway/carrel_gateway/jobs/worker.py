"""Does jobs: takes those that are due, keeps their leases, says how they ended, and gives them back when it ends.

A job is one task under one fence. Whoever adds jobs tells it over the bus; what is missed is found by looking again.
What a job does is its kind's.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal
from uuid import UUID

import structlog

from carrel_gateway.context import ProcessContext
from carrel_gateway.errors import CarrelError, StaleJob, Unavailable
from carrel_gateway.jobs import metrics, repository, service
from carrel_gateway.jobs.model import Fence, Job, Kind, Outcome, by_name, fence_of, wait_seconds
from carrel_gateway.storage.bus import BusOverflow

LATE_SECONDS: Final = 300.0
"""Jobs that wait for longer are too many for the gateways that there are, or none of them gets to work."""
_STOP_SECONDS: Final = 5.0
"""Work that does not end for so long after it was stopped is left alone; its fence keeps out what it still says."""
_SHORTEST_WAIT: Final = 0.05
"""What is due and cannot be taken is being taken by another gateway just now."""
_UNSEEN_LOOKS: Final = 6

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Held:
    """A job that this process works on."""

    job: Job
    why: Literal["cancelled", "lost"] | None = None
    """Why it is stopped, when it is."""
    work: asyncio.Task[Mapping[str, Any] | None] | None = None
    result: Mapping[str, Any] | None = None
    task: asyncio.Task[None] | None = None

    @property
    def fence(self) -> Fence:
        return fence_of(self.job)

    def stop(self, why: Literal["cancelled", "lost"]) -> None:
        """Stop the work; its task says how it ended."""
        self.why = why
        if self.work:
            self.work.cancel()


@dataclass(frozen=True, slots=True)
class _Failure:
    """Why an attempt failed, for whoever looks at the job."""

    code: str
    message: str


class JobWorker:
    """The jobs of one gateway process.

    Parameters
    ----------
    tick
        Called with the database's time whenever that is known.
    draw
        Gives numbers from 0 to 1, for how long a job waits that failed.
    """

    def __init__(
        self,
        context: ProcessContext,
        kinds: Sequence[Kind],
        *,
        tick: Callable[[datetime], Awaitable[None]] | None = None,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._context = context
        self._kinds = by_name(kinds)
        self._tick = tick
        self._draw = draw
        self._held: dict[UUID, _Held] = {}
        self._background: list[asyncio.Task[None]] = []
        self._wake = asyncio.Event()
        self._closing = False
        self._looked = time.monotonic()
        self._measured = 0.0
        self._late = 0.0

    def start(self) -> None:
        """Look for jobs from now on."""
        self._background = [
            asyncio.create_task(self._look_for_ever(), name="look-for-jobs"),
            asyncio.create_task(self._hear(), name="hear-of-jobs"),
            asyncio.create_task(self._renew_for_ever(), name="renew-jobs"),
        ]

    async def aclose(self) -> None:
        """Stop working, and give the jobs back: another gateway goes on at once. Idempotent."""
        if self._closing:
            return
        self._closing = True
        self._wake.set()
        if self._background:  # what is being taken just now is given back, too
            await asyncio.wait(self._background[:1], timeout=_STOP_SECONDS)
        await _stop([*self._background, *(held.task for held in self._held.values() if held.task)])
        for held in list(self._held.values()):
            try:
                await service.put_back(self._context, held.fence)
                _count(held.job, "handed_back")
            except CarrelError as error:
                _log.warning("job_not_handed_back", job_id=str(held.job.id), code=error.code)
        self._held.clear()
        metrics.RUNNING.set(0)

    async def ping(self) -> None:
        """Check that jobs are looked for, and that none waits for long.

        Raises
        ------
        Unavailable
            They are not, or one does.
        """
        unseen = time.monotonic() - self._looked
        if unseen > _UNSEEN_LOOKS * self._context.settings.jobs_poll_seconds:
            raise Unavailable(f"No job was looked for in {unseen:.0f} s; the server's log says why.")
        if self._late > LATE_SECONDS:
            raise Unavailable(
                f"Jobs wait for {self._late:.0f} s; more gateways or a larger CARREL_JOBS_CONCURRENCY do them sooner."
            )

    # ------------------------------------------------------------------ looking

    async def _look_for_ever(self) -> None:
        while not self._closing:
            wait = self._context.settings.jobs_poll_seconds
            self._wake.clear()
            try:
                wait = min(wait, await self._look())
                self._looked = time.monotonic()
            except CarrelError as error:
                _log.warning("jobs_not_looked_for", code=error.code)
            except Exception:  # noqa: BLE001 - the next look must come
                _log.exception("jobs_not_looked_for")
            if self._closing:
                return
            with suppress(TimeoutError):
                async with asyncio.timeout(wait):  # `wait_for` of Python 3.11 may swallow the end of this task
                    await self._wake.wait()

    async def _look(self) -> float:
        """Take as many jobs as there is room for, and return for how many seconds there is nothing to take."""
        settings, database = self._context.settings, self._context.database
        free, taken = settings.jobs_concurrency - len(self._held), list[Job]()
        if free > 0:
            async with database.worker_transaction(write=True) as connection:
                taken = await repository.claim(
                    connection,
                    database.dialect,
                    self._context.gateway_id,
                    kinds=self._kinds.keys(),
                    limit=free,
                    lease_seconds=settings.job_lease_seconds,
                )
            for job in taken:
                self._begin(job)
        if len(taken) < free or time.monotonic() - self._measured > settings.jobs_poll_seconds:
            return await self._measure()
        return settings.jobs_poll_seconds  # the end of a job wakes it

    async def _measure(self) -> float:
        async with self._context.database.worker_transaction() as connection:
            due_at, now = await repository.horizon(connection, self._context.database.dialect, self._kinds.keys())
        self._measured = time.monotonic()
        self._late = max(0.0, (now - due_at).total_seconds()) if due_at else 0.0
        metrics.LATE_SECONDS.set(self._late)
        if self._tick:
            await self._tick(now)
        if due_at is None or len(self._held) >= self._context.settings.jobs_concurrency:
            return self._context.settings.jobs_poll_seconds
        return max(_SHORTEST_WAIT, (due_at - now).total_seconds())

    async def _hear(self) -> None:
        while True:
            try:
                async with self._context.bus.subscribe(service.CHANNEL) as news:
                    while True:
                        try:
                            self._heard(await anext(news))
                        except BusOverflow:
                            self._wake.set()
            except Exception:  # noqa: BLE001 - hearing must go on
                _log.exception("jobs_not_heard_of")  # they are in the database: without the bus they only come later
            await asyncio.sleep(1)

    def _heard(self, data: bytes) -> None:
        if data == service.WAKE:
            self._wake.set()
        elif len(data) == 16 and (held := self._held.get(UUID(bytes=data))):
            held.stop("cancelled")

    async def _renew_for_ever(self) -> None:
        while True:
            await asyncio.sleep(self._context.settings.job_lease_seconds / 3)
            try:
                await self._renew()
            except CarrelError as error:
                # The database may come back before the leases are over; when it does not, the fences keep order.
                _log.warning("jobs_not_renewed", code=error.code)
            except Exception:  # noqa: BLE001 - the next renewal must come
                _log.exception("jobs_not_renewed")

    async def _renew(self) -> None:
        asked = dict(self._held)
        if not asked:
            return
        database = self._context.database
        async with database.worker_transaction(write=True) as connection:
            renewed = await repository.renew(
                connection,
                database.dialect,
                self._context.gateway_id,
                list(asked),
                lease_seconds=self._context.settings.job_lease_seconds,
            )
        found = {item.fence: item for item in renewed}
        for held in asked.values():
            item = found.get(held.fence)
            if item is None:
                held.stop("lost")
            elif item.cancel_requested:
                held.stop("cancelled")

    # ------------------------------------------------------------------ one job

    def _begin(self, job: Job) -> None:
        before = self._held.get(job.id)
        if before is not None:  # its lease ran out, and this process has taken it again
            before.stop("lost")
        held = self._held[job.id] = _Held(job)
        metrics.RUNNING.set(len(self._held))
        if not self._closing:
            held.task = asyncio.create_task(self._drive(held), name=f"job-{job.id}")

    async def _drive(self, held: _Held) -> None:
        job, started = held.job, time.monotonic()
        bound = {"job_id": str(job.id), "job_kind": job.kind, "tenant": str(job.tenant_id), "attempt": job.attempts}
        if job.request_id:
            bound["request_id"] = job.request_id
        with structlog.contextvars.bound_contextvars(**bound):
            try:
                outcome = await self._outcome(held)
            except StaleJob:
                outcome = "lost"
            except CarrelError as error:  # the lease runs out, and it is done again
                _log.warning("job_not_settled", code=error.code)
                outcome = "lost"
            except Exception:  # noqa: BLE001 - as above; a job that stayed held would be renewed for ever
                _log.exception("job_not_settled")
                outcome = "lost"
            _count(job, outcome)
            metrics.SECONDS.labels(job.kind).observe(time.monotonic() - started)
            seconds = round(time.monotonic() - started, 3)
            _log.info("job_ended", outcome=outcome, seconds=seconds, result=held.result)
        if self._held.get(job.id) is held:
            del self._held[job.id]
        metrics.RUNNING.set(len(self._held))
        self._wake.set()

    async def _outcome(self, held: _Held) -> Outcome:
        """Work on a job, and settle how it went."""
        job = held.job
        if job.cancel_requested:
            return await self._cancelled(held)
        if job.attempts > job.max_attempts:
            abandoned = _Failure("job_abandoned", "each gateway that worked on it went away before it was done")
            return await self._failed(held, abandoned)
        came = await self._attempt(held)
        if held.why == "lost":
            return "lost"
        if isinstance(came, _Failure):
            return await (self._cancelled(held) if held.why == "cancelled" else self._failed(held, came))
        held.result = came
        await service.settle(self._context, held.fence, "succeeded", result=came, error_code=None, error=None)
        return "succeeded"

    async def _attempt(self, held: _Held) -> dict[str, Any] | _Failure:
        """Do the work, and return what is to be kept of it, or why it failed."""
        kind = self._kinds[held.job.kind]
        held.work = work = asyncio.create_task(_call(kind, held.job), name=f"work-{held.job.id}")
        if held.why:
            work.cancel()
        try:
            await asyncio.wait({work}, timeout=kind.timeout_seconds)
            if not work.done():
                return _Failure("job_timeout", f"it was not done after {kind.timeout_seconds:g} s")
            return dict(work.result() or {})
        except asyncio.CancelledError:
            if not work.cancelled():  # it is this process that ends
                raise
            return _Failure("job_stopped", "it was stopped")
        except CarrelError as error:
            _log.warning("job_failed", code=error.code, message=error.message)
            return _Failure(error.code, error.message)
        except Exception:  # noqa: BLE001 - whatever it was, the job must be tried again or be dead
            _log.exception("job_failed")
            return _Failure("internal", "something went wrong here; the server's log has it")
        finally:
            if not work.done():
                work.cancel()
                await asyncio.wait({work}, timeout=_STOP_SECONDS)

    async def _cancelled(self, held: _Held) -> Outcome:
        await service.settle(self._context, held.fence, "cancelled")
        return "cancelled"

    async def _failed(self, held: _Held, failure: _Failure) -> Outcome:
        """Have a job tried again later, or bury it after its last attempt."""
        job, said = held.job, {"error_code": failure.code[:64], "error": failure.message}
        if job.attempts >= job.max_attempts:
            await service.settle(self._context, held.fence, "dead", **said)
            _log.error("job_dead", code=failure.code)
            return "dead"
        wait = wait_seconds(job.attempts, self._draw())
        await service.try_later(self._context, held.fence, wait, **said)
        return "retried"


async def _call(kind: Kind, job: Job) -> Mapping[str, Any] | None:
    return await kind.work(job)


def _count(job: Job, outcome: Outcome) -> None:
    metrics.FINISHED.labels(job.kind, outcome).inc()


async def _stop(tasks: Sequence[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    for task in tasks:
        with suppress(asyncio.CancelledError, Exception):
            await task
