"""The log of a session as a notebook (nbformat 4.5): pure, reads nothing and runs nothing.

Questions, plans and answers become markdown, cells keep their ids and outputs. A cell that failed is marked
`raises-exception`, so that the whole runs from top to bottom. What HEAD has moved away from is left out. The outline is
made first, without outputs, and knows where in the log those of each cell are: a whole log need not be in memory.
Source: nbformat 4.5, nbclient's cell tags.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from carrel_gateway.kernels.outputs import fold
from carrel_wire.log import (
    AssistantMessage,
    CellEdited,
    CellFinished,
    CellIntended,
    CellOutputs,
    HeadMoved,
    KernelChanged,
    LogPayload,
    PlanMade,
    SessionRecovered,
    UserMessage,
)

_OUTPUT_KEYS: Final = {
    "stream": ("output_type", "name", "text"),
    "display_data": ("output_type", "data", "metadata"),
    "execute_result": ("output_type", "data", "metadata", "execution_count"),
    "error": ("output_type", "ename", "evalue", "traceback"),
}
_METADATA: Final = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python", "file_extension": ".py", "mimetype": "text/x-python"},
}


SHOWN: Final = (
    UserMessage,
    AssistantMessage,
    PlanMade,
    CellIntended,
    CellFinished,
    CellEdited,
    SessionRecovered,
    KernelChanged,
    HeadMoved,
)
"""Types of events that a notebook is made of, beside outputs."""


def notebook_of(title: str, session_id: UUID, events: Iterable[LogPayload]) -> dict[str, Any]:
    """Return the notebook of a session's events, given in order from the first."""
    outline = Outline()
    parts: dict[UUID, list[tuple[int, dict[str, Any]]]] = {}
    for seq, event in enumerate(events, 1):
        if isinstance(event, CellOutputs):
            outline.saw_outputs(seq, event.execution_id)
            parts.setdefault(event.execution_id, []).extend((seq, output) for output in event.outputs)
        else:
            outline.take(seq, event)
    cells = [
        with_outputs(cell, [output for seq, output in parts[where.execution_id] if seq >= where.first] if where else [])
        for cell, where in outline.cells()
    ]
    return {**head_of(title, session_id), "cells": cells}


def head_of(title: str, session_id: UUID) -> dict[str, Any]:
    """Return what a notebook has beside its cells."""
    carrel = {"session_id": str(session_id)}
    return {"nbformat": 4, "nbformat_minor": 5, "metadata": {**_METADATA, "title": title, "carrel": carrel}}


def with_outputs(cell: dict[str, Any], parts: list[dict[str, Any]]) -> dict[str, Any]:
    """Return a cell of the outline with its outputs, which came in parts."""
    if cell["cell_type"] != "code":
        return cell
    return {**cell, "outputs": [_plain(output) for output in fold(parts)]}


@dataclass(frozen=True, slots=True)
class OutputsAt:
    """Where in the log a cell's outputs are."""

    execution_id: UUID
    first: int
    last: int


