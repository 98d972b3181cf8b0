"""Chooses what a question asks for: the first intent that fits, from the most to the least specific; pure."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from carrel_gateway.agents.models.analyst.follow_up import follow_up, is_follow_up
from carrel_gateway.agents.models.analyst.intents_numbers import count, frequency, rank, share, statistic
from carrel_gateway.agents.models.analyst.intents_relations import compare, correlation, predict, trend
from carrel_gateway.agents.models.analyst.leftovers import not_understood
from carrel_gateway.agents.models.analyst.patterns import DISTRIBUTION, MISSING, OUTLIERS, OVERVIEW, SCHEMA, UNSUPPORTED
from carrel_gateway.agents.models.analyst.question import Reading, read, unknown_name, with_statistics
from carrel_gateway.agents.models.analyst.request import Request, Unanswerable
from carrel_gateway.agents.models.analyst.table import Table


def understand(question: str, table: Table, earlier: Request | None = None) -> Request | Unanswerable:
    """Return what the question asks of the table.

    `earlier` is the request of the question before, which short follow-ups ("and the median?") change only in part.
    """
    reading = read(question, table)
    if earlier is not None and is_follow_up(reading):
        request = follow_up(reading, earlier)
        return request if isinstance(request, Unanswerable) else not_understood(reading, request) or request
    refused = unsupported(reading.text) or unknown_name(reading)
    if refused:
        return refused
    for intent in _INTENTS:
        request = intent(reading)
        if isinstance(request, Request):
            return not_understood(reading, request) or request
        if request is not None:
            return request
    return Unanswerable("I could not make out which columns or which kind of analysis the question is about.")


def unsupported(text: str) -> Unanswerable | None:
    """Return the refusal of what the analyst does not do at all."""
    for pattern, what in UNSUPPORTED:
        if re.search(pattern, text.lower()):
            return Unanswerable(f"This analyst does no work of this kind: {what}.")
    return None


def _missing(reading: Reading) -> Request | None:
    if not reading.has(MISSING):
        return None
    reading.use_loose_values()
    return reading.request("missing")


def _outliers(reading: Reading) -> Request | None:
    if not reading.has(OUTLIERS):
        return None
    reading.use_loose_values()
    return reading.request("outliers", targets=tuple(reading.numbers))


def _distribution(reading: Reading) -> Request | None:
    if not reading.has(DISTRIBUTION):
        return None
    reading.use_loose_values()
    groups = [*reading.by, *reading.categories]
    if reading.numbers:
        return reading.request("distribution", targets=(reading.numbers[0],), by=tuple(groups[:1]))
    if groups:
        return reading.request("frequency", targets=(groups[0],), by=tuple(groups[1:2]))
    return None


def _schema(reading: Reading) -> Request | None:
    if reading.has(SCHEMA):
        return reading.request("schema")
    return None


def _overview(reading: Reading) -> Request | None:
    asked = reading.has(OVERVIEW)
    if not asked:
        return None
    reading.use_loose_values()
    if reading.targets or reading.by:
        return _columns_alone(reading)
    return reading.request("overview")


def _columns_alone(reading: Reading) -> Request | None:
    """Columns without a word of what to do with them: the analysis that fits their kinds, and a note of it."""
    groups = [*reading.by, *reading.categories]
    numbers = reading.numbers
    times = [name for name in [*reading.targets, *reading.by] if reading.table[name].is_time]
    reading.use_loose_values()
    if numbers and times and times[0] not in numbers[:1]:
        return reading.request("trend", targets=(numbers[0],), by=(), statistic=reading.statistic_for(numbers[0]))
    if numbers and (groups or reading.period):
        asked = reading.statistic_for(numbers[0])
        if asked == "mean":
            reading.notes.append(f"the question does not say what about {numbers[0]}, so its averages are shown")
        return with_statistics(reading.request("group", targets=tuple(numbers[:1]), by=tuple(groups[:2])), [asked])
    if len(numbers) >= 2:
        return reading.request("correlation", targets=tuple(numbers), by=())
    if numbers:
        return reading.request("distribution", targets=(numbers[0],), by=())
    if groups:
        return reading.request("frequency", targets=(groups[0],), by=tuple(groups[1:2]))
    return None


_INTENTS: Final[tuple[Callable[[Reading], Request | Unanswerable | None], ...]] = (
    predict,
    _missing,
    _outliers,
    correlation,
    trend,
    share,
    compare,
    rank,
    frequency,
    count,
    _distribution,
    statistic,
    _schema,
    _overview,
    _columns_alone,
)
