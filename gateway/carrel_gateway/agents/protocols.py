"""What the agent loop needs from others, as protocols, and what it shows to a model, as plain data.

No behaviour here but small views of the data. The adapters (over history, execution and runs) belong to the feature
that starts runs; the models implement `ModelClient`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, Protocol, TypeAlias
from uuid import UUID

from carrel_wire.log import CellStatus, LogPayload, PlanStep, RunFinished

ModelPurpose: TypeAlias = Literal["start", "continue", "correct", "repair"]
"""What a call of a model is for: the plan, the next step, another try after a failed cell, a reply that can be read."""
LiveKind: TypeAlias = Literal["text.delta", "code.delta", "plan.delta", "thought.delta"]
"""What of a reply is shown before it is committed: parts of an answer, of code, of a plan, of anything else."""


@dataclass(frozen=True, slots=True)
class FileView:
    """One uploaded file; `name` is the path as code in the kernel opens it, such as `data/sales.csv`."""

    name: str
    size: int
    """Bytes."""


@dataclass(frozen=True, slots=True)
class Turn:
    """An earlier question of the session and the answer it got."""

    question: str
    answer: str


@dataclass(frozen=True, slots=True)
class StepRecord:
    """A cell that was run, as a model sees it."""

    code: str
    status: CellStatus
    stdout: str
    result: str
    """Text of the last expression's value and of displays."""
    error: str | None
    """Traceback without colours, or the host's message; none when the cell ended well."""
    artifacts: tuple[str, ...] = ()
    """Names of the files that it made."""
    displays: tuple[Mapping[str, Any], ...] = ()
    """Values and displays whole, by MIME type."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """A reply of the model and what came of it: a cell, a correction by the loop, or both."""

    reply: str
    step: StepRecord | None = None
    notice: str | None = None


@dataclass(frozen=True, slots=True)
class AgentView:
    """All that a model sees of a run."""

    question: str
    files: tuple[FileView, ...] = ()
    turns: tuple[Turn, ...] = ()
    exchanges: tuple[Exchange, ...] = ()
    plan: tuple[PlanStep, ...] = ()
    instructions: str = ""
    purpose: ModelPurpose = "start"
    """Which of several models is asked; no model reads it."""

    @property
    def steps(self) -> tuple[StepRecord, ...]:
        """The cells of this run that are over."""
        return tuple(exchange.step for exchange in self.exchanges if exchange.step is not None)

    @property
    def notices(self) -> tuple[str, ...]:
        """The loop's corrections."""
        return tuple(exchange.notice for exchange in self.exchanges if exchange.notice is not None)


@dataclass(frozen=True, slots=True)
class RunContext:
    """What a run is about; does not change while it runs."""

    run_id: UUID
    question: str
    files: tuple[FileView, ...] = ()
    turns: tuple[Turn, ...] = ()
    started_at: datetime | None = None
    """When the run began (aware), for the limit of wall time after a takeover; none means now."""
    instructions: str = ""
    """What the session's agent is told beside its rules."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What a call took; none where the provider does not say."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    cost: float | None = None
    """US dollars."""
    finish_reason: str | None = None
    """`stop`, or `length` when the reply was cut at the limit of tokens."""
    model: str | None = None
    """The model that replied, where it may be another than the one that was asked."""


@dataclass(frozen=True, slots=True)
class ModelChunk:
    """A part of a reply; the last one carries the usage."""

    text: str
    usage: Usage | None = None


class ModelClient(Protocol):
    """A model, whatever it is."""

    @property
    def name(self) -> str:
        """Name in the registry, such as `demo/analyst`."""
        ...

    def stream(self, view: AgentView) -> AsyncIterator[ModelChunk]:
        """Return the reply to the view, in parts.

        Raises
        ------
        ModelFailed
            The provider did not answer as it should; the message says what to do.
        """
        ...


@dataclass(frozen=True, slots=True)
class CellOutcome:
    """How a cell ended; its outputs are in the log by then."""

    status: CellStatus
    message: str | None = None


class CodeRunner(Protocol):
    """Runs cells of one run in the session's kernel."""

    async def run(self, code: str, *, execution_id: UUID) -> CellOutcome:
        """Run the code at most once under this id and return when its `cell.finished` is committed.

        Appends `cell.intended` (with the run's id) before the code is sent, then `cell.outputs` and `cell.finished`;
        shows output while it comes.
        Called again with an id that was intended before, it reads on or settles what happened (`outcome_unknown`); it
        never runs the code a second time.

        Raises
        ------
        CarrelError
            The code could not be run at all, such as `ExecutorFailed`.
        """
        ...


class Journal(Protocol):
    """The log of one run, under its fence."""

    async def append(self, payloads: Sequence[LogPayload]) -> None:
        """Commit the payloads in order.

        Raises
        ------
        StaleRun
            Another gateway has taken the run over.
        """
        ...

    async def events_of_run(self) -> Sequence[LogPayload]:
        """Return the session's events from `run.started` on, in order; those of others may be among them."""
        ...

    async def live(self, kind: LiveKind, data: dict[str, Any]) -> None:
        """Show something that is not committed; may be lost."""
        ...

    async def is_cancel_requested(self) -> bool:
        """Return whether someone asked to stop the run."""
        ...

    async def finish(self, payload: RunFinished) -> None:
        """Commit the end of the run and give it up."""
        ...
