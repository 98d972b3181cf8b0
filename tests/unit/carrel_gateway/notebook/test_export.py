"""The notebook of a log.

Plan: a whole conversation in order, valid by nbformat's own schema; parts of outputs joined, clears and updates done;
failed cells marked so that the whole runs; cells without an intent; edited cells; lost kernels; any text.
"""

from __future__ import annotations

from uuid import UUID, uuid4

import nbformat
import pytest
from hypothesis import given
from hypothesis import strategies as st

from carrel_gateway.notebook.export import notebook_of
from carrel_wire.log import (
    AssistantMessage,
    CellEdited,
    CellFinished,
    CellIntended,
    CellOutputs,
    KernelChanged,
    PlanMade,
    PlanStep,
    RunFinished,
    RunStarted,
    UserMessage,
)

SESSION = UUID(int=1)
RUN = UUID(int=2)
CELL = UUID(int=3)


def stream(text: str, name: str = "stdout") -> dict[str, object]:
    return {"output_type": "stream", "name": name, "text": text}


def export(*events):
    notebook = notebook_of("Sales", SESSION, events)
    nbformat.validate(notebook, relax_add_props=False)
    return notebook


def conversation():
    return [
        UserMessage(message_id=UUID(int=10), content="Which region?\nSince when?", run_id=RUN),
        RunStarted(run_id=RUN, kind="chat", model="demo/analyst"),
        PlanMade(run_id=RUN, steps=[PlanStep(title="Load"), PlanStep(title="Sum")]),
        CellIntended(execution_id=CELL, code="print('hello')\n1 + 1", run_id=RUN),
        CellOutputs(execution_id=CELL, last_n=2, outputs=[stream("hel")]),
        CellOutputs(
            execution_id=CELL,
            last_n=4,
            outputs=[
                stream("lo\n"),
                {"output_type": "execute_result", "data": {"text/plain": "2"}, "metadata": {}, "execution_count": 1},
            ],
        ),
        CellFinished(execution_id=CELL, status="ok", run_id=RUN, execution_count=1, wall_seconds=0.1),
        PlanMade(run_id=RUN, steps=[PlanStep(title="Load", status="done"), PlanStep(title="Sum", status="skipped")]),
        AssistantMessage(message_id=UUID(int=11), content="**North**, since May.", run_id=RUN),
        RunFinished(run_id=RUN, status="succeeded"),
    ]


def test_conversation():
    cells = export(*conversation())["cells"]
    assert [cell["cell_type"] for cell in cells] == ["markdown", "markdown", "code", "markdown"]
    question, plan, code, answer = cells
    assert question["source"] == "## Which region?\n\nSince when?"
    assert plan["source"] == "- [x] Load\n- [-] Sum"
    assert code["id"] == str(CELL)
    assert code["source"] == "print('hello')\n1 + 1"
    assert code["execution_count"] == 1
    assert code["outputs"] == [
        {"output_type": "stream", "name": "stdout", "text": "hello\n"},
        {"output_type": "execute_result", "data": {"text/plain": "2"}, "metadata": {}, "execution_count": 1},
    ]
    assert "tags" not in code["metadata"]
    assert answer["source"] == "**North**, since May."


def test_ids_are_stable():
    first, second = export(*conversation()), export(*conversation())
    assert [cell["id"] for cell in first["cells"]] == [cell["id"] for cell in second["cells"]]


def test_failed_cell_does_not_stop_the_notebook():
    error = {"output_type": "error", "ename": "ValueError", "evalue": "no", "traceback": ["ValueError: no"]}
    (cell,) = export(
        CellIntended(execution_id=CELL, code="raise ValueError('no')"),
        CellOutputs(execution_id=CELL, last_n=2, outputs=[error]),
        CellFinished(execution_id=CELL, status="error"),
    )["cells"]
    assert cell["metadata"] == {"carrel": {"status": "error"}, "tags": ["raises-exception"]}
    assert cell["outputs"] == [error]


@pytest.mark.parametrize("status", ["kernel_died", "out_of_memory", "timeout", "interrupted", "outcome_unknown"])
def test_what_ended_a_kernel_is_not_run_again(status):
    (cell,) = export(
        CellIntended(execution_id=CELL, code="import os; os._exit(3)"), CellFinished(execution_id=CELL, status=status)
    )["cells"]
    assert cell["metadata"] == {"carrel": {"status": status}, "tags": ["skip-execution"]}


def test_clears_and_updates_are_applied():
    def shown(kind, text):
        return {
            "output_type": kind,
            "data": {"text/plain": text},
            "metadata": {},
            "transient": {"display_id": "d"},
        }

    (cell,) = export(
        CellIntended(execution_id=CELL, code="…"),
        CellOutputs(
            execution_id=CELL, last_n=1, outputs=[stream("gone"), {"output_type": "clear_output", "wait": False}]
        ),
        CellOutputs(
            execution_id=CELL, last_n=2, outputs=[shown("display_data", "1"), shown("update_display_data", "2")]
        ),
        CellFinished(execution_id=CELL, status="ok"),
    )["cells"]
    assert cell["outputs"] == [{"output_type": "display_data", "data": {"text/plain": "2"}, "metadata": {}}]


def test_interactive_cell_has_its_code_at_the_end():
    (cell,) = export(
        CellOutputs(execution_id=CELL, last_n=1, outputs=[stream("1")]),
        CellFinished(execution_id=CELL, status="ok", code="print(1)", execution_count=3),
    )["cells"]
    assert (cell["source"], cell["execution_count"], len(cell["outputs"])) == ("print(1)", 3, 1)


def test_silent_cell_is_not_there():
    assert export(CellFinished(execution_id=CELL, status="ok"))["cells"] == []


def test_edited_cell_loses_its_outputs():
    *_, code, _ = export(*conversation(), CellEdited(execution_id=CELL, code="print('new')"))["cells"]
    assert (code["source"], code["outputs"], code["execution_count"]) == ("print('new')", [], None)


def test_new_cell_from_elsewhere_comes_last():
    *_, last = export(*conversation(), CellEdited(execution_id=uuid4(), code="2"))["cells"]
    assert (last["cell_type"], last["source"]) == ("code", "2")


def test_lost_kernel_is_said_and_a_first_one_is_not():
    cells = export(
        KernelChanged(reason="started"),
        KernelChanged(reason="died", lost_state=True),
        KernelChanged(reason="restarted", lost_state=True),
    )["cells"]
    assert [cell["source"] for cell in cells] == [
        "*The kernel is new here: died.*",
        "*The kernel is new here: restarted.*",
    ]
    assert len({cell["id"] for cell in cells}) == 2


@given(question=st.text(), code=st.text(), output=st.text(), answer=st.text())
def test_any_text_makes_a_valid_notebook(question, code, output, answer):
    export(
        UserMessage(message_id=UUID(int=10), content=question, run_id=RUN),
        CellIntended(execution_id=CELL, code=code),
        CellOutputs(execution_id=CELL, last_n=1, outputs=[stream(output)]),
        CellFinished(execution_id=CELL, status="ok"),
        AssistantMessage(message_id=UUID(int=11), content=answer, run_id=RUN),
    )
