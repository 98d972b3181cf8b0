"""Reads a question about a table whose columns are known: question → `Request`, or why it cannot be answered; pure.

The question is masked (`columns`), its conditions are taken out (`filters`), groups and periods are taken out here, and
then the first intent that fits is chosen (`intents`). Nothing is guessed silently: an unknown or ambiguous name is an
`Unanswerable`, and every choice that the question left open is a note for the reader.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace

from carrel_gateway.agents.models.analyst.columns import Masked, mask, nearest_names
from carrel_gateway.agents.models.analyst.filters import Filter, Found, find_filters
from carrel_gateway.agents.models.analyst.patterns import (
    ADDITIVE,
    ADJECTIVES,
    BY,
    NO_NAMES,
    PERIODS,
    STATISTICS,
    UNKNOWN_GROUP,
    UNKNOWN_TARGET,
)
from carrel_gateway.agents.models.analyst.request import Period, Request, Statistic, Unanswerable
from carrel_gateway.agents.models.analyst.table import Column, Table
from carrel_gateway.agents.models.analyst.words import STOP_WORDS


@dataclass(slots=True)
class Reading:
    """A question while it is read."""

    question: str
    table: Table
    masked: Masked
    found: Found
    text: str
    by: list[str] = field(default_factory=list[str])
    period: Period | None = None
    notes: list[str] = field(default_factory=list[str])
    unclear: list[str] = field(default_factory=list[str])
    """Stretches of the question that may mean several columns."""
    targets: list[str] = field(default_factory=list[str])

    def has(self, pattern: str) -> bool:
        """Return whether the rest of the question holds the pattern."""
        return re.search(pattern, self.text) is not None

    @property
    def numbers(self) -> list[str]:
        return [name for name in self.targets if self.table[name].is_number]

    @property
    def categories(self) -> list[str]:
        """Targets that make groups; a number only when it is clearly a code of few values."""
        return [name for name in self.targets if not self.table[name].is_number]

    def request(self, intent: str, **more: object) -> Request:
        """Return a request with what is common to all intents."""
        values: dict[str, object] = {
            "targets": tuple(self.targets),
            "by": tuple(self.by),
            "filters": tuple(self.found.filters),
            "period": self.period,
            "notes": (*self.found.notes, *self.notes),
            **more,
        }
        return Request(intent=intent, **values)  # type: ignore[arg-type]  # values come from the typed callers

    def use_loose_values(self) -> None:
        """Values that stand alone become conditions; several of one column are alternatives."""
        by_column: dict[str, list[str]] = {}
        for value in self.found.loose:
            by_column.setdefault(value.column, []).append(value.value)
        for column, values in by_column.items():
            self.found.filters.append(Filter(column, "in" if len(values) > 1 else "==", tuple(values)))
        self.found.loose = []

    def statistics(self) -> list[Statistic]:
        """Return the statistics that the question names, in its order."""
        places: list[tuple[int, Statistic]] = [
            (match.start(), name) for pattern, name in STATISTICS for match in re.finditer(pattern, self.text)
        ]
        return list(dict.fromkeys(name for _, name in sorted(places)))

    def statistic_for(self, name: str | None) -> Statistic:
        """Return the statistic to work out: the one named, else a sum for what adds up, else the mean."""
        named: list[Statistic] = [one for one in self.statistics() if one not in ("min", "max", "range", "nunique")]
        if named:
            return named[0]
        if name is None:
            return "count"
        if re.search(ADDITIVE, name.casefold()):
            self.notes.append(f"{name} adds up, so totals are shown; ask for the average if you meant that")
            return "sum"
        return "mean"


def read(question: str, table: Table) -> Reading:
    """Take the question apart: mentions, conditions, groups, period, and the columns that are left."""
    masked = mask(question, table)
    found = find_filters(masked, table)
    reading = Reading(question, table, masked, found, found.text)
    _take_groups(reading)
    _take_period(reading)
    _take_years_beside(reading)
    _take_targets(reading)
    _by_adjective(reading)
    return reading


def unknown_name(reading: Reading) -> Unanswerable | None:
    """Return the refusal when the question names something in a place where a column must stand."""
    if reading.unclear and not reading.targets:
        return _ambiguous(reading)
    for pattern, blocked in (
        (UNKNOWN_TARGET, bool(reading.targets)),
        (UNKNOWN_GROUP, bool(reading.by or reading.period)),
    ):
        if blocked:
            continue
        match = re.search(pattern, reading.text)
        if match is None:
            continue
        words = [word for word in match.groups() if word and word not in STOP_WORDS]
        if words and not any(re.search(p, words[0]) for p, _ in STATISTICS) and words[0] not in NO_NAMES:
            word = words[0]
            near = nearest_names(word, reading.table)
            return Unanswerable(f"No column of `{reading.table.file}` is called or looks like “{word}”.", tuple(near))
    return None


def _ambiguous(reading: Reading) -> Unanswerable:
    mention = next(m for m in reading.masked.columns if m.text in reading.unclear)
    names = ", ".join(f"`{name}`" for name in mention.columns)
    return Unanswerable(f"“{mention.text}” may mean several columns: {names}.", mention.columns)


def _take_groups(reading: Reading) -> None:
    relation = re.search(r"correlat|relation|associat|scatter|difference between @c\d+ and @c", reading.text)
    for match in list(re.finditer(BY, reading.text)):
        word = match.group(0).split()[0]
        numbers = [number for number in match.groups() if number]
        names = [_narrow(reading, int(number), group=True) for number in numbers]
        if relation and word in ("between", "among", "across"):
            continue
        if word in ("between", "among", "each", "every") and any(
            name and not _groups(reading.table[name]) for name in names
        ):
            continue
        reading.by += [name for name in names if name and name not in reading.by]
        reading.text = reading.text.replace(match.group(0), " @by ", 1)


def _take_period(reading: Reading) -> None:
    time = reading.table.time
    by_time = [name for name in reading.by if reading.table[name].kind == "date"]
    for pattern, period in PERIODS:
        match = re.search(rf"(?<!\w)(?:{pattern})\b", reading.text)
        if match and time is not None and (time.kind == "date" or period == "year"):
            if time.is_year:
                if time.name not in reading.by:
                    reading.by.append(time.name)
            else:
                reading.period = period
            reading.text = reading.text.replace(match.group(0), " @by ", 1)
            break
    if by_time:
        reading.by = [name for name in reading.by if name not in by_time]
        reading.period = reading.period or "day"


def _take_years_beside(reading: Reading) -> None:
    """Years that are named beside each other are groups."""
    time = reading.table.time
    if not reading.found.years_beside or time is None or reading.period:
        return
    if time.is_year:
        reading.by = reading.by or [time.name]
    else:
        reading.period = "year"


def _take_targets(reading: Reading) -> None:
    for match in re.finditer(r"@c(\d+)", reading.text):
        mention = reading.masked.columns[int(match.group(1))]
        name = _narrow(reading, int(match.group(1)))
        if name is None:
            reading.unclear.append(mention.text)
        elif name not in reading.targets and name not in reading.by:
            reading.targets.append(name)


def _by_adjective(reading: Reading) -> None:
    """`the oldest` asks for `age`, when there is one such column and no other number is named; earlier rows first."""
    if reading.numbers:
        return
    for pattern, names in ADJECTIVES:
        match = re.search(rf"\b(?:{pattern})\b", reading.text)
        if match is None:
            continue
        fitting = [c.name for c in reading.table.numbers if any(name in c.name.casefold() for name in names)]
        if len(fitting) == 1:
            reading.targets.append(fitting[0])
            reading.notes.append(f"“{match.group(0)}” is taken to mean {fitting[0]}")
            return


def _narrow(reading: Reading, number: int, *, group: bool = False) -> str | None:
    """Return the column that a mention means; of several, the only one that fits the place."""
    mention = reading.masked.columns[number]
    if len(mention.columns) == 1:
        return mention.column
    fitting = [name for name in mention.columns if _groups(reading.table[name]) == group]
    return fitting[0] if len(fitting) == 1 else None


def _groups(column: Column) -> bool:
    return column.kind in ("text", "boolean", "date") or column.is_category


def with_statistics(request: Request, names: list[Statistic]) -> Request:
    """Return the request for these statistics."""
    return replace(request, statistic=names[0], statistics=tuple(names)) if names else request
