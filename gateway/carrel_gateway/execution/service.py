"""Executions of a session: run, join, read on after a fault; and what else a session's kernel is asked for.

The gateway sends code at most once. `finished` is yielded after its commit; what is not committed when a gateway dies
is read on from the kernel host's spool, and what cannot be known any more is recorded as `outcome_unknown`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Final
from uuid import UUID

import msgspec

from carrel_gateway.artifacts.service import Artifact, ArtifactService
from carrel_gateway.context import Principal, ProcessContext
from carrel_gateway.errors import CarrelError, KernelLost, NotFound, NotYet
from carrel_gateway.execution import repository
from carrel_gateway.execution.cell import Cell, RecordedElsewhereError
from carrel_gateway.execution.hosts import SessionHosts
from carrel_gateway.execution.placement import place, remove
from carrel_gateway.execution.recorders import Recorders
from carrel_gateway.execution.subscription import Subscription
from carrel_gateway.executors.base import SessionRef
from carrel_gateway.history.service import HistoryService
from carrel_gateway.kernels.connection import MAIN
from carrel_gateway.runs.service import Fence
from carrel_gateway.sessions.service import SessionService
from carrel_gateway.snapshots.service import SnapshotService
from carrel_gateway.storage.ids import new_id
from carrel_wire.events import ExecutionEvent, Finished
from carrel_wire.host import (
    CompleteReply,
    CompleteRequest,
    ExecuteRequest,
    ExecutionState,
    InspectReply,
    InterruptReply,
    KernelInfo,
    VariablesReply,
)
from carrel_wire.log import KernelChanged

_WAKE_AGAIN_SECONDS: Final = 2
_WAKE_PAUSE_SECONDS: Final = 0.2
RESET_DRAIN_SECONDS: Final = 15.0
"""The kernel host's own ladder, from the first SIGINT to SIGKILL, takes less."""


class KernelView(msgspec.Struct, frozen=True, kw_only=True):
    """A session's kernel, as callers see it."""

    status: ExecutionState | str
    """`none` when the session has no kernel (any more), `suspended` when its state is kept; running code starts one."""
    executor: str
    busy: bool = False
    """Whether a cell runs."""
    kernel: KernelInfo | None = None
    disk_used_bytes: int = 0
    unacknowledged: int = 0


