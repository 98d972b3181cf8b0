"""What a run does next: a pure function of what its log says.

The rules of the first form
---------------------------
* A reply with code: the code is run. If it also holds an answer, the answer is not taken, because it was written
  before the output was there.
* A cell that ended well closes the first open step of the plan. A later `<plan>` replaces the plan; steps that it marks
  `[x]` count as done only when a cell of the run ended well (or they were done before), steps marked `[-]` are skipped.
* An answer is refused while a step is open, at most `MAX_REFUSALS` times; after that the steps that are still open are
  recorded as skipped, so that no finished run shows an open step. Without a plan an answer is taken at once.
* A cell that fails goes back to the model with its traceback. After `max_retries` corrections in a row no more code is
  run: the model may say in an answer what it knows, and more code ends the run as `retries_exhausted`.
* A reply with none of the three is malformed: the model is told once, a second one in a row ends the run.
* The plan in the log is only the view of `Review.plan`; when they differ, the plan is recorded anew.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, TypeAlias
from uuid import UUID

from carrel_gateway.agents.outputs import cut_head
from carrel_gateway.agents.protocols import Exchange, ModelPurpose
from carrel_gateway.agents.state import Round, RunState
from carrel_wire.log import PlanStep, RunStatus

MAX_REFUSALS: Final = 2
MAX_MALFORMED: Final = 2
"""Malformed replies in a row that end a run: the first is repaired, the second reported."""
_MESSAGE_CHARACTERS: Final = 300


@dataclass(frozen=True, slots=True)
class Limits:
    """How long a run may go on."""

    max_steps: int = 20
    """Model calls."""
    max_retries: int = 3
    """Corrections of one step's code."""
    timeout_seconds: float = 600.0
    """Wall time; looked at between actions and during model calls. A running cell has its own limit."""


@dataclass(frozen=True, slots=True)
class CallModel:
    purpose: ModelPurpose


@dataclass(frozen=True, slots=True)
class RecordPlan:
    steps: tuple[PlanStep, ...]


@dataclass(frozen=True, slots=True)
class RunCode:
    code: str
    execution_id: UUID


@dataclass(frozen=True, slots=True)
class GiveAnswer:
    text: str


@dataclass(frozen=True, slots=True)
class Finish:
    status: RunStatus
    code: str | None = None
    message: str | None = None


Action: TypeAlias = CallModel | RecordPlan | RunCode | GiveAnswer | Finish


@dataclass(slots=True)
class Review:
    """The rounds of a run, gone through in order."""

    plan: tuple[PlanStep, ...] = ()
    exchanges: list[Exchange] = field(default_factory=list[Exchange])
    next_action: Action = field(default_factory=lambda: CallModel("start"))
    ran_well: bool = False
    failures: int = 0
    """Failed cells since the last one that ended well."""
    malformed: int = 0
    refusals: int = 0
    exhausted: bool = False

    @property
    def open_steps(self) -> list[str]:
        """Titles of the steps that are open."""
        return [step.title for step in self.plan if step.status == "open"]


def decide(state: RunState, limits: Limits) -> Action:
    """Return the next action; a run that is finished stays so."""
    if state.finished:
        return Finish(state.finished.status, state.finished.code, state.finished.message)
    if state.answered:  # whoever wrote the answer ended before it could say so
        return Finish("succeeded")
    seen = review(state, limits)
    if seen.plan != state.plan:
        return RecordPlan(seen.plan)
    if isinstance(seen.next_action, CallModel) and len(state.rounds) >= limits.max_steps:
        return Finish("failed", "step_limit", f"No answer after {limits.max_steps} calls of the model.")
    return seen.next_action


def review(state: RunState, limits: Limits) -> Review:
    """Go through the rounds and return how the plan stands, what the model was told, and what comes next."""
    seen = Review()
    for one in state.rounds:
        _take_plan(seen, one.reply.plan)
        if _is_malformed(one):
            _malformed(seen, one)
        elif one.reply.code is not None:
            _code(seen, one, one.reply.code, limits)
        elif one.reply.answer is not None:
            _answer(seen, one, one.reply.answer)
        else:
            seen.malformed = 0
            _tell(seen, one, "continue", "The plan is noted. Now write the code of its first step in <code>…</code>.")
    return seen


