"""The agent loop: reads the log, decides, acts, appends; again until the run is finished.

Holds nothing between two actions that is not in the log, so it may be killed anywhere and another process goes on with
the same `RunContext`. What that means for each action: a reply that is in the log is never asked for again; a cell is
asked for by the same execution id and so runs at most once; an answer is written at most once. Renewing the lease,
claiming runs and handing them over belong to whoever runs the loop.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

import structlog
import uuid_utils

from carrel_gateway.agents.decide import (
    Action,
    CallModel,
    Finish,
    GiveAnswer,
    Limits,
    RecordPlan,
    RunCode,
    decide,
    review,
)
from carrel_gateway.agents.protocols import (
    AgentView,
    CodeRunner,
    Journal,
    LiveKind,
    ModelClient,
    RunContext,
    Usage,
)
from carrel_gateway.agents.state import RunState, fold
from carrel_gateway.agents.tags import Part, PartKind, TagParser
from carrel_gateway.errors import CarrelError, StaleRun
from carrel_wire.log import AssistantMessage, ModelCalled, PlanMade, RunFinished

log = structlog.get_logger(__name__)

_LIVE_KINDS: Final[dict[PartKind, LiveKind]] = {
    "answer": "text.delta",
    "code": "code.delta",
    "plan": "plan.delta",
    "thought": "thought.delta",
}
_CANCEL_POLL_SECONDS: Final = 0.5
"""How long a request to stop may go unseen while a model is silent."""


class _Cancelled(Exception):
    pass


class _OutOfTime(Exception):
    pass


def _utc_now() -> datetime:
    return datetime.now(UTC)


class AgentLoop:
    """Carries one run to its end."""

    def __init__(
        self,
        context: RunContext,
        *,
        journal: Journal,
        runner: CodeRunner,
        model: ModelClient,
        limits: Limits,
        now: Callable[[], datetime] = _utc_now,
    ) -> None:
        self._context = context
        self._journal = journal
        self._runner = runner
        self._model = model
        self._limits = limits
        self._now = now
        self._started_at = context.started_at or now()

    async def run(self) -> RunFinished:
        """Go on from where the log stands until the run is finished; return its end.

        Raises
        ------
        StaleRun
            Another gateway has taken the run over; it is its business now.
        """
        while True:
            state = fold(self._context.run_id, await self._journal.events_of_run())
            if state.finished:
                return state.finished
            try:
                await self._act(state, await self._next(state))
            except StaleRun:
                raise
            except _Cancelled:
                await self._finish(Finish("cancelled", "cancelled", "Stopped on request."))
            except _OutOfTime:
                await self._finish(self._time_limit())
            except CarrelError as error:
                log.warning("run_failed", run_id=str(self._context.run_id), code=error.code)
                await self._finish(Finish("failed", error.code, error.message))

    async def _next(self, state: RunState) -> Action:
        """Return what to do, with the two limits that are not in the log: a request to stop, and time."""
        action = decide(state, self._limits)
        if state.answered:
            return action
        if await self._journal.is_cancel_requested():
            raise _Cancelled
        if isinstance(action, CallModel | RunCode) and self._seconds_left() <= 0:
            raise _OutOfTime
        return action

    async def _act(self, state: RunState, action: Action) -> None:
        match action:
            case CallModel():
                await self._call_model(state, action)
            case RecordPlan(steps=steps):
                await self._journal.append([PlanMade(run_id=self._context.run_id, steps=list(steps))])
            case RunCode(code=code, execution_id=execution_id):
                await self._runner.run(code, execution_id=execution_id)
            case GiveAnswer(text=text):
                await self._journal.append([self._message(state, text)])
            case Finish():
                await self._finish(action)

    def _message(self, state: RunState, text: str) -> AssistantMessage:
        return AssistantMessage(
            message_id=UUID(bytes=uuid_utils.uuid7().bytes),
            content=text,
            run_id=self._context.run_id,
            artifact_ids=state.artifact_ids,
        )

    async def _finish(self, end: Finish) -> None:
        await self._journal.finish(
            RunFinished(run_id=self._context.run_id, status=end.status, code=end.code, message=end.message)
        )

    def _seconds_left(self) -> float:
        return self._limits.timeout_seconds - (self._now() - self._started_at).total_seconds()

    def _time_limit(self) -> Finish:
        return Finish("failed", "time_limit", f"No answer within {self._limits.timeout_seconds:g} seconds.")

    # the model

    async def _call_model(self, state: RunState, action: CallModel) -> None:
        seen = review(state, self._limits)
        view = AgentView(
            question=self._context.question,
            files=self._context.files,
            turns=self._context.turns,
            exchanges=tuple(seen.exchanges),
            plan=seen.plan,
            instructions=self._context.instructions,
            purpose=action.purpose,
        )
        began = time.monotonic()
        text, usage = await self._watched(self._stream(view, len(state.rounds)))
        called = ModelCalled(
            run_id=self._context.run_id,
            model=usage.model or self._model.name,
            purpose=action.purpose,
            text=text,
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
            cost=usage.cost,
            duration_seconds=round(time.monotonic() - began, 3),
            finish_reason=usage.finish_reason,
        )
        await self._journal.append([called])

    async def _stream(self, view: AgentView, round_number: int) -> tuple[str, Usage]:
        parser, texts, usage = TagParser(), list[str](), Usage()
        async for chunk in self._model.stream(view):
            texts.append(chunk.text)
            usage = chunk.usage or usage
            await self._show(parser.feed(chunk.text), round_number)
        await self._show(parser.close(), round_number)
        return "".join(texts), usage

    async def _show(self, parts: list[Part], round_number: int) -> None:
        for part in parts:
            if part.text:
                await self._journal.live(_LIVE_KINDS[part.kind], {"round": round_number, "text": part.text})

    async def _watched(self, call: Awaitable[tuple[str, Usage]]) -> tuple[str, Usage]:
        """Await the call, and give it up on a request to stop or at the limit of time."""
        task = asyncio.ensure_future(call)
        try:
            while True:
                left = self._seconds_left()
                if left <= 0:
                    raise _OutOfTime
                done, _ = await asyncio.wait({task}, timeout=min(left, _CANCEL_POLL_SECONDS))
                if done:
                    return task.result()
                if await self._journal.is_cancel_requested():
                    raise _Cancelled
        finally:
            if not task.done():
                task.cancel()
                await asyncio.wait({task})
