"""Notebooks that come back.

Plan: nothing changed, changed, added and removed cells, both forms of a source, unknown ids and other types, and
everything that is no notebook.
"""

from __future__ import annotations

from itertools import count
from uuid import UUID

import pytest

from carrel_gateway.errors import InvalidInput
from carrel_gateway.notebook.sync import MAX_CELLS, edits
from carrel_wire.log import CellEdited

FIRST, SECOND = UUID(int=1), UUID(int=2)
KNOWN = {FIRST: "a = 1", SECOND: "a + 1"}


def sync(*cells, known=KNOWN, **members):
    numbers = count(100)
    return edits({"nbformat": 4, "cells": list(cells), **members}, known, lambda: UUID(int=next(numbers)))


def code(source, cell_id=None):
    return {"cell_type": "code", "source": source, **({} if cell_id is None else {"id": str(cell_id)})}


def test_nothing_changed():
    assert (
        sync(code("a = 1", FIRST), code(["a ", "+ 1"], SECOND), {"cell_type": "markdown", "source": "new text"}) == []
    )


def test_changed_cell_keeps_its_id():
    assert sync(code("a = 2", FIRST), code("a + 1", SECOND)) == [CellEdited(execution_id=FIRST, code="a = 2")]


def test_new_cells_get_ids_in_order():
    assert sync(code("x"), code("y", "not-a-uuid"), code("z", UUID(int=77))) == [
        CellEdited(execution_id=UUID(int=100), code="x"),
        CellEdited(execution_id=UUID(int=101), code="y"),
        CellEdited(execution_id=UUID(int=102), code="z"),
    ]


def test_removed_and_empty_cells_say_nothing():
    assert sync(code("  \n"), code("")) == []


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({}, "must be of nbformat 4"),
        ({"nbformat": 3, "worksheets": []}, "must be of nbformat 4"),
        ({"nbformat": 4, "cells": {}}, "must be of nbformat 4"),
        ({"nbformat": 4, "cells": ["x"]}, "every cell of the notebook must be an object"),
        ({"nbformat": 4, "cells": [{"cell_type": "code", "source": 7}]}, "source of a cell must be text"),
        ({"nbformat": 4, "cells": [{"cell_type": "code", "source": ["a", 7]}]}, "source of a cell must be text"),
        ({"nbformat": 4, "cells": [{"cell_type": "code", "source": "a\0"}]}, "must not hold the character NUL"),
        ({"nbformat": 4, "cells": [{}] * (MAX_CELLS + 1)}, f"at most {MAX_CELLS} cells"),
    ],
)
def test_no_notebook(document, message):
    with pytest.raises(InvalidInput, match=message) as caught:
        edits(document, KNOWN, lambda: UUID(int=1))
    assert caught.value.code == "invalid_notebook"