class ExecutionService:
    """Executions and the kernel, for one principal."""

    def __init__(self, context: ProcessContext, principal: Principal) -> None:
        self._context = context
        self._principal = principal
        self._recorders = Recorders(context, principal)
        self._hosts: SessionHosts = self._recorders.hosts

    async def execute(
        self,
        session_id: UUID,
        code: str,
        *,
        execution_id: UUID | None = None,
        timeout: float | None = None,  # noqa: ASYNC109  the kernel host's, which interrupts the cell
        run_id: UUID | None = None,
        fence: Fence | None = None,
        durable: bool = False,
        silent: bool = False,
    ) -> AsyncGenerator[ExecutionEvent, None]:
        """Run the code and yield its events; the last is `finished`, yielded after its commit.

        Parameters
        ----------
        timeout
            Seconds; more than the gateway's limit is cut to it.
        durable
            Commit the intent before the code is sent. The same `execution_id` again never runs the code again: it joins
            the execution, or gives its events from the history.
        silent
            Leaves no trace: not in the history, not in the kernel's counter.

        Raises
        ------
        NotFound
            No such session.
        ExecutorFailed
            No kernel could be had.
        StaleRun
            The run of `fence` is another gateway's now.
        QuotaReached
            The day has no room for another execution; nothing has run.
        """
        limit = self._context.settings.execution_timeout_seconds
        request = ExecuteRequest(
            code=code, timeout_seconds=min(timeout or limit, limit), silent=silent, store_history=not silent
        )
        session = await self._hosts.ref(session_id)
        cell = Cell(session, execution_id or new_id(), code, run_id=run_id, fence=fence, silent=silent)
        reader = await (self._durable(cell, request) if durable else self._plain(cell, request))
        try:
            while True:
                event = await reader.get()
                yield event
                if isinstance(event, Finished):
                    return
        finally:
            reader.close()

    async def ref(self, session_id: UUID) -> SessionRef:
        """Return the session as executors know it.

        Raises
        ------
        NotFound, Conflict
            There is no such session, or it is archived.
        """
        return await self._hosts.ref(session_id)

    async def awake(self, session_id: UUID, *, send_again: bool = True) -> None:
        """Wait until the session has a kernel with its state, but only for the time that the settings say.

        Parameters
        ----------
        send_again
            Whether what is asked for has still to be done, when the kernel is there.

        Raises
        ------
        NotYet
            It takes longer. It goes on without the caller, and nothing has been run.
        ExecutorFailed
            No kernel could be had.
        """
        session = await self._hosts.ref(session_id)
        held = self._context.kernels.held(session_id)
        if held and held.prepared:
            return
        seconds = self._context.settings.wake_hold_seconds
        if not await self._context.kernels.wakes.wait(session_id, lambda: self._wake(session), seconds=seconds):
            what = "nothing has run yet; send the request again" if send_again else "there is nothing left to be done"
            raise NotYet(
                f"the session's kernel is being made ready; {what}",
                code="waking",
                session_id=str(session_id),
                send_again=send_again,
                retry_after_seconds=_WAKE_AGAIN_SECONDS,
            )

    async def _wake(self, session: SessionRef) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._context.settings.kernel_start_seconds
        while True:
            try:
                await self._hosts.ready(session)
            except KernelLost:  # it went away as it came
                if loop.time() + _WAKE_PAUSE_SECONDS > deadline:
                    raise
                await asyncio.sleep(_WAKE_PAUSE_SECONDS)
            else:
                return

    async def is_known(self, execution_id: UUID) -> bool:
        """Return whether an execution of this id has begun, and so is not run again."""
        if self._context.kernels.in_flight.get(execution_id):
            return True
        tenant_id = self._principal.tenant_id
        find = self._context.database.run(tenant_id, lambda: repository.find(tenant_id, execution_id), write=False)
        return await find is not None

    async def recover(self, session_id: UUID) -> None:
        """Read on everything that a gateway left unacknowledged, and record what cannot be known any more.

        Returns when what had ended is committed; cells that still run are recorded in the background.
        """
        session = await self._hosts.ref(session_id)
        await self._recorders.recover(session)

    async def state(self, session_id: UUID) -> KernelView:
        """Return what the kernel does and uses; starts none."""
        executor = self._context.executor.name
        connection = await self._hosts.find(await self._hosts.ref(session_id))
        if connection is None:
            session = await SessionService(self._context, self._principal).get(session_id)
            return KernelView(status="suspended" if session.suspended_at else "none", executor=executor)
        try:
            state = await connection.state()
        except CarrelError:
            await self._context.kernels.forget(session_id)  # asked again next time
            return KernelView(status="starting", executor=executor)
        kernel = next((kernel for kernel in state.kernels if kernel.id == MAIN), None)
        return KernelView(
            status=kernel.execution_state if kernel else "starting",
            executor=executor,
            busy=state.busy,
            kernel=kernel,
            disk_used_bytes=state.disk_used_bytes,
            unacknowledged=len(state.unacknowledged),
        )

    async def variables(self, session_id: UUID) -> VariablesReply:
        """Return the kernel's variables; none without a kernel.

        Raises
        ------
        Conflict
            A cell is running (`kernel_busy`).
        """
        connection = await self._hosts.find(await self._hosts.ref(session_id))
        return await connection.variables() if connection else VariablesReply(variables=[])

    async def interrupt(self, session_id: UUID) -> InterruptReply:
        """Interrupt the cell that runs, if any; its outcome comes with its events."""
        connection = await self._hosts.find(await self._hosts.ref(session_id))
        return await connection.interrupt() if connection else InterruptReply(kernel_id=MAIN, was_busy=False)

    async def restart(self, session_id: UUID) -> KernelInfo:
        """Replace the kernel's process: files stay, variables go."""
        await self.awake(session_id)
        session = await self._hosts.ref(session_id)
        connection = await self._hosts.ready(session)
        kernel = await connection.restart()
        connection.incarnation = kernel.incarnation
        await self._note(session_id, KernelChanged(reason="restarted", incarnation=kernel.incarnation, lost_state=True))
        return kernel

    async def reset(self, session_id: UUID) -> KernelInfo:
        """Give the session a kernel and a workspace as new, with its uploads in it."""
        session = await self._hosts.ref(session_id)
        connection = await self._hosts.find(session)
        if connection:
            await connection.interrupt()
            await self._recorders.recover(session)
            await self._context.kernels.in_flight.wait(session_id, seconds=RESET_DRAIN_SECONDS)
        await self._context.kernels.release(session)
        async with self._context.database.transaction(self._principal.tenant_id) as tx:
            history, sessions = (
                HistoryService(self._context, self._principal),
                SessionService(self._context, self._principal),
            )
            await history.hold(tx, session_id)
            await sessions.place_state(tx, session_id, None)
            await sessions.place_host(tx, session_id, None)
            await SnapshotService(self._context, self._principal).forget(tx, session_id)
            await history.append(session_id, [KernelChanged(reason="reset", lost_state=True)], actor="user", tx=tx)
        await self.awake(session_id, send_again=False)
        state = await (await self._hosts.ready(session)).state()
        return next(kernel for kernel in state.kernels if kernel.id == MAIN)

    async def complete(self, session_id: UUID, code: str, cursor_pos: int) -> CompleteReply:
        """Return what the code at the cursor (in characters) could be completed to; starts a kernel."""
        await self.awake(session_id)
        connection = await self._hosts.ready(await self._hosts.ref(session_id))
        return await connection.complete(CompleteRequest(code=code, cursor_pos=cursor_pos))

    async def inspect(self, session_id: UUID, code: str, cursor_pos: int) -> InspectReply:
        """Return documentation of the name at the cursor (in characters); starts a kernel."""
        connection = await self._hosts.ready(await self._hosts.ref(session_id))
        return await connection.inspect(CompleteRequest(code=code, cursor_pos=cursor_pos))

    async def place_file(self, session_id: UUID, artifact: Artifact) -> None:
        """Write an upload into the workspace of a live kernel; without one it is placed when there is one."""
        connection = await self._hosts.find(await self._hosts.ref(session_id))
        if connection:
            await place(ArtifactService(self._context, self._principal), session_id, artifact.name, connection)

    async def remove_file(self, session_id: UUID, artifact: Artifact) -> None:
        """Remove an upload from the workspace of a live kernel."""
        connection = await self._hosts.find(await self._hosts.ref(session_id))
        if connection:
            await remove(artifact.name, connection)

    # ------------------------------------------------------------------ helpers

    async def _plain(self, cell: Cell, request: ExecuteRequest) -> Subscription:
        await self._count()
        return self._recorders.begin(cell, request).read()

    async def _durable(self, cell: Cell, request: ExecuteRequest) -> Subscription:
        async with self._context.kernels.execution_lock(self._principal.tenant_id, cell.execution_id):
            try:
                recording = await self._recorders.join(cell)
                if recording is None:
                    await self._count()
                    return (await self._recorders.begin_durable(cell, request)).read()
            except RecordedElsewhereError:  # between the look and the commit another gateway was given the same id
                recording = await self._recorders.join(cell)
                if recording is None:
                    raise NotFound("The execution is not there any more.") from None
            return recording

    async def _count(self) -> None:
        await self._context.quotas.count_execution(self._principal.tenant_id, self._principal.user_id)

    async def _note(self, session_id: UUID, change: KernelChanged) -> None:
        await HistoryService(self._context, self._principal).append(session_id, [change], actor="user")
