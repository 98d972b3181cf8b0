"""The loop on a scripted model, an in-memory log and an in-memory kernel.

* the whole way: plan, code, error, correction, answer; what is shown while it happens; what the model is told
* the rules of `decide`: refused answers, retries, malformed replies, limits, cancellation, failures of the model
* resumption: killed after every single event, another loop ends the run with the same log; no reply that is there
  is asked for again, and no code is run twice
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tests.support.scripted_model import ScriptedModel
from tests.unit.carrel_gateway.agents.conftest import RUN, Killed, MemoryJournal, MemoryKernel

from carrel_gateway.agents.decide import Limits, decide
from carrel_gateway.agents.loop import AgentLoop
from carrel_gateway.agents.protocols import AgentView, FileView, ModelChunk, RunContext
from carrel_gateway.agents.state import execution_id_of, fold
from carrel_gateway.errors import ExecutorFailed, ModelFailed, StaleRun
from carrel_wire.log import (
    AssistantMessage,
    CellFinished,
    CellIntended,
    LogPayload,
    ModelCalled,
    PlanMade,
    RunFinished,
)

CONTEXT = RunContext(run_id=RUN, question="How many?", files=(FileView("data/a.csv", 12),))
LIMITS = Limits(max_steps=12, max_retries=2, timeout_seconds=60)
FULL = [
    "<plan>\n- Load\n- Plot\n</plan><code>load</code>",
    "<code>raise it</code>",
    "<code>plot it</code>",
    "<answer>There are **3**.</answer>",
]


def loop_of(journal: MemoryJournal, kernel: MemoryKernel, model: Any, **options: Any) -> AgentLoop:
    settings: dict[str, Any] = {"limits": LIMITS, **options}
    return AgentLoop(CONTEXT, journal=journal, runner=kernel, model=model, **settings)


async def run(journal: MemoryJournal, kernel: MemoryKernel, replies: list[Any], **options: Any) -> RunFinished:
    return await loop_of(journal, kernel, ScriptedModel(replies), **options).run()


async def test_plan_code_error_correction_answer(journal: MemoryJournal, kernel: MemoryKernel) -> None:
    model = ScriptedModel(FULL)
    finished = await loop_of(journal, kernel, model).run()
    assert finished.status == "succeeded"
    assert kernel.ran == ["load", "raise it", "plot it"]
    plans = [[step.status for step in plan.steps] for plan in journal.of_type(PlanMade)]
    assert plans == [["open", "open"], ["done", "open"], ["done", "done"]]
    (message,) = journal.of_type(AssistantMessage)
    assert message.content == "There are **3**."
    assert [str(one) for one in message.artifact_ids] == ["00000000-0000-0000-0000-000000000007"]
    assert [call.purpose for call in journal.of_type(ModelCalled)] == ["start", "continue", "correct", "continue"]
    last = model.views[-1]
    assert [step.status for step in last.steps] == ["ok", "error", "ok"]
    assert last.steps[1].error == "ValueError: no"
    assert last.steps[2].stdout == "out of plot it\n"
    assert last.steps[2].artifacts == ("plot.png",)
    assert last.files == CONTEXT.files


async def test_parts_are_shown_while_they_come(journal: MemoryJournal, kernel: MemoryKernel) -> None:
    await run(journal, kernel, FULL)
    texts: dict[str, str] = {}
    for kind, data in journal.shown:
        texts[kind] = texts.get(kind, "") + data.get("text", "")
    assert texts["text.delta"] == "There are **3**."
    assert texts["code.delta"] == "loadraise itplot it"
    assert texts["plan.delta"].strip() == "- Load\n- Plot"


@pytest.mark.parametrize("lives", range(1, 20))
async def test_killed_after_any_event_another_one_finishes(lives: int) -> None:
    untouched = MemoryJournal()
    await run(untouched, MemoryKernel(untouched), FULL)
    total = len(untouched.events) - 1
    assert total == 19, "the range above must cover every event"
    journal = MemoryJournal()
    kernel = MemoryKernel(journal)
    first, second = ScriptedModel(FULL), ScriptedModel(FULL)
    journal.lives = lives
    with pytest.raises(Killed):
        await loop_of(journal, kernel, first).run()
    journal.lives = None
    finished = await loop_of(journal, kernel, second).run()
    assert finished.status == "succeeded"
    assert [type(event) for event in journal.events] == [type(event) for event in untouched.events]
    assert len(first.views) + len(second.views) == len(FULL), "a reply was asked for twice"
    assert kernel.ran == ["load", "raise it", "plot it"]


async def test_killed_after_every_event_in_turn(journal: MemoryJournal, kernel: MemoryKernel) -> None:
    """Each process lives for one event only."""
    model = ScriptedModel(FULL)
    for _ in range(40):
        journal.lives = 1
        try:
            finished = await loop_of(journal, kernel, model).run()
        except Killed:
            continue
        break
    else:
        pytest.fail("the run did not come to its end")
    assert finished.status == "succeeded"
    assert len(model.views) == len(FULL)
    assert kernel.ran == ["load", "raise it", "plot it"]


async def test_killed_while_the_model_speaks_asks_again() -> None:
    class Fragile(MemoryJournal):
        async def live(self, *_: Any) -> None:
            raise Killed

    fragile = Fragile()
    with pytest.raises(Killed):
        await run(fragile, MemoryKernel(fragile), ["<answer>1</answer>"])
    journal = MemoryJournal()
    journal.events = fragile.events
    assert (await run(journal, MemoryKernel(journal), ["<answer>1</answer>"])).status == "succeeded"
    assert len(journal.of_type(ModelCalled)) == 1


async def test_answer_is_refused_while_a_step_is_open(journal: MemoryJournal, kernel: MemoryKernel) -> None:
    model = ScriptedModel(
        [
            "<plan>\n- [x] One\n- Two\n</plan><answer>early</answer>",
            "<code>a</code>",
            "<plan>\n- One\n- [-] Two\n</plan><answer>late</answer>",
        ]
    )
    assert (await loop_of(journal, kernel, model).run()).status == "succeeded"
    assert "these steps of the plan are open: One; Two" in model.views[1].notices[0]
    assert [message.content for message in journal.of_type(AssistantMessage)] == ["late"]
    assert [step.status for step in journal.of_type(PlanMade)[-1].steps] == ["done", "skipped"]


async def test_marks_count_when_code_ran(journal: MemoryJournal, kernel: MemoryKernel) -> None:
    replies = ["<plan>\n- A\n- B\n</plan><code>x</code>", "<plan>\n- [x] A\n- [x] B\n</plan><answer>yes</answer>"]
    assert (await run(journal, kernel, replies)).status == "succeeded"
    assert [step.status for step in journal.of_type(PlanMade)[-1].steps] == ["done", "done"]


async def test_stubborn_answer_leaves_skipped_steps(journal: MemoryJournal, kernel: MemoryKernel) -> None:
    replies = ["<plan>\n- A\n</plan>", *["<answer>no</answer>"] * 3]
    assert (await run(journal, kernel, replies)).status == "succeeded"
    assert [step.status for step in journal.of_type(PlanMade)[-1].steps] == ["skipped"]
    assert journal.of_type(CellIntended) == []


async def test_answer_beside_code_is_not_taken(journal: MemoryJournal, kernel: MemoryKernel) -> None:
    model = ScriptedModel(["<code>a</code><code>b</code><answer>guess</answer>", "<answer>seen</answer>"])
    assert (await loop_of(journal, kernel, model).run()).status == "succeeded"
    assert kernel.ran == ["a"]
    assert [message.content for message in journal.of_type(AssistantMessage)] == ["seen"]
    (notice,) = model.views[1].notices
    assert notice.startswith("The answer in the same reply was not taken")
    assert notice.endswith("Only the first <code> was run.")


async def test_retries_end(journal: MemoryJournal, kernel: MemoryKernel) -> None:
    model = ScriptedModel([f"<code>raise {n}</code>" for n in range(4)])
    finished = await loop_of(journal, kernel, model).run()
    assert (finished.status, finished.code) == ("failed", "retries_exhausted")
    assert finished.message == "The code failed 3 times in a row; the last error: ValueError: no"
    assert len(kernel.ran) == 3
    assert "no more code is run" in model.views[3].notices[-1]


async def test_honest_answer_after_the_last_retry(journal: MemoryJournal, kernel: MemoryKernel) -> None:
    replies = ["<plan>\n- A\n</plan><code>raise</code>", *["<code>raise</code>"] * 2, "<answer>It failed.</answer>"]
    assert (await run(journal, kernel, replies)).status == "succeeded"
    assert [step.status for step in journal.of_type(PlanMade)[-1].steps] == ["skipped"]


async def test_success_gives_new_retries(journal: MemoryJournal, kernel: MemoryKernel) -> None:
    replies = [f"<code>{code}</code>" for code in ("raise", "raise", "ok", "raise", "raise", "fine")]
    assert (await run(journal, kernel, [*replies, "<answer>1</answer>"])).status == "succeeded"


async def test_malformed_reply_is_repaired_once(journal: MemoryJournal, kernel: MemoryKernel) -> None:
    model = ScriptedModel(["I think it is 3.", "<answer>3</answer>"])
    assert (await loop_of(journal, kernel, model).run()).status == "succeeded"
    assert "holds none of <plan>, <code> and <answer>" in model.views[1].notices[0]
    assert journal.of_type(ModelCalled)[1].purpose == "repair"


async def test_second_malformed_reply_is_reported(journal: MemoryJournal, kernel: MemoryKernel) -> None:
    finished = await run(journal, kernel, ["hm", "<code>x = 1"])
    assert (finished.status, finished.code) == ("failed", "malformed_reply")
    assert "could not be read" in (finished.message or "")
    assert kernel.ran == []


async def test_step_limit(journal: MemoryJournal, kernel: MemoryKernel) -> None:
    finished = await run(journal, kernel, ["<code>a</code>"] * 3, limits=Limits(max_steps=3))
    assert (finished.code, finished.message) == ("step_limit", "No answer after 3 calls of the model.")
    assert len(kernel.ran) == 3


async def test_time_limit_counts_from_the_start_of_the_run(journal: MemoryJournal, kernel: MemoryKernel) -> None:
    started = datetime(2026, 1, 1, tzinfo=UTC)
    context = RunContext(run_id=RUN, question="?", started_at=started)
    loop = AgentLoop(
        context, journal=journal, runner=kernel, model=ScriptedModel([]), limits=LIMITS,
        now=lambda: started + timedelta(seconds=61),
    )  # fmt: skip
    finished = await loop.run()
    assert (finished.status, finished.code) == ("failed", "time_limit")
    assert finished.message == "No answer within 60 seconds."


async def test_silent_model_runs_into_the_time_limit(journal: MemoryJournal, kernel: MemoryKernel) -> None:
    model = SilentModel()
    finished = await loop_of(journal, kernel, model, limits=Limits(timeout_seconds=0.05)).run()
    assert finished.code == "time_limit"
    assert model.ended


class SilentModel:
    name = "test/silent"
    ended = False

    async def stream(self, _view: AgentView) -> Any:
        try:
            await asyncio.Event().wait()
            yield ModelChunk("")
        finally:
            self.ended = True


async def test_cancel_while_the_model_is_silent(journal: MemoryJournal, kernel: MemoryKernel) -> None:
    asked = iter([False, True])
    journal.cancel_after = lambda _: next(asked, True)
    model = SilentModel()
    finished = await loop_of(journal, kernel, model).run()
    assert (finished.status, finished.code) == ("cancelled", "cancelled")
    assert model.ended


async def test_cancel_between_actions(journal: MemoryJournal, kernel: MemoryKernel) -> None:
    journal.cancel_after = lambda log: bool(log.of_type(CellFinished))
    finished = await run(journal, kernel, FULL)
    assert finished.status == "cancelled"
    assert kernel.ran == ["load"]


async def test_failure_of_the_model_is_the_end(journal: MemoryJournal, kernel: MemoryKernel) -> None:
    finished = await run(journal, kernel, [ModelFailed("No key: set LLM_API_KEY.")])
    assert (finished.status, finished.code, finished.message) == ("failed", "model_failed", "No key: set LLM_API_KEY.")


async def test_no_kernel_is_the_end(journal: MemoryJournal) -> None:
    class NoKernel(MemoryKernel):
        async def run(self, *_: Any, **__: Any) -> Any:
            raise ExecutorFailed("No kernel could be started.")

    finished = await run(journal, NoKernel(journal), FULL)
    assert (finished.status, finished.code) == ("failed", "executor_failed")


async def test_stale_run_is_left_alone(kernel: MemoryKernel) -> None:
    class Stale(MemoryJournal):
        async def append(self, _payloads: Any) -> None:
            raise StaleRun("taken over")

    journal = Stale()
    with pytest.raises(StaleRun):
        await run(journal, MemoryKernel(journal), FULL)
    assert len(journal.events) == 1


async def test_unknown_outcome_is_told_and_not_run_again(journal: MemoryJournal, kernel: MemoryKernel) -> None:
    journal.events += [
        ModelCalled(run_id=RUN, model="m", purpose="start", text="<code>a</code>"),
        CellIntended(execution_id=execution_id_of(RUN, 0), code="a"),
        CellFinished(execution_id=execution_id_of(RUN, 0), status="outcome_unknown"),
    ]
    model = ScriptedModel(["unused", "<answer>1</answer>"])
    assert (await loop_of(journal, kernel, model).run()).status == "succeeded"
    assert kernel.ran == []
    assert "not known whether this code ran" in model.views[0].notices[0]


async def test_cells_of_people_do_not_count(journal: MemoryJournal, kernel: MemoryKernel) -> None:
    from uuid import UUID

    journal.events.append(CellFinished(execution_id=UUID(int=1), status="error", code="1/0"))
    assert (await run(journal, kernel, ["<answer>1</answer>"])).status == "succeeded"


def test_reply_cut_at_the_limit_of_tokens_is_malformed() -> None:
    cut: LogPayload = ModelCalled(
        run_id=RUN, model="m", purpose="start", text="<answer>so lo", finish_reason="length"
    )  # fmt: skip
    assert type(decide(fold(RUN, [cut]), LIMITS)).__name__ == "CallModel"


def test_execution_ids_are_version_7_distinct_and_stable() -> None:
    ids = {execution_id_of(RUN, number) for number in range(100)}
    assert len(ids) == 100
    assert {one.version for one in ids} == {7}
    assert {one.bytes[:6] for one in ids} == {RUN.bytes[:6]}
    assert str(execution_id_of(RUN, 0)) == str(execution_id_of(RUN, 0))
