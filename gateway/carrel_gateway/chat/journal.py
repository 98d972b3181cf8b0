"""The log of one run as the agent loop sees it: `Journal` over history and runs, under the run's fence."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any
from uuid import UUID

import msgspec

from carrel_gateway.agents.protocols import LiveKind
from carrel_gateway.context import Principal, ProcessContext
from carrel_gateway.history.service import HistoryService, LiveEvent
from carrel_gateway.runs.service import Fence, Run, RunService
from carrel_wire.log import LogPayload, RunFinished, RunStarted


class RunJournal:
    """Reads what is new since the last time, so that a long run does not read its beginning again and again."""

    def __init__(
        self,
        context: ProcessContext,
        principal: Principal,
        run: Run,
        cancelled: asyncio.Event,
        begun: Callable[[Run | None], None],
    ) -> None:
        self._history = HistoryService(context, principal)
        self._runs = RunService(context, principal)
        self._session_id = run.session_id
        self._run_id: UUID = run.id
        self._fence = Fence(run_id=run.id, generation=run.generation)
        self._cancelled = cancelled
        self._begun = begun
        self._read_to = 0
        self._events: list[LogPayload] = []
        self._live_count = 0

    async def append(self, payloads: Sequence[LogPayload]) -> None:
        """Commit the payloads in order; raises `StaleRun` when another gateway has taken the run over."""
        await self._history.append(self._session_id, payloads, actor="agent", fence=self._fence)

    async def events_of_run(self) -> Sequence[LogPayload]:
        """Return the session's events from `run.started` on."""
        while page := await self._history.events(self._session_id, after=self._read_to):
            for event in page:
                self._read_to = event.seq
                if self._events or self._begins(event.payload):
                    self._events.append(event.payload)
        return self._events

    def _begins(self, payload: LogPayload) -> bool:
        return isinstance(payload, RunStarted) and payload.run_id == self._run_id

    async def live(self, kind: LiveKind, data: dict[str, Any]) -> None:
        """Show something that is not committed; may be lost."""
        self._live_count += 1
        data = msgspec.to_builtins({"run_id": self._run_id, **data})
        event = LiveEvent(type=kind, id=f"{self._run_id}.{self._live_count}", data=data)
        await self._history.publish_live(self._session_id, event)

    async def is_cancel_requested(self) -> bool:
        """Return whether someone asked to stop the run."""
        return self._cancelled.is_set()

    async def finish(self, payload: RunFinished) -> None:
        """Commit the end of the run and give it up; the run that waited for it has begun by then."""
        self._begun(await self._runs.finish(self._session_id, self._fence, payload))
