"""Numbers, tables and sentences of an answer, from facts; pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, Final

from carrel_gateway.agents.models.analyst.request import Request

SIGNATURE: Final = "_Worked out by `demo/analyst`: rules and code, no language model._"
_MOST_ROWS: Final = 15

STATISTIC_WORDS: Final[dict[str, str]] = {
    "mean": "average",
    "median": "median",
    "sum": "total",
    "min": "minimum",
    "max": "maximum",
    "std": "standard deviation",
    "var": "variance",
    "count": "number",
    "nunique": "number of different values",
    "quantile": "quantile",
    "range": "range",
}


def number(value: Any) -> str:  # noqa: PLR0911 (one exit for each kind of number)
    """Return a number as people write it: thousands set off, no more digits than help.

    >>> [number(v) for v in (5076.0163, 0.000123456, 3.14159, 12, None, 2.0, 1234567.0)]
    ['5,076.02', '0.0001235', '3.142', '12', 'not known', '2', '1,234,567']
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "not known"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return shown(value)
    if isinstance(value, float) and math.isinf(value):
        return "infinite"
    if float(value).is_integer() and abs(value) < 1e15:
        return f"{int(value):,}"
    size = abs(value)
    if size >= 100:
        return f"{value:,.2f}"
    if size >= 1:
        return f"{value:,.3f}"
    return f"{value:.4g}"


def shown(value: Any) -> str:
    """Return a group's name or a date, without a time of midnight."""
    text = str(value)
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return text.removesuffix(" 00:00:00").replace("|", "/")


def percent(part: float) -> str:
    """Return a part of one as percent."""
    return f"{100 * part:.1f} %"


def probability(p: float | None) -> str:
    """Return a p-value as it is usually written."""
    if p is None or math.isnan(p):
        return "p not known"
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def markdown_table(rows: Sequence[dict[str, Any]], columns: Sequence[str], heads: Sequence[str] | None = None) -> str:
    """Return the first rows as a Markdown table, numbers to the right."""
    if not rows:
        return ""
    numeric = [all(isinstance(row.get(name), int | float) for row in rows) for name in columns]
    lines = [
        f"| {' | '.join(heads or columns)} |",
        f"| {' | '.join('---:' if right else '---' for right in numeric)} |",
    ]
    for row in rows[:_MOST_ROWS]:
        cells = [
            number(row.get(name)) if right and place else shown(row.get(name))
            for place, (name, right) in enumerate(zip(columns, numeric, strict=True))
        ]
        lines.append(f"| {' | '.join(cells)} |")
    if len(rows) > _MOST_ROWS:
        lines.append(f"\n({len(rows) - _MOST_ROWS} more not shown)")
    return "\n".join(lines)


def listed(names: Iterable[str]) -> str:
    """Return `a, b and c`."""
    items = list(names)
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}" if items else ""


def where(request: Request) -> str:
    """Return the conditions in words, with a leading blank, or nothing."""
    return f" where {listed([one.text for one in request.filters])}" if request.filters else ""


def basis(used: int, rows: int, why: str = "without a value") -> str:
    """Return what the figures rest on."""
    left = rows - used
    return f"Based on {number(used)} rows" + (f"; {number(left)} {why} left out." if left > 0 else ".")


def paragraphs(*parts: str) -> str:
    """Return the parts that are not empty, as paragraphs."""
    return "\n\n".join(part for part in parts if part)
