"""The log of a session as a notebook (nbformat 4.5): pure, reads nothing and runs nothing.

Questions, plans and answers become markdown, cells keep their ids and outputs. A cell that failed is marked
`raises-exception`, so that the whole runs from top to bottom. Source: nbformat 4.5, nbclient's cell tags.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final
from uuid import UUID

from carrel_gateway.kernels.outputs import fold
from carrel_wire.log import (
    AssistantMessage,
    CellEdited,
    CellFinished,
    CellIntended,
    CellOutputs,
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


def notebook_of(title: str, session_id: UUID, events: Iterable[LogPayload]) -> dict[str, Any]:
    """Return the notebook of a session's events, given in order."""
    view = _View()
    for event in events:
        view.take(event)
    return {
        "nbformat": 4,
        "nbformat_minor": 5,
        "metadata": {**_METADATA, "title": title, "carrel": {"session_id": str(session_id)}},
        "cells": view.cells(),
    }


class _View:
    """Cells in the order in which they came, while the events go by."""

    def __init__(self) -> None:
        self._cells: list[dict[str, Any]] = []
        self._code: dict[UUID, dict[str, Any]] = {}
        self._parts: dict[UUID, list[dict[str, Any]]] = {}
        self._plans: dict[UUID, dict[str, Any]] = {}

    def take(self, event: LogPayload) -> None:
        match event:
            case UserMessage(message_id=message_id, content=content):
                self._markdown(message_id, "question", f"## {_heading(content)}")
            case AssistantMessage(message_id=message_id, content=content):
                self._markdown(message_id, "answer", content)
            case PlanMade():
                self._plan(event)
            case CellIntended(execution_id=execution_id, code=code):
                self._cell(execution_id, code)
            case CellOutputs(execution_id=execution_id, outputs=outputs):
                self._parts.setdefault(execution_id, []).extend(outputs)
            case CellFinished():
                self._finished(event)
            case CellEdited(execution_id=execution_id, code=code):
                self._edited(execution_id, code)
            case SessionRecovered(as_of=as_of):
                when = as_of.isoformat(timespec="seconds")
                text = f"*The kernel was lost here; its variables and files are those of {when} again.*"
                self._cells.append(_markdown_cell(f"kernel-{len(self._cells)}", "kernel", text))
            case KernelChanged(lost_state=True, reason=reason):
                self._cells.append(
                    _markdown_cell(f"kernel-{len(self._cells)}", "kernel", f"*The kernel is new here: {reason}.*")
                )
            case _:
                pass

    def cells(self) -> list[dict[str, Any]]:
        for execution_id, cell in self._code.items():
            cell["outputs"] = [_plain(output) for output in fold(self._parts.get(execution_id, []))]
        return self._cells

    def _markdown(self, cell_id: UUID, kind: str, text: str) -> None:
        self._cells.append(_markdown_cell(str(cell_id), kind, text))

    def _plan(self, event: PlanMade) -> None:
        marks = {"open": " ", "done": "x", "skipped": "-"}
        text = "\n".join(f"- [{marks[step.status]}] {step.title}" for step in event.steps)
        held = self._plans.get(event.run_id)
        if held is None:
            held = self._plans[event.run_id] = _markdown_cell(f"plan-{event.run_id}", "plan", text)
            self._cells.append(held)
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
            self._cells.append(cell)
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
        self._parts.pop(execution_id, None)


def _markdown_cell(cell_id: str, kind: str, text: str) -> dict[str, Any]:
    return {"cell_type": "markdown", "id": cell_id, "metadata": {"carrel": {"kind": kind}}, "source": text}


def _heading(content: str) -> str:
    first, _, rest = content.strip().partition("\n")
    return f"{first}\n\n{rest.strip()}" if rest.strip() else first


def _plain(output: dict[str, Any]) -> dict[str, Any]:
    """Return an output with the keys of nbformat alone."""
    return {key: output[key] for key in _OUTPUT_KEYS[output["output_type"]]}
