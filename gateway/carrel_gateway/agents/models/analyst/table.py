"""What the first cell's facts say about a table: columns, kinds, missing values, values that the question names.

Only read from what the code handed over; the analyst never opens a file itself.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, TypeAlias, cast

import msgspec

from carrel_gateway.agents.models.analyst.words import singular

Kind: TypeAlias = Literal["number", "text", "date", "boolean"]

FACTS: Final = "application/vnd.carrel.facts"
"""MIME type of the display that the answer is written from, not shown to people: JSON as text, as it may hold NaN."""
_POSITIVE: Final = frozenset({"1", "1.0", "yes", "y", "true", "t"})
_NEGATIVE: Final = frozenset({"0", "0.0", "no", "n", "false", "f"})
_MOST_CATEGORIES: Final = 30
_YEARS: Final = (1500, 2200)


class Column(msgspec.Struct, frozen=True):
    """A column as its profile shows it."""

    name: str
    kind: Kind
    missing: int = 0
    distinct: int = 0
    min: Any = None
    max: Any = None
    values: list[str] = []
    """The most frequent values, of columns with few; the most frequent first."""
    named: list[str] = []
    """Values that occur in the question."""
    unreadable: int = 0
    """Values that were neither number nor date in a column of such; taken as missing."""

    @property
    def is_number(self) -> bool:
        return self.kind == "number"

    @property
    def is_binary(self) -> bool:
        """Two values that mean yes and no."""
        found = {value.casefold() for value in self.values}
        return self.kind == "boolean" or (self.distinct == 2 and len(found) == 2 and found <= _POSITIVE | _NEGATIVE)

    @property
    def positive(self) -> str | None:
        """The value that means yes, as it is written in the table."""
        return next((value for value in self.values if value.casefold() in _POSITIVE), None)

    @property
    def is_category(self) -> bool:
        """Good for groups: few values, again and again."""
        return self.kind in ("text", "boolean") or 1 < self.distinct <= 12

    @property
    def is_year(self) -> bool:
        """Whole numbers that are years."""
        if not self.is_number or singular(self.name).strip("_ ") not in ("year", "yr", "jahr", "season"):
            return False
        return _is_within(self.min, _YEARS) and _is_within(self.max, _YEARS)

    @property
    def is_time(self) -> bool:
        return self.kind == "date" or self.is_year


class Table(msgspec.Struct, frozen=True):
    """A table as its profile shows it."""

    file: str
    rows: int
    columns: list[Column]

    def __getitem__(self, name: str) -> Column:
        return next(column for column in self.columns if column.name == name)

    @property
    def numbers(self) -> list[Column]:
        return [column for column in self.columns if column.is_number]

    @property
    def categories(self) -> list[Column]:
        """Columns to group by, those with few values first."""
        found = [column for column in self.columns if column.is_category and 1 < column.distinct <= _MOST_CATEGORIES]
        return sorted(found, key=lambda column: column.distinct)

    @property
    def time(self) -> Column | None:
        """The column of time: the first date, or else a year."""
        dates = [column for column in self.columns if column.kind == "date"]
        years = [column for column in self.columns if column.is_year]
        return (dates or years or [None])[0]

    def is_identifier(self, column: Column) -> bool:
        """Another value in (nearly) every row; a measurement with many digits is none."""
        measured = column.is_number and not (isinstance(column.min, int) and isinstance(column.max, int))
        return not measured and column.distinct >= 0.95 * (self.rows - column.missing) and self.rows > 3


def facts_of(displays: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Return the facts that a cell handed over last, or none."""
    texts = [bundle[FACTS] for bundle in displays if FACTS in bundle]
    if not texts:
        return None
    try:
        found = json.loads(texts[-1])
    except (TypeError, ValueError):
        return None
    return cast("dict[str, Any]", found) if isinstance(found, dict) else None


def tables_of(facts: dict[str, Any]) -> list[Table]:
    """Return the tables of a profile's facts."""
    return msgspec.convert(facts.get("tables", []), list[Table], strict=False)


def _is_within(value: Any, bounds: tuple[int, int]) -> bool:
    return isinstance(value, int | float) and bounds[0] <= value <= bounds[1]
