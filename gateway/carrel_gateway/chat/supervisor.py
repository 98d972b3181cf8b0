"""Drives runs in the background: leases, cancelling, taking over what a dead gateway left, handing over at the end.

A run belongs to the log, not to a request: who asked may go away. Each run here is one task under one fence; when the
lease is lost, the task stops and another gateway goes on from the log. Deciding what a run does is the agent loop's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

import structlog

from carrel_gateway import metrics
from carrel_gateway.agents.loop import AgentLoop
from carrel_gateway.agents.models.registry import ModelRegistry
from carrel_gateway.chat.journal import RunJournal
from carrel_gateway.chat.preparation import prepare
from carrel_gateway.chat.runner import SessionCodeRunner
from carrel_gateway.context import Principal, ProcessContext
from carrel_gateway.errors import CarrelError, StaleRun
from carrel_gateway.execution.service import ExecutionService
from carrel_gateway.provider_keys.service import ProviderKeyService
from carrel_gateway.runs.service import Fence, Run, RunService, claim_expired
from carrel_gateway.storage.bus import BusOverflow
from carrel_wire.log import RunFinished

CANCEL_CHANNEL: Final = "runs.cancel"
_LOOK_SECONDS: Final = 0.2
"""A cancelled run may be about to begin a cell."""
_INTERRUPT_AGAIN_SECONDS: Final = 30.0
"""The kernel host's own ladder takes less; asking more often would only disturb it."""

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Driven:
    """A run that this process drives."""

    principal: Principal
    run: Run
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None

    @property
    def fence(self) -> Fence:
        return Fence(run_id=self.run.id, generation=self.run.generation)


