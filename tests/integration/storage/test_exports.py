"""Exports over both databases, read some pages at a time.

Plan: lines are the events, each once and in order, up to the moment at which the export began; the streamed notebook
is the one that the whole log makes, whatever pages it is read in: cells that run at the same time, edited ones, what
HEAD left behind; a notebook that comes back changes what it changed, also where it has cells that were left behind.
"""

from __future__ import annotations

from uuid import UUID

import orjson
import pytest
from tests.support.state import collected

from carrel_gateway.context import Principal, ProcessContext
from carrel_gateway.errors import NotFound
from carrel_gateway.history import service as history_module
from carrel_gateway.history.schemas import event_document
from carrel_gateway.history.service import HistoryService
from carrel_gateway.notebook.export import notebook_of
from carrel_gateway.notebook.service import NotebookService
from carrel_gateway.storage.ids import new_id
from carrel_wire.log import (
    AssistantMessage,
    CellEdited,
    CellFinished,
    CellIntended,
    CellOutputs,
    HeadMoved,
    KernelChanged,
    LogPayload,
    ModelCalled,
    PlanMade,
    PlanStep,
    UserMessage,
)


@pytest.fixture
def notebooks(context: ProcessContext, principal: Principal) -> NotebookService:
    return NotebookService(context, principal)


def printed(execution_id: UUID, text: str) -> CellOutputs:
    return CellOutputs(
        execution_id=execution_id, last_n=1, outputs=[{"output_type": "stream", "name": "stdout", "text": text}]
    )


def a_log(left: UUID) -> list[LogPayload]:
    run, first, second, third = new_id(), new_id(), new_id(), new_id()
    question = UserMessage(message_id=new_id(), content="Why?", run_id=run)
    return [
        UserMessage(message_id=new_id(), content="Left behind?"),
        CellFinished(execution_id=left, status="ok", code="left = 1"),
        HeadMoved(message_id=new_id(), head=1, reason="edit", kernel_stale=True),
        question,
        PlanMade(run_id=run, steps=[PlanStep(title="Look")]),
        ModelCalled(run_id=run, model="m", purpose="p", text="hidden"),
        CellIntended(execution_id=first, code="a"),
        printed(first, "a1\n"),
        printed(second, "b1\n"),
        printed(first, "a2\n" * 500),
        CellFinished(execution_id=second, status="error", code="b", execution_count=2),
        printed(third, "before the edit\n"),
        CellFinished(execution_id=first, status="ok", execution_count=1),
        CellEdited(execution_id=third, code="edited"),
        KernelChanged(reason="restarted", lost_state=True),
        AssistantMessage(message_id=new_id(), content="So.", run_id=run),
    ]


@pytest.mark.parametrize("page_bytes", [1, 2000, 4 * 1024 * 1024])
async def test_the_streamed_notebook_is_that_of_the_whole_log(
    context: ProcessContext,
    principal: Principal,
    notebooks: NotebookService,
    session_id: UUID,
    page_bytes: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    history = HistoryService(context, principal)
    await history.append(session_id, a_log(new_id()), actor="user")
    whole = notebook_of("Untitled", session_id, [event.payload for event in await history.events(session_id)])
    monkeypatch.setattr(history_module, "PAGE_BYTES", page_bytes)
    session, content = await notebooks.export(session_id)
    assert session.title == "Untitled"
    assert orjson.loads(await collected(content)) == whole
    sources = [cell["source"] for cell in whole["cells"]]
    assert sources == ["## Why?", "- [ ] Look", "a", "b", "edited", "*The kernel is new here: restarted.*", "So."]
    texts = ["".join(output["text"] for output in cell["outputs"]) for cell in whole["cells"] if "outputs" in cell]
    assert texts == ["a1\n" + "a2\n" * 500, "b1\n", ""]


@pytest.mark.parametrize("page_bytes", [1, 4 * 1024 * 1024])
async def test_lines_are_the_log_up_to_now(
    context: ProcessContext,
    principal: Principal,
    notebooks: NotebookService,
    session_id: UUID,
    page_bytes: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    history = HistoryService(context, principal)
    await history.append(session_id, a_log(new_id()), actor="user")
    events = [event_document(event) for event in await history.events(session_id)]
    _, content = await notebooks.lines(session_id)
    await history.append(session_id, [UserMessage(message_id=new_id(), content="too late")], actor="user")
    monkeypatch.setattr(history_module, "PAGE_BYTES", page_bytes)
    lines = (await collected(content)).splitlines()
    assert [orjson.loads(line) for line in lines] == events


async def test_a_long_log_goes_out_in_parts(
    context: ProcessContext, principal: Principal, notebooks: NotebookService, session_id: UUID
) -> None:
    asked: list[LogPayload] = [UserMessage(message_id=new_id(), content="x" * 1000) for _ in range(300)]
    await HistoryService(context, principal).append(session_id, asked, actor="user")
    sizes = [len(part) async for part in (await notebooks.lines(session_id))[1]]
    assert len(sizes) > 3
    assert max(sizes) < 80_000


async def test_a_notebook_that_comes_back_may_have_what_was_left_behind(
    context: ProcessContext, principal: Principal, notebooks: NotebookService, session_id: UUID
) -> None:
    left = new_id()
    await HistoryService(context, principal).append(session_id, a_log(left), actor="user")
    cell: dict[str, object] = {
        "cell_type": "code",
        "id": str(left),
        "source": "left = 1",
        "metadata": {},
        "outputs": [],
    }
    assert await notebooks.sync(session_id, {"nbformat": 4, "cells": [cell]}) == []
    assert await notebooks.sync(session_id, {"nbformat": 4, "cells": [{**cell, "source": "left = 2"}]}) == [
        CellEdited(execution_id=left, code="left = 2")
    ]


async def test_nothing_of_a_session_that_is_not_there(notebooks: NotebookService) -> None:
    for export in (notebooks.export, notebooks.lines):
        with pytest.raises(NotFound):
            await export(new_id())