def _tell(seen: Review, one: Round, purpose: ModelPurpose, notice: str | None) -> None:
    seen.exchanges.append(Exchange(one.raw, one.step(), notice))
    seen.next_action = CallModel(purpose)


def _is_malformed(one: Round) -> bool:
    reply = one.reply
    nothing = not reply.plan and reply.code is None and reply.answer is None
    return nothing or reply.unclosed == "code" or (one.cut and reply.unclosed is not None)


def _malformed(seen: Review, one: Round) -> None:
    seen.malformed += 1
    if seen.malformed >= MAX_MALFORMED:
        seen.next_action = Finish(
            "failed",
            "malformed_reply",
            "The model's replies could not be read, also after it was told: they hold no complete <plan>, <code> or "
            "<answer>. Ask again, or choose another model.",
        )
        return
    if one.cut or one.reply.unclosed:
        why = f"Your reply was cut off inside <{one.reply.unclosed or 'code'}>. Send it again, shorter and complete."
    else:
        why = "Your reply holds none of <plan>, <code> and <answer>. Send it again, with its text in the right tag."
    _tell(seen, one, "repair", why)


def _code(seen: Review, one: Round, code: str, limits: Limits) -> None:
    seen.malformed = 0
    if seen.exhausted:
        seen.next_action = Finish(
            "failed",
            "retries_exhausted",
            f"The code failed {seen.failures} times in a row; the last error: {_last_error(seen)}",
        )
        return
    if one.status is None:
        seen.next_action = RunCode(code, one.execution_id)
        return
    if one.status == "ok":
        seen.ran_well, seen.failures = True, 0
        _close_first_open(seen)
        _tell(seen, one, "continue", _after_success(one))
        return
    seen.failures += 1
    seen.exhausted = seen.failures > limits.max_retries
    _tell(seen, one, "correct", _after_failure(seen, one))


def _after_success(one: Round) -> str | None:
    notices: list[str] = []
    if one.reply.answer is not None:
        notices.append("The answer in the same reply was not taken: answer when you have seen the output.")
    if one.reply.more_code:
        notices.append("Only the first <code> was run.")
    return " ".join(notices) or None


def _after_failure(seen: Review, one: Round) -> str | None:
    if seen.exhausted:
        return (
            f"The code failed {seen.failures} times in a row and no more code is run. Say in <answer> what is known, "
            "and what could not be done and why."
        )
    if one.status == "outcome_unknown":
        return (
            "It is not known whether this code ran to its end; variables may be gone. Check what is there, and begin "
            "again from loading the data if needed."
        )
    return None


def _answer(seen: Review, one: Round, answer: str) -> None:
    seen.malformed = 0
    if seen.open_steps and not seen.exhausted and seen.refusals < MAX_REFUSALS:
        seen.refusals += 1
        titles = "; ".join(seen.open_steps)
        _tell(
            seen,
            one,
            "continue",
            f"The answer was not taken: these steps of the plan are open: {titles}. Do them in <code>, or answer again "
            "together with the <plan> in which steps that the code has done are marked [x] and steps that are not "
            "needed are marked [-].",
        )
        return
    seen.plan = tuple(
        PlanStep(title=step.title, status="skipped") if step.status == "open" else step for step in seen.plan
    )
    seen.next_action = GiveAnswer(answer)


def _take_plan(seen: Review, sent: tuple[PlanStep, ...]) -> None:
    """Replace the plan; what claims to be done must have been done."""
    if not sent:
        return
    done = {step.title.casefold() for step in seen.plan if step.status == "done"}
    steps: list[PlanStep] = []
    for step in sent:
        if step.title.casefold() in done:
            steps.append(PlanStep(title=step.title, status="done"))
        elif step.status == "done" and not seen.ran_well:
            steps.append(PlanStep(title=step.title))
        else:
            steps.append(step)
    seen.plan = tuple(steps)


def _close_first_open(seen: Review) -> None:
    for place, step in enumerate(seen.plan):
        if step.status == "open":
            closed = PlanStep(title=step.title, status="done")
            seen.plan = (*seen.plan[:place], closed, *seen.plan[place + 1 :])
            return


def _last_error(seen: Review) -> str:
    for exchange in reversed(seen.exchanges):
        if exchange.step and exchange.step.error:
            line = exchange.step.error.strip().splitlines()[-1]
            return cut_head(line, _MESSAGE_CHARACTERS)
    return "not known"