class Outline:
    """Cells without their outputs, in the order in which they came, while the events go by."""

    def __init__(self) -> None:
        self._cells: list[tuple[int, dict[str, Any]]] = []
        self._seq = 0
        self._code: dict[UUID, dict[str, Any]] = {}
        self._outputs: dict[UUID, OutputsAt] = {}
        self._plans: dict[UUID, dict[str, Any]] = {}

    def saw_outputs(self, seq: int, execution_id: UUID) -> None:
        """Take note of an event with outputs."""
        known = self._outputs.get(execution_id)
        self._outputs[execution_id] = OutputsAt(execution_id, known.first if known else seq, seq)

    def sources(self) -> dict[UUID, str]:
        """Return the code of every cell, also of those that were left behind."""
        return {execution_id: cell["source"] for execution_id, cell in self._code.items()}

    def cells(self) -> list[tuple[dict[str, Any], OutputsAt | None]]:
        """Return the cells, and where the outputs of each are."""
        places = {str(execution_id): where for execution_id, where in self._outputs.items()}
        return [(cell, places.get(cell["id"]) if cell["cell_type"] == "code" else None) for _, cell in self._cells]

    def take(self, seq: int, event: LogPayload) -> None:
        """Take the next event."""
        self._seq = seq
        match event:
            case UserMessage(message_id=message_id, content=content):
                self._markdown(message_id, "question", f"## {_heading(content)}")
            case AssistantMessage(message_id=message_id, content=content):
                self._markdown(message_id, "answer", content)
            case PlanMade():
                self._plan(event)
            case CellIntended(execution_id=execution_id, code=code):
                self._cell(execution_id, code)
            case CellFinished():
                self._finished(event)
            case CellEdited(execution_id=execution_id, code=code):
                self._edited(execution_id, code)
            case SessionRecovered(as_of=as_of):
                when = as_of.isoformat(timespec="seconds")
                text = f"*The kernel was lost here; its variables and files are those of {when} again.*"
                self._markdown(f"kernel-{seq}", "kernel", text)
            case KernelChanged(lost_state=True, reason=reason):
                self._markdown(f"kernel-{seq}", "kernel", f"*The kernel is new here: {reason}.*")
            case HeadMoved(head=head):
                self._cells = [placed for placed in self._cells if placed[0] <= head]
            case _:
                pass

    def _add(self, cell: dict[str, Any]) -> None:
        self._cells.append((self._seq, cell))

    def _markdown(self, cell_id: UUID | str, kind: str, text: str) -> None:
        self._add(_markdown_cell(str(cell_id), kind, text))

    def _plan(self, event: PlanMade) -> None:
        marks = {"open": " ", "done": "x", "skipped": "-"}
        text = "\n".join(f"- [{marks[step.status]}] {step.title}" for step in event.steps)
        held = self._plans.get(event.run_id)
        if held is None:
            held = self._plans[event.run_id] = _markdown_cell(f"plan-{event.run_id}", "plan", text)
            self._add(held)
        held["source"] = text

    def _cell(self, execution_id: UUID, code: str) -> dict[str, Any]:
        if execution_id not in self._code:
            cell: dict[str, Any] = {
                "cell_type": "code",
                "id": str(execution_id),
                "metadata": {"carrel": {"status": "running"}},
                "execution_count": None,
                "source": code,
                "outputs": [],
            }
            self._code[execution_id] = cell
            self._add(cell)
        return self._code[execution_id]

    def _finished(self, event: CellFinished) -> None:
        if event.execution_id not in self._code and event.code is None:
            return
        cell = self._cell(event.execution_id, event.code or "")
        cell["execution_count"] = event.execution_count
        metadata: dict[str, Any] = {"carrel": {"status": event.status}}
        if event.status != "ok":
            # Whoever runs the notebook expects an error to come again, and has no use for what ended a kernel.
            metadata["tags"] = ["raises-exception" if event.status == "error" else "skip-execution"]
        cell["metadata"] = metadata

    def _edited(self, execution_id: UUID, code: str) -> None:
        cell = self._cell(execution_id, code)
        cell["source"] = code
        cell["execution_count"] = None
        cell["metadata"] = {"carrel": {"status": "edited"}}
        self._outputs.pop(execution_id, None)


def _markdown_cell(cell_id: str, kind: str, text: str) -> dict[str, Any]:
    return {"cell_type": "markdown", "id": cell_id, "metadata": {"carrel": {"kind": kind}}, "source": text}


def _heading(content: str) -> str:
    first, _, rest = content.strip().partition("\n")
    return f"{first}\n\n{rest.strip()}" if rest.strip() else first


def _plain(output: dict[str, Any]) -> dict[str, Any]:
    """Return an output with the keys of nbformat alone."""
    return {key: output[key] for key in _OUTPUT_KEYS[output["output_type"]]}
