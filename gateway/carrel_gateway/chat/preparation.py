"""What a run needs before its loop begins: the question, the files, the earlier turns, the model and the limits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from carrel_gateway.agents.decide import Limits
from carrel_gateway.agents.models.registry import ModelRegistry
from carrel_gateway.agents.protocols import FileView, ModelClient, RunContext, Turn
from carrel_gateway.artifacts.service import ArtifactService
from carrel_gateway.config.service import effective
from carrel_gateway.context import Principal, ProcessContext
from carrel_gateway.history.service import HistoryService, Message
from carrel_gateway.provider_keys.service import ProviderKeyService
from carrel_gateway.runs.service import Run
from carrel_gateway.sessions.service import SessionService

_EARLIER_MESSAGES: Final = 20
"""Ten turns; older ones say little about the question at hand and cost tokens in every call."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """Everything that does not change while the run goes on."""

    run: RunContext
    model: ModelClient
    limits: Limits
    cell_timeout_seconds: float


async def prepare(context: ProcessContext, principal: Principal, run: Run, models: ModelRegistry) -> Prepared:
    """Return what the loop of a run needs.

    Raises
    ------
    CarrelError
        The session, its model, or the run's own message is not there.
    """
    session = await SessionService(context, principal).get(run.session_id)
    config = effective(session, context.settings)
    model = run.model or config.model
    messages = await HistoryService(context, principal).messages(run.session_id, limit=_EARLIER_MESSAGES)
    files = await ArtifactService(context, principal).list(run.session_id, category="data")
    return Prepared(
        run=RunContext(
            run_id=run.id,
            # While a run goes on, nobody else asks; an answer that is made anew has an earlier run's question.
            question=next(item.content for item in reversed(messages) if item.role == "user"),
            files=tuple(FileView(name=f"data/{item.name}", size=item.size) for item in files),
            turns=turns_before(messages, run),
            started_at=run.started_at,
            instructions=config.system_prompt or "",
        ),
        model=models.client(model, api_key=await ProviderKeyService(context, principal).key_for(model)),
        limits=Limits(
            max_steps=config.max_steps, max_retries=config.max_retries, timeout_seconds=config.timeout_seconds
        ),
        cell_timeout_seconds=config.execution_timeout_seconds,
    )


def turns_before(messages: list[Message], run: Run) -> tuple[Turn, ...]:
    """Return the questions that were answered before this run, in order."""
    turns: list[Turn] = []
    question: Message | None = None
    for message in messages:
        if message.run_id == run.id:
            break
        if message.role == "user":
            question = message
        elif question is not None:
            turns.append(Turn(question=question.content, answer=message.content))
            question = None
    return tuple(turns)