class RunSupervisor:
    """The runs of one gateway process."""

    def __init__(self, context: ProcessContext, models: ModelRegistry) -> None:
        self._context = context
        self._models = models
        self._driven: dict[UUID, _Driven] = {}
        self._background: list[asyncio.Task[None]] = []
        self._closing = False

    async def start(self) -> None:
        """Take over the runs whose owner is gone, and look for more from now on."""
        await self._claim()
        self._background = [
            asyncio.create_task(self._claim_for_ever(), name="claim-runs"),
            asyncio.create_task(self._hear_cancels(), name="hear-cancels"),
        ]

    async def require_usable(self, principal: Principal, model: str) -> None:
        """Raise when a run of the caller's with this model could not begin: unknown name, or no key for it."""
        key = await ProviderKeyService(self._context, principal).key_for(model)
        self._models.require(model, has_key=key is not None)

    def launch(self, principal: Principal, run: Run) -> None:
        """Drive a run from the state its log is in; one that comes when this process ends is handed over."""
        before = self._driven.get(run.id)
        if before is not None:
            if before.run.generation >= run.generation:
                return
            if before.task:  # its lease ran out: it may not write any more
                before.task.cancel()
        driven = _Driven(principal, run)
        if not self._closing:
            driven.task = asyncio.create_task(self._drive(driven), name=f"run-{run.id}")
        self._driven[run.id] = driven
        metrics.runs_active.set(len(self._driven))

    async def announce_cancel(self, run_id: UUID) -> None:
        """Tell the process that drives this run, whichever it is, to stop it now."""
        self._cancel_here(run_id)
        await self._context.bus.publish(CANCEL_CHANNEL, run_id.bytes)

    async def aclose(self) -> None:
        """Stop driving; the runs are not over, and whoever comes next goes on with them. Idempotent."""
        if self._closing:
            return
        self._closing = True
        driven = dict(self._driven)
        await _stop([*self._background, *(item.task for item in driven.values() if item.task)])
        driven |= self._driven  # with what one of them began as it ended
        for item in driven.values():
            try:
                await RunService(self._context, item.principal).hand_over(item.fence)
            except CarrelError as error:
                _log.warning("run not handed over", run_id=str(item.run.id), code=error.code)

    # one run

    async def _drive(self, driven: _Driven) -> None:
        run_id = str(driven.run.id)
        with structlog.contextvars.bound_contextvars(run_id=run_id, session_id=str(driven.run.session_id)):
            try:
                await self._drive_to_end(driven)
            except StaleRun:
                _log.warning("run taken over by another gateway")
            except Exception as error:  # noqa: BLE001 - whatever it was, the run must end with a reason
                _log.exception("run failed")
                await self._fail(driven, error)
            finally:
                if self._driven.get(driven.run.id) is driven:
                    del self._driven[driven.run.id]
                metrics.runs_active.set(len(self._driven))

    async def _drive_to_end(self, driven: _Driven) -> None:
        """Work on the run for as long as the lease is held; finding out what a dead gateway left takes its time too."""
        work = asyncio.create_task(self._work(driven), name=f"loop-{driven.run.id}")
        lease = asyncio.create_task(self._hold_lease(driven), name=f"lease-{driven.run.id}")
        try:
            await asyncio.wait({work, lease}, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                metrics.runs_finished.labels((await work).status).inc()
            else:
                await lease  # it ends only by raising: the run is another gateway's now
        finally:
            await _stop([work, lease])

    async def _work(self, driven: _Driven) -> RunFinished:
        context, principal, run = self._context, driven.principal, driven.run
        if run.generation > 1:
            await ExecutionService(context, principal).recover(run.session_id)
        prepared = await prepare(context, principal, run, self._models)
        runner = SessionCodeRunner(context, principal, run, cell_timeout_seconds=prepared.cell_timeout_seconds)
        loop = AgentLoop(
            prepared.run,
            journal=RunJournal(context, principal, run, driven.cancelled, lambda begun: self._go_on(driven, begun)),
            runner=runner,
            model=prepared.model,
            limits=prepared.limits,
        )
        interrupts = asyncio.create_task(_interrupt_when_cancelled(driven, runner), name=f"interrupts-{run.id}")
        try:
            return await loop.run()
        finally:
            await _stop([interrupts])

    async def _hold_lease(self, driven: _Driven) -> None:
        runs = RunService(self._context, driven.principal)
        while True:
            await asyncio.sleep(self._context.settings.run_lease_seconds / 3)
            try:
                await runs.renew(driven.fence)
                if await runs.is_cancel_requested(driven.fence):
                    driven.cancelled.set()
            except StaleRun:
                raise
            except CarrelError as error:
                # The database may come back before the lease is over; when it does not, the fence protects the log.
                _log.warning("lease not renewed", code=error.code)

    async def _fail(self, driven: _Driven, error: Exception) -> None:
        known = isinstance(error, CarrelError)
        await self._finish(
            driven,
            RunFinished(
                run_id=driven.run.id,
                status="failed",
                code=error.code if known else "internal",
                message=error.message if known else "something went wrong here; the server's log has it",
            ),
        )

    async def _finish(self, driven: _Driven, payload: RunFinished) -> None:
        try:
            runs = RunService(self._context, driven.principal)
            self._go_on(driven, await runs.finish(driven.run.session_id, driven.fence, payload))
        except CarrelError as error:
            # Finished already, taken over, or the database is away: then the lease runs out and the run is resumed.
            _log.warning("run not finished", code=error.code)

    def _go_on(self, driven: _Driven, begun: Run | None) -> None:
        """Drive the run that waited for the end of another one. Were this missed, its lease would run out."""
        if begun is not None:
            self.launch(Principal(tenant_id=driven.principal.tenant_id, user_id=begun.user_id), begun)

    # all runs

    async def _claim(self) -> None:
        for principal, run in await claim_expired(self._context):
            metrics.runs_taken_over.inc()
            _log.info("run taken over", run_id=str(run.id), generation=run.generation)
            self.launch(principal, run)

    async def _claim_for_ever(self) -> None:
        while True:
            await asyncio.sleep(self._context.settings.run_lease_seconds / 2)
            try:
                await self._claim()
            except CarrelError as error:
                _log.warning("expired runs not looked for", code=error.code)
            except Exception:  # noqa: BLE001 - the next look must come
                _log.exception("expired runs not looked for")

    async def _hear_cancels(self) -> None:
        while True:
            try:
                async with self._context.bus.subscribe(CANCEL_CHANNEL) as messages:
                    while True:
                        with suppress(BusOverflow):  # a lost cancel is seen at the next renewal of the lease
                            data = await anext(messages)
                            if len(data) == 16:
                                self._cancel_here(UUID(bytes=data))
            except Exception:  # noqa: BLE001 - hearing must go on
                # Cancels are in the database too: without the bus they only come later.
                _log.exception("cancels not heard over the bus")
            await asyncio.sleep(1)

    def _cancel_here(self, run_id: UUID) -> None:
        driven = self._driven.get(run_id)
        if driven is not None:
            driven.cancelled.set()


async def _interrupt_when_cancelled(driven: _Driven, runner: SessionCodeRunner) -> None:
    """Interrupt the cell that is going on when the run is cancelled; the loop itself sees the rest."""
    await driven.cancelled.wait()
    while True:
        if runner.executing:
            try:
                await runner.interrupt()
            except CarrelError as error:
                _log.warning("cell not interrupted", code=error.code)
            await asyncio.sleep(_INTERRUPT_AGAIN_SECONDS)
        await asyncio.sleep(_LOOK_SECONDS)


async def _stop(tasks: Sequence[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    for task in tasks:
        with suppress(asyncio.CancelledError, Exception):
            await task
