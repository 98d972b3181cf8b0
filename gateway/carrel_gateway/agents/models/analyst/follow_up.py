"""Short questions that lean on the one before: "and the median?", "what about Gentoo?", "by island?"; pure."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Final

from carrel_gateway.agents.models.analyst.filters import Filter
from carrel_gateway.agents.models.analyst.question import Reading
from carrel_gateway.agents.models.analyst.request import Request

_OPENING: Final = re.compile(r"^\W*(?:and|what about|how about|now|also|same|then|only|but|ok(?:ay)?)\b")
_LONGEST_WORDS: Final = 9
_STATISTICAL: Final = ("statistic", "group", "rank", "trend")


def is_follow_up(reading: Reading) -> bool:
    """Return whether the question is short and opens as the continuation of another one."""
    return bool(_OPENING.match(reading.text)) and len(reading.text.split()) <= _LONGEST_WORDS


def follow_up(reading: Reading, earlier: Request) -> Request:
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
    return request


def _compared(earlier: Request, filters: list[Filter]) -> tuple[str, ...]:
    """Return the first value of the earlier comparison together with the new ones."""
    new = [str(value) for condition in filters if condition.column == earlier.by[0] for value in condition.values]
    return tuple(dict.fromkeys([earlier.compared[0], *new]))
