"""A run, folded from its events; pure.

The fold keeps the events of the run and drops the others (cells that people run meanwhile). A reply of the model opens
a round; the round's cell is the one whose execution id is derived from the run and the round's number. That is what
makes a run resumable: whoever reads the log finds the same rounds and asks for the same executions.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Final
from uuid import UUID

from carrel_gateway.agents.outputs import displays_of, error_of, result_of, stdout_of
from carrel_gateway.agents.protocols import StepRecord
from carrel_gateway.agents.tags import Reply, parse_reply
from carrel_wire.log import (
    ArtifactStored,
    AssistantMessage,
    CellFinished,
    CellOutputs,
    CellStatus,
    LogPayload,
    ModelCalled,
    PlanMade,
    PlanStep,
    RunFinished,
)

_VERSION_7: Final = 7


@dataclass(frozen=True, slots=True)
class Round:
    """One reply of the model and the cell that it asked for."""

    execution_id: UUID
    raw: str
    reply: Reply
    cut: bool = False
    """The provider stopped the reply at the limit of tokens."""
    status: CellStatus | None = None
    """How the cell ended; none while it is not over."""
    message: str | None = None
    outputs: tuple[dict[str, Any], ...] = ()
    artifacts: tuple[str, ...] = ()
    artifact_ids: tuple[UUID, ...] = ()

    def step(self) -> StepRecord | None:
        """Return the cell as a model sees it, when it is over."""
        if self.status is None or self.reply.code is None:
            return None
        error, displays = error_of(self.outputs), displays_of(self.outputs)
        return StepRecord(
            code=self.reply.code,
            status=self.status,
            stdout=stdout_of(self.outputs),
            result=result_of(displays),
            error=error or (None if self.status == "ok" else self.message or f"The cell ended as {self.status}."),
            artifacts=self.artifacts,
            displays=tuple(displays),
        )


@dataclass(frozen=True, slots=True)
class RunState:
    """What the log says about a run."""

    run_id: UUID
    rounds: tuple[Round, ...] = ()
    plan: tuple[PlanStep, ...] = ()
    """As the log shows it; `decide` knows how it should stand."""
    answered: bool = False
    finished: RunFinished | None = None

    @property
    def artifact_ids(self) -> list[UUID]:
        """The files that the run's cells made, in order."""
        return [artifact for one in self.rounds for artifact in one.artifact_ids]


def execution_id_of(run_id: UUID, round_number: int) -> UUID:
    """Return the id of the execution of a round (from 0): the same one in every process.

    Shaped like a UUIDv7 (RFC 9562) with the run's own time, so that it sorts with the ids around it.
    """
    digest = hashlib.sha256(run_id.bytes + round_number.to_bytes(4, "big")).digest()
    raw = bytearray(run_id.bytes[:6] + digest[:10])
    raw[6] = (raw[6] & 0x0F) | (_VERSION_7 << 4)
    raw[8] = (raw[8] & 0x3F) | 0x80
    return UUID(bytes=bytes(raw))


def fold(run_id: UUID, events: Iterable[LogPayload]) -> RunState:
    """Return the state of the run after these events of its session."""
    state = RunState(run_id=run_id)
    for event in events:
        state = _apply(state, event)
    return state


def _apply(state: RunState, event: LogPayload) -> RunState:
    match event:
        case ModelCalled(run_id=state.run_id):
            opened = Round(
                execution_id=execution_id_of(state.run_id, len(state.rounds)),
                raw=event.text,
                reply=parse_reply(event.text),
                cut=event.finish_reason == "length",
            )
            return replace(state, rounds=(*state.rounds, opened))
        case PlanMade(run_id=state.run_id):
            return replace(state, plan=tuple(event.steps))
        case AssistantMessage(run_id=state.run_id):
            return replace(state, answered=True)
        case RunFinished(run_id=state.run_id):
            return replace(state, finished=event)
        case CellOutputs() | CellFinished() | ArtifactStored():
            return _apply_to_cell(state, event)
        case _:
            return state


def _apply_to_cell(state: RunState, event: CellOutputs | CellFinished | ArtifactStored) -> RunState:
    places = [place for place, one in enumerate(state.rounds) if one.execution_id == event.execution_id]
    if not places:
        return state
    place = places[0]
    one = state.rounds[place]
    match event:
        case CellOutputs():
            one = replace(one, outputs=(*one.outputs, *event.outputs))
        case CellFinished():
            one = replace(one, status=event.status, message=event.message)
        case ArtifactStored():
            one = replace(
                one, artifacts=(*one.artifacts, event.name), artifact_ids=(*one.artifact_ids, event.artifact_id)
            )
    return replace(state, rounds=(*state.rounds[:place], one, *state.rounds[place + 1 :]))
