"""Which cells of a notebook that comes back are edited or new: pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, cast
from uuid import UUID

from carrel_gateway.errors import InvalidInput
from carrel_wire.log import CellEdited

MAX_CELLS: Final = 5000
_CELL_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")


def edits(notebook: Mapping[str, Any], known: Mapping[UUID, str], new_id: Callable[[], UUID]) -> list[CellEdited]:
    """Return an event for every code cell whose source differs from what is known, in the notebook's order.

    Parameters
    ----------
    notebook
        A document of nbformat 4.
    known
        Execution id → code, as the log has it.
    new_id
        Makes the id of a cell that the log does not know.

    Raises
    ------
    InvalidInput
        The document is no notebook of nbformat 4, or has too many cells.
    """
    found: list[CellEdited] = []
    for cell in _cells(notebook):
        if cell.get("cell_type") != "code":
            continue
        code = _source(cell.get("source"))
        execution_id = _execution_id(cell.get("id"))
        if execution_id is not None and execution_id in known:
            if known[execution_id] != code:
                found.append(CellEdited(execution_id=execution_id, code=code))
        elif code.strip():
            found.append(CellEdited(execution_id=new_id(), code=code))
    return found


def _cells(notebook: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    cells = notebook.get("cells")
    if notebook.get("nbformat") != 4 or not isinstance(cells, list):
        raise InvalidInput("the notebook must be of nbformat 4 and have a list of cells", code="invalid_notebook")
    cells = cast("list[Any]", cells)
    if len(cells) > MAX_CELLS:
        raise InvalidInput(f"the notebook may have at most {MAX_CELLS} cells", code="invalid_notebook")
    if not all(isinstance(cell, Mapping) for cell in cells):
        raise InvalidInput("every cell of the notebook must be an object", code="invalid_notebook")
    return cells


def _source(source: object) -> str:
    if isinstance(source, list) and all(isinstance(line, str) for line in cast("list[Any]", source)):
        text = "".join(cast("Sequence[str]", source))
    elif isinstance(source, str):
        text = source
    else:
        raise InvalidInput("the source of a cell must be text, or a list of lines", code="invalid_notebook")
    if "\0" in text:
        raise InvalidInput("the source of a cell must not hold the character NUL", code="invalid_notebook")
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise InvalidInput("the source of a cell must be text that UTF-8 can carry", code="invalid_notebook")
    return text


def _execution_id(cell_id: object) -> UUID | None:
    if not isinstance(cell_id, str) or not _CELL_ID.fullmatch(cell_id):
        return None
    try:
        return UUID(cell_id)
    except ValueError:
        return None
