"""Intents about what goes together: prediction, correlation, trend, comparison; pure."""

from __future__ import annotations

import re

from carrel_gateway.agents.models.analyst.columns import ValueMention
from carrel_gateway.agents.models.analyst.patterns import COMPARE, CORRELATION, EXTREME, MORE, PREDICT, TREND
from carrel_gateway.agents.models.analyst.question import Reading, with_statistics
from carrel_gateway.agents.models.analyst.request import Request, Statistic, Unanswerable


def predict(reading: Reading) -> Request | None:
    if not reading.has(PREDICT):
        return None
    reading.use_loose_values()
    names = [*reading.targets, *reading.by]
    if not names:
        return None
    match = re.search(r"(?:from|using|with|based on|given|out of|by)\b(.*)", reading.text)
    features: list[str] = []
    if match:
        said = [reading.masked.columns[int(number)].column for number in re.findall(r"@c(\d+)", match.group(1))]
        features = [name for name in said if name in names] + reading.by
    target = next((name for name in names if name not in features), names[0])
    return reading.request("predict", targets=(target,), by=(), features=tuple(f for f in features if f != target))


def correlation(reading: Reading) -> Request | None:
    strong = reading.has(CORRELATION)
    against = (
        len(reading.targets) >= 2
        and reading.has(r"@c\d+ (?:vs\.?|versus|against|and) @c\d+")
        and reading.has(r"\bvs\b|versus|against")
    )
    if not (strong or against):
        return None
    names = list(dict.fromkeys([*reading.targets, *reading.by]))
    if len(reading.found.loose) >= 2 and len(names) == 1:
        return None
    reading.use_loose_values()
    if len(names) == 2:
        numbers = [name for name in names if reading.table[name].is_number]
        others = [name for name in names if name not in numbers]
        few = [name for name in numbers if reading.table[name].distinct <= 2]
        if len(numbers) == 1 and reading.table[others[0]].kind != "date":
            return reading.request("compare", targets=(numbers[0],), by=(others[0],))
        if len(few) == 1 and not others:
            target = next(name for name in numbers if name not in few)
            return reading.request("compare", targets=(target,), by=(few[0],))
        if len(numbers) == 1:
            return reading.request("trend", targets=(numbers[0],), by=())
    return reading.request("correlation", targets=tuple(names), by=())


def trend(reading: Reading) -> Request | Unanswerable | None:  # noqa: PLR0911 (one exit per reading of the question)
    asked = reading.has(TREND)
    time = reading.table.time
    if reading.has(r"^\W*(?:in )?(?:which|what)\b|\btop \d+") and reading.has(EXTREME):
        return None  # "which year had the highest …" asks for a rank
    by_year = [name for name in reading.by if reading.table[name].is_year]
    timed = reading.period in ("year", "quarter", "month", "week", "day") or bool(by_year)
    if (not asked and not timed) or reading.found.years_beside:
        return None
    if time is None:
        return (
            Unanswerable("The question is about time, but no column holds dates or years.") if not reading.by else None
        )
    reading.use_loose_values()
    targets = [name for name in reading.numbers if name != time.name and name not in by_year]
    groups = [
        name
        for name in [*reading.by, *reading.categories]
        if name not in (time.name, *by_year) and reading.table[name].kind != "date"
    ]
    if not targets and reading.has(r"how many|number of|count"):
        return reading.request("trend", targets=(), by=tuple(groups[:1]), statistic="count")
    if not targets and not asked:
        return None
    if not targets:
        others = [column.name for column in reading.table.numbers if column.name != time.name]
        if len(others) != 1:
            return Unanswerable("Which column's development? The question names none.", tuple(others))
        targets = others
    statistic: Statistic = reading.statistic_for(targets[0])
    return reading.request("trend", targets=tuple(targets[:1]), by=tuple(groups[:1]), statistic=statistic)


def compare(reading: Reading) -> Request | None:  # noqa: PLR0911 (one exit for each reading of the question)
    words = reading.has(COMPARE)
    weaker = reading.has(MORE)
    values = _values_of_one_column(reading)
    groups = [*reading.by, *reading.categories]
    binary = [name for name in reading.targets if reading.table[name].is_binary and name not in groups]
    numbers = [name for name in reading.numbers if name not in binary] or binary[:1]
    if not words and not (weaker and (groups or binary) and numbers):
        return None
    if len(values) >= 2:
        column = values[0].column
        reading.found.loose = [value for value in reading.found.loose if value.column != column]
        reading.use_loose_values()
        compared = tuple(dict.fromkeys(value.value for value in values))
        targets = tuple(numbers[:1]) or _only_number(reading)
        return reading.request("compare", targets=targets, by=(column,), compared=compared) if targets else None
    reading.use_loose_values()
    groups += [name for name in binary if name not in numbers]
    if numbers and reading.period:
        request = reading.request("group", targets=(numbers[0],), by=tuple(groups[:1]))
        return with_statistics(request, [reading.statistic_for(numbers[0])])
    if groups and numbers:
        return reading.request("compare", targets=(numbers[0],), by=(groups[0],))
    if len(groups) >= 2:
        return reading.request("correlation", targets=tuple(groups[:2]), by=())
    if len(numbers) >= 2:
        names: list[Statistic] = ["mean", "median", "std", "min", "max"]
        return with_statistics(reading.request("statistic", targets=tuple(numbers)), names)
    return None


def _values_of_one_column(reading: Reading) -> list[ValueMention]:
    """Return the loose values of the first column of which there are several."""
    for value in reading.found.loose:
        same = [other for other in reading.found.loose if other.column == value.column]
        if len({other.value for other in same}) >= 2:
            return same
    return []


def _only_number(reading: Reading) -> tuple[str, ...]:
    """Return the table's only column of numbers, when there is but one."""
    numbers = [column.name for column in reading.table.numbers if not column.is_year]
    return (numbers[0],) if len(numbers) == 1 else ()
