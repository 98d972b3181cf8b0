"""Spans of time that a question names to the day, month, quarter or half-year, as half-open conditions; pure.

Understood are `2024-06-01`, `01.06.2024`, `1 June 2024`, `June 1, 2024`, `2024-06`, `June 2024`, `Q3 2024` and `first
half of 2024`. Single years are read in `filters`; dates with slashes are not read, as the order of day and month is
not known.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import date, timedelta
from typing import Final, Literal, TypeAlias

Bound: TypeAlias = tuple[Literal[">=", "<"], str]
Span: TypeAlias = tuple[date, date]
"""The first day, and the first day after."""

MONTHS: Final = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
MONTH: Final = (
    r"(?:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?|oct(?:ober)?|"
    r"nov(?:ember)?|dec(?:ember)?)\b\.?"
)
_YEAR: Final = r"(?:1[5-9]|2[01])\d\d"
_ORDINALS: Final = {"first": 1, "1st": 1, "second": 2, "2nd": 2, "third": 3, "3rd": 3, "fourth": 4, "4th": 4, "last": 4}
_END: Final = r"(?![\w]|[./:-]\d)"


def _months(year: int, first: int, count: int) -> Span:
    after = first + count
    return date(year, first, 1), date(year + (after > 12), after - 12 if after > 12 else after, 1)


def _day(year: str, month: str, day: str) -> Span:
    start = date(int(year), int(month), int(day))
    return start, start + timedelta(days=1)


def _month(name: str) -> str:
    return str(MONTHS.index(name[:3]) + 1)


_FORMS: Final[tuple[tuple[str, Callable[[list[str]], Span]], ...]] = (
    (rf"({_YEAR})[-/](\d\d?)[-/](\d\d?)", lambda g: _day(g[0], g[1], g[2])),
    (rf"(\d\d?)\.(\d\d?)\.({_YEAR})", lambda g: _day(g[2], g[1], g[0])),
    (rf"(\d\d?)(?:st|nd|rd|th|\.)? (?:of )?({MONTH}),? ({_YEAR})", lambda g: _day(g[2], _month(g[1]), g[0])),
    (rf"({MONTH}) (\d\d?)(?:st|nd|rd|th)?,? ({_YEAR})", lambda g: _day(g[2], _month(g[0]), g[1])),
    (rf"({_YEAR})-(\d\d?)", lambda g: _months(int(g[0]), int(g[1]), 1)),
    (rf"({MONTH}) (?:of )?({_YEAR})", lambda g: _months(int(g[1]), int(_month(g[0])), 1)),
    (rf"q([1-4])[ -]?(?:of )?({_YEAR})", lambda g: _months(int(g[1]), 3 * int(g[0]) - 2, 3)),
    (rf"({_YEAR})[ -]?q([1-4])", lambda g: _months(int(g[0]), 3 * int(g[1]) - 2, 3)),
    (
        rf"(first|1st|second|2nd|third|3rd|fourth|4th|last) quarter (?:of |in )?({_YEAR})",
        lambda g: _months(int(g[1]), 3 * _ORDINALS[g[0]] - 2, 3),
    ),
    (
        rf"(first|1st|second|2nd) half (?:of |in )?({_YEAR})",
        lambda g: _months(int(g[1]), 6 * _ORDINALS[g[0]] - 5, 6),
    ),
)
SPAN: Final = "(?:" + "|".join(re.sub(r"\((?!\?)", "(?:", form) for form, _ in _FORMS) + ")" + _END


def span_of(text: str) -> Span | None:
    """Return the first day of the span and the first day after it; none when there is no such day."""
    for form, read in _FORMS:
        match = re.fullmatch(form, text.strip())
        if match:
            try:
                return read(list(match.groups()))
            except ValueError:
                return None
    return None


def bounds(relation: str, first: Span, last: Span | None = None) -> tuple[Bound, ...]:
    """Return the conditions that put a date into this relation to the span, or between two of them."""
    match relation:
        case "after":
            return ((">=", first[1].isoformat()),)
        case "before":
            return (("<", first[0].isoformat()),)
        case "since":
            return ((">=", first[0].isoformat()),)
        case "until":
            return (("<", first[1].isoformat()),)
        case _:
            return (">=", first[0].isoformat()), ("<", (last or first)[1].isoformat())
