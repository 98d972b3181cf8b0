"""Short questions that lean on the one before: "and the median?", "what about Gentoo?", "by island?"; pure."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Final

from carrel_gateway.agents.models.analyst.filters import Filter
from carrel_gateway.agents.models.analyst.patterns import EXTREME, LEAST, TOP
from carrel_gateway.agents.models.analyst.question import Reading
from carrel_gateway.agents.models.analyst.request import Request, Unanswerable

_OPENING: Final = re.compile(r"^\W*(?:and|what about|how about|now|also|same|then|only|but|ok(?:ay)?)\b")
_LONGEST_WORDS: Final = 9
_UNCHANGED: Final = (
    "I did not understand what this changes about the question before. A short question may name another column, "
    "value, group, period or statistic."
)
_RANKS: Final = ("rank", "frequency")
_TURN: Final = rf"{EXTREME}|\btop\b|\bbottom\b"
_STATISTICAL: Final = ("statistic", "group", "rank", "trend")


def is_follow_up(reading: Reading) -> bool:
    """Return whether the question is short and opens as the continuation of another one."""
    return bool(_OPENING.match(reading.text)) and len(reading.text.split()) <= _LONGEST_WORDS


def follow_up(reading: Reading, earlier: Request) -> Request | Unanswerable:
    """Return the earlier request with what the new question names in place of what was there."""
    request = replace(earlier, notes=(*reading.found.notes, "read as a continuation of the question before"))
    reading.use_loose_values()
    if reading.found.filters:
        new = {condition.column for condition in reading.found.filters}
        kept = tuple(condition for condition in earlier.filters if condition.column not in new)
        request = replace(request, filters=(*kept, *reading.found.filters))
        if earlier.compared and earlier.by and earlier.by[0] in new:
            request = replace(request, filters=kept, compared=_compared(earlier, reading.found.filters))
    statistics = reading.statistics()
    if request.intent in _RANKS and reading.has(_TURN):
        request = _turned(reading, request)
        statistics = [one for one in statistics if one not in ("min", "max")]
    if statistics and request.intent in _STATISTICAL:
        request = replace(request, statistic=statistics[0], statistics=tuple(statistics))
    groups = tuple([*reading.by, *reading.categories][:2])
    if reading.numbers and request.targets:
        request = replace(request, targets=tuple(reading.numbers[: len(request.targets)]))
    if reading.period:
        request = replace(request, period=reading.period)
    if groups:
        request = replace(request, by=groups, compared=())
        if request.intent == "statistic":
            request = replace(request, intent="group")
        elif request.intent == "count":
            request = replace(request, intent="frequency", targets=groups[:1], by=groups[1:])
    return request if _changed(reading, request, earlier) else Unanswerable(_UNCHANGED)


def _turned(reading: Reading, request: Request) -> Request:
    """Return the ranking from the end that the question names."""
    top = re.search(TOP, reading.text)
    count = int(next(group for group in top.groups() if group)) if top else request.top
    return replace(request, ascending=reading.has(LEAST), top=count)


def _changed(reading: Reading, request: Request, earlier: Request) -> bool:
    return (
        bool(reading.targets or reading.by or reading.statistics()) or replace(request, notes=earlier.notes) != earlier
    )


def _compared(earlier: Request, filters: list[Filter]) -> tuple[str, ...]:
    """Return the first value of the earlier comparison together with the new ones."""
    new = [str(value) for condition in filters if condition.column == earlier.by[0] for value in condition.values]
    return tuple(dict.fromkeys([earlier.compared[0], *new]))
