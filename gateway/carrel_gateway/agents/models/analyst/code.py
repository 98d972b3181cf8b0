"""Pieces of the code that the analyst writes: conditions, selections, names of plots; pure.

The code is meant to be read: a cell selects rows, works one thing out, shows it, draws it, and hands over the facts
that the answer is written from.
"""

from __future__ import annotations

import re
import textwrap
from typing import Final

from carrel_gateway.agents.models.analyst.filters import Filter
from carrel_gateway.agents.models.analyst.request import Period, Request
from carrel_gateway.agents.models.analyst.table import Column, Table

_OPERATORS: Final = {"==": "==", "!=": "!=", ">": ">", ">=": ">=", "<": "<", "<=": "<="}
PERIOD_CODES: Final[dict[str, str]] = {"year": "Y", "quarter": "Q", "month": "M", "week": "W", "day": "D"}
MOST_BINS: Final = 30
"""A numeric column with more values than this is cut into five groups of equal size before it is grouped by."""


def cell(text: str) -> str:
    """Return the code of a template without its indentation and empty lines at the ends."""
    return textwrap.dedent(text).strip()


def join(*parts: str) -> str:
    """Return the cells' parts one below the other, without the empty ones."""
    return "\n".join(part for part in parts if part)


def frame(request: Request) -> str:
    """Return the name of the frame that holds the request's rows."""
    return "selected" if request.filters else "df"


def selection(request: Request, table: Table) -> str:
    """Return the cell that selects the request's rows."""
    conditions = [condition(one, table) for one in request.filters]
    wanted = conditions[0] if len(conditions) == 1 else " & ".join(f"({one})" for one in conditions)
    return join(f"selected = df[{wanted}]", "facts(rows=len(df), selected=len(selected))", "selected.head()")


def condition(one: Filter, table: Table, name: str = "df") -> str:  # noqa: PLR0911 (one exit for each operator)
    """Return a condition as a boolean expression on the frame."""
    column = table[one.column]
    place = f"{name}[{one.column!r}]"
    if one.operator in ("present", "missing"):
        return f"{place}.{'notna' if one.operator == 'present' else 'isna'}()"
    if column.kind == "date":
        return _date_condition(one, place)
    if one.operator == "between":
        return f"{place}.between({literal(one.values[0], column)}, {literal(one.values[1], column)})"
    if one.operator == "in":
        return f"{place}.isin([{', '.join(literal(value, column) for value in one.values)}])"
    value = one.values[0]
    if column.kind == "boolean":
        wanted = (str(value).casefold() in ("true", "yes", "1")) == (one.operator == "==")
        return place if wanted else f"~{place}"
    if column.kind == "text" and str(value) not in (*column.values, *column.named):
        return f"{place}.str.lower() {_OPERATORS[one.operator]} {str(value).lower()!r}"
    return f"{place} {_OPERATORS.get(one.operator, '==')} {literal(value, column)}"


def literal(value: str | float, column: Column) -> str:
    """Return the value as it is written in code, of the column's kind."""
    if column.is_number:
        return f"{float(value):g}" if abs(float(value)) < 1e6 else repr(float(value))
    return repr(str(value))


def _date_condition(one: Filter, place: str) -> str:
    years = [str(value) for value in one.values]
    if one.operator in (">=", "<") and "-" in years[0]:
        return f'{place} {one.operator} "{years[0]}"'
    if one.operator == "between":
        return f"{place}.dt.year.between({years[0]}, {years[1]})"
    if one.operator == "years":
        return f"{place}.dt.year.isin([{', '.join(years)}])"
    return f"{place}.dt.year {_OPERATORS.get(one.operator, '==')} {int(float(years[0]))}"


def grouping(request: Request, table: Table) -> tuple[str, str, list[str]]:
    """Return how to group: the line that adds derived groups (or none), the frame's name, the columns to group by."""
    name, by = frame(request), list(request.by)
    added: list[str] = []
    for place, column in enumerate(by):
        one = table[column]
        if one.is_number and one.distinct > MOST_BINS and not one.is_year and request.intent != "rank":
            label = f"{column} group"
            added.append(f'{label!r}: pd.qcut({name}[{column!r}], 5, duplicates="drop").astype(str)')
            by[place] = label
    time = table.time
    if request.period and time is not None and time.kind == "date":
        added.append(f"{request.period!r}: {period_of(f'{name}[{time.name!r}]', request.period)}")
        by.append(request.period)
    line = f"grouped = {name}.assign(**{{{', '.join(added)}}})" if added else ""
    return line, "grouped" if added else name, by


def period_of(place: str, period: Period) -> str:
    """Return the expression for the period of each date."""
    if period == "weekday":
        return f"{place}.dt.day_name()"
    if period == "hour":
        return f"{place}.dt.hour"
    return f'{place}.dt.to_period("{PERIOD_CODES[period]}").astype(str)'


def key(columns: list[str]) -> str:
    """Return one column's name, or the list of several, as code."""
    return repr(columns[0]) if len(columns) == 1 else repr(columns)


def png(*words: str) -> str:
    """Return a file name for a plot."""
    text = re.sub(r"[^a-z0-9]+", "_", "_".join(words).lower()).strip("_")
    return f"{text[:80] or 'plot'}.png"


def title(request: Request, text: str) -> str:
    """Return the plot's title with the conditions on its rows, as code."""
    if request.filters:
        text += f"\n({', '.join(one.text for one in request.filters)})"
    return repr(text)


def save(name: str) -> str:
    """Return the lines that finish a plot."""
    return f"fig.tight_layout()\nfig.savefig({name!r}, dpi=150)"
