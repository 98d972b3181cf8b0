"""Work on the database written as steps: a generator that gives statements away and is sent their rows.

The same steps are carried out by every driver: within an open transaction (`Transaction.run`), by asyncpg itself with
as few round trips as there are statements, or in SQLite's own thread in one go (`Database.run`). They are run in
whatever thread the driver has, possibly twice, so they touch nothing but what they were given, and await nothing.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from typing import Any, TypeAlias, TypeVar

from sqlalchemy import Executable

T = TypeVar("T")

Values: TypeAlias = Mapping[str, Any]
Step: TypeAlias = tuple[Executable, Values | list[dict[str, Any]]]
"""A statement, built once, and its values; a list of values executes it for each, and returns no rows."""
Rows: TypeAlias = Sequence[Sequence[Any]]
"""What a statement returned; none of a statement that returns no rows."""
Steps: TypeAlias = Generator[Step, Rows, T]
"""Statements, one after the other, and in the end a result."""


def scalar(statement: Executable, values: Values) -> Steps[Any]:
    """Return the first column of the first row; none when there is no row."""
    rows = yield statement, values
    return rows[0][0] if rows else None
