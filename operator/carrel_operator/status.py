"""Conditions: what is said about a session, and since when. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal, TypeAlias

from carrel_api.common import Condition

Truth: TypeAlias = Literal["True", "False", "Unknown"]

READY: Final = "Ready"
ISOLATED: Final = "Isolated"
POD_SCHEDULED: Final = "PodScheduled"
SUSPENDED: Final = "Suspended"
FINISHED: Final = "Finished"
SNAPSHOT_REQUESTED: Final = "SnapshotRequested"
EXHAUSTED: Final = "Exhausted"

MAX_MESSAGE: Final = 1024
"""Characters; schedulers and kubelets write longer ones."""


@dataclass(frozen=True)
class Statement:
    """A condition without its history."""

    type: str
    status: Truth
    reason: str
    message: str = ""


def conditions(
    previous: Iterable[Condition], said: Iterable[Statement], *, generation: int, now: datetime
) -> list[Condition]:
    """Return the conditions; the time of transition is kept where the status is the same, and `now` elsewhere."""
    known = {condition.type: condition for condition in previous}
    return [_condition(known.get(statement.type), statement, generation, now) for statement in said]


def ready(reason: str, message: str) -> Statement:
    """Return that the session cannot be worked with, why, and what to do."""
    return Statement(READY, "False", reason, message)


def _condition(before: Condition | None, statement: Statement, generation: int, now: datetime) -> Condition:
    same = before is not None and before.status == statement.status
    return Condition(
        type=statement.type,
        status=statement.status,
        reason=statement.reason,
        message=_cut(statement.message),
        last_transition_time=before.last_transition_time if before and same else now,
        observed_generation=generation,
    )


def _cut(message: str) -> str:
    return message if len(message) <= MAX_MESSAGE else f"{message[: MAX_MESSAGE - 1]}…"
