"""Runs the agent's cells in the session's kernel: `CodeRunner` over the execution service."""

from __future__ import annotations

from contextlib import aclosing
from uuid import UUID

from carrel_gateway.agents.protocols import CellOutcome
from carrel_gateway.context import Principal, ProcessContext
from carrel_gateway.errors import Unavailable
from carrel_gateway.execution.service import ExecutionService
from carrel_gateway.runs.service import Fence, Run
from carrel_wire.events import Finished


class SessionCodeRunner:
    """One run's hands on the kernel; knows whether a cell is going on, so that a cancel can interrupt it."""

    def __init__(
        self, context: ProcessContext, principal: Principal, run: Run, *, cell_timeout_seconds: float | None
    ) -> None:
        self._executions = ExecutionService(context, principal)
        self._session_id = run.session_id
        self._run_id = run.id
        self._fence = Fence(run_id=run.id, generation=run.generation)
        self._timeout = cell_timeout_seconds
        self.executing = False

    async def run(self, code: str, *, execution_id: UUID) -> CellOutcome:
        """Run the code at most once under this id; see `CodeRunner`."""
        self.executing = True
        try:
            return await self._run(code, execution_id)
        finally:
            self.executing = False

    async def _run(self, code: str, execution_id: UUID) -> CellOutcome:
        events = self._executions.execute(
            self._session_id,
            code,
            execution_id=execution_id,
            timeout=self._timeout,
            run_id=self._run_id,
            fence=self._fence,
            durable=True,
        )
        async with aclosing(events):
            async for event in events:
                if isinstance(event, Finished):
                    return CellOutcome(status=event.status, message=event.message)
        raise Unavailable("the cell's outcome is not known yet; the run goes on when its kernel host answers")

    async def interrupt(self) -> None:
        """Stop the cell that is going on; its outcome comes as usual."""
        await self._executions.interrupt(self._session_id)
