"""What a language model is shown: outputs as text, cut at their beginning, and the chat made of a view."""

from __future__ import annotations

from carrel_gateway.agents.outputs import cut_head, displays_of, error_of, result_of, stdout_of
from carrel_gateway.agents.prompts import messages
from carrel_gateway.agents.protocols import AgentView, Exchange, FileView, StepRecord

OUTPUTS = [
    {"output_type": "stream", "name": "stdout", "text": ["a\n", "b\n"]},
    {"output_type": "execute_result", "data": {"text/plain": "42", "text/html": "<b>42</b>"}, "metadata": {}},
    {"output_type": "display_data", "data": {"image/png": "iVBOR"}, "metadata": {}},
    {"output_type": "display_data", "data": {"application/x": "for programs", "text/plain": ""}, "metadata": {}},
    {"output_type": "stream", "name": "stderr", "text": "warn\n"},
    {"output_type": "error", "ename": "KeyError", "evalue": "'x'", "traceback": ["\x1b[0;31mKeyError\x1b[0m: 'x'"]},
]


def test_outputs_as_text() -> None:
    assert stdout_of(OUTPUTS) == "a\nb\nwarn\n"
    assert result_of(displays_of(OUTPUTS)) == "42\n[image/png]"
    assert error_of(OUTPUTS) == "KeyError: 'x'"
    assert error_of(OUTPUTS[:-1]) is None
    assert error_of([{"output_type": "error", "ename": "E", "evalue": "v"}]) == "E: v"


def test_displays_are_whole() -> None:
    assert displays_of(OUTPUTS) == [output["data"] for output in OUTPUTS if "data" in output]
    assert displays_of([{"output_type": "display_data"}, {"output_type": "display_data", "data": None}]) == []


def test_output_is_cut_at_its_beginning() -> None:
    assert cut_head("x" * 10, 10) == "x" * 10
    assert cut_head("abcdef", 2) == "[4 characters left off here]\nef"


def test_chat_without_cells() -> None:
    chat = messages(AgentView("Q?", tuple(FileView(f"data/{n}.csv", n) for n in range(102))))
    assert [message["role"] for message in chat] == ["system", "user"]
    assert "- data/99.csv (99 bytes)\n- and 2 more" in chat[1]["content"]
    assert messages(AgentView("Q?"))[1]["content"].endswith("- none")
    told = messages(AgentView("Q?", instructions="Be brief."))[0]["content"]
    assert told.startswith(chat[0]["content"])
    assert told.endswith("\nBe brief.")


def test_cell_and_notice_come_back() -> None:
    step = StepRecord("x", "ok", "out\n", "value", None)
    chat = messages(
        AgentView("Q?", exchanges=(Exchange("<code>x</code>", step, "Mind."), Exchange("<plan>\n- a\n</plan>")))
    )
    assert chat[2] == {"role": "assistant", "content": "<code>x</code>"}
    assert chat[3]["content"] == "The cell ended with status ok.\n<output>\nout\nvalue\n</output>\n\nMind."
    assert chat[5]["content"] == "Go on."
