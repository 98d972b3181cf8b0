"""Intents whose answer is a figure or a list of figures: shares, rankings, frequencies, counts, statistics; pure."""

from __future__ import annotations

import re
from dataclasses import replace

from carrel_gateway.agents.models.analyst.filters import Filter
from carrel_gateway.agents.models.analyst.leftovers import share_of_number
from carrel_gateway.agents.models.analyst.patterns import COUNT, EXTREME, FREQUENCY, LEAST, OFTEN, RATE, SHARE, TOP
from carrel_gateway.agents.models.analyst.question import Reading, with_statistics
from carrel_gateway.agents.models.analyst.request import Request, Statistic, Unanswerable


def share(reading: Reading) -> Request | Unanswerable | None:
    if not reading.has(SHARE):
        return None
    binary = [name for name in reading.targets if reading.table[name].is_binary and reading.table[name].positive]
    loose, filters = reading.found.loose, reading.found.filters
    if not binary and not loose and reading.numbers and not reading.has(SHARE.removesuffix(RATE)):
        return None  # a murder rate is a column, not a share
    refused = share_of_number(reading)
    if refused is not None and not binary:
        return refused
    part: Filter | None = None
    if binary:
        part = Filter(binary[0], "==", (reading.table[binary[0]].positive or "",))
    elif (
        filters
        and (loose or filters[-1].operator not in ("==", "year", "month") or not reading.targets)
        and not (loose and filters[-1].operator in ("==", "year", "month"))
    ):
        part = filters.pop()
    elif loose:
        among = re.search(r"(?:among|within|in|on|at|for)\s+(?:the )?@v\d+\W*$", reading.text) and len(loose) > 1
        chosen = loose[0] if among else loose[-1]
        loose.remove(chosen)
        part = Filter(chosen.column, "==", (chosen.value,))
    reading.use_loose_values()
    if part is None:
        groups = [*reading.categories, *reading.by]
        return reading.request("frequency", targets=tuple(groups[:1]), by=tuple(groups[1:2])) if groups else None
    others = [name for name in reading.categories if name != part.column and name not in binary]
    return reading.request("share", targets=(), by=tuple([*reading.by, *others][:2]), part=part)


def rank(reading: Reading) -> Request | Unanswerable | None:
    """Return the request for the first or the last of something."""
    top = re.search(TOP, reading.text)
    if not _asks_for_rank(reading, numbered=top is not None):
        return None
    entities, measures = _entities_and_measures(reading)
    named = re.search(r"which|who|top|bottom|\d", reading.text) and (top or not reading.has(r"\bwhat (?:is|was|are)\b"))
    if not entities and reading.period is None and not named:
        return None  # "what is the highest price" asks for a figure
    reading.use_loose_values()
    if len(measures) > 1:
        listed = " and ".join(f"`{name}`" for name in measures)
        return Unanswerable(f"It is not clear by which of {listed} to rank. Ask for “top 5 ITEMS by COLUMN”.")
    count = int(next(group for group in top.groups() if group)) if top else None
    ascending = reading.has(LEAST)
    if not measures:
        return _rank_without_measure(reading, entities, count, ascending=ascending)
    single = not reading.period and (not entities or reading.table.is_identifier(reading.table[entities[0]]))
    how: Statistic = "max" if single else reading.statistic_for(measures[0])
    targets, by = tuple(measures[:1]), tuple(entities[:1])
    return reading.request("rank", targets=targets, by=by, top=count, ascending=ascending, statistic=how)


def _asks_for_rank(reading: Reading, *, numbered: bool) -> bool:
    extreme = reading.has(EXTREME) or reading.has(r"\btop\b|\bbottom\b")
    if not (numbered or extreme) or reading.has(OFTEN) or reading.has(r"how many"):
        return False
    with_extreme = reading.has(r"\btop\b|\bbottom\b|@c\d+ with (?:the )?(?:\w+ )?" + EXTREME)
    return numbered or with_extreme or reading.has(r"\b(?:which|what|who|where|best|worst)\b")


def _entities_and_measures(reading: Reading) -> tuple[list[str], list[str]]:
    """Return the columns that name what is ranked, and the numbers that it is ranked by."""
    table = reading.table
    entities = [name for name in [*reading.categories, *reading.by] if table[name].kind != "date"]
    numbered = re.search(
        r"\b(?:top|bottom|first|last)\s+(?:\d+\s+)?@c(\d+)|\bwhich @c(\d+) (?:has|had|is|was)\b", reading.text
    )
    if (
        not [name for name in entities if not table[name].is_number] and numbered
    ):  # "top 5 customers by price", numbered
        item = reading.masked.columns[int(numbered.group(1) or numbered.group(2))].column
        others = [name for name in [*reading.numbers, *reading.by] if name != item and table[name].is_number]
        if item in reading.numbers and others:
            return [item], list(dict.fromkeys(others))
    if not entities:
        entities = [name for name in reading.numbers if name.casefold() == "id" or table[name].is_year]
    measures = [name for name in reading.numbers if name not in entities]
    if not measures:  # "top 5 countries by population"
        measures = [name for name in entities if table[name].is_number and name in reading.by]
        entities = [name for name in entities if name not in measures]
    return entities, measures


def _rank_without_measure(
    reading: Reading, entities: list[str], count: int | None, *, ascending: bool
) -> Request | Unanswerable | None:
    if not entities:
        return None
    if not reading.has(r"\b(?:most|least|fewest)\b"):
        numbers = tuple(column.name for column in reading.table.numbers)
        return Unanswerable(f"The question does not say by which column `{entities[0]}` is ranked.", numbers[:4])
    reading.notes.append(f"the question names no column of numbers, so the rows of each {entities[0]} are counted")
    return reading.request("frequency", targets=tuple(entities[:1]), by=(), top=count, ascending=ascending)


def frequency(reading: Reading) -> Request | None:
    if not reading.has(FREQUENCY):
        return None
    groups = [*reading.categories, *reading.by, *reading.numbers]
    if not groups:
        return None
    reading.use_loose_values()
    return reading.request(
        "frequency", targets=tuple(groups[:1]), by=tuple(groups[1:2]), ascending=reading.has(r"\bleast\b")
    )


def count(reading: Reading) -> Request | None:  # noqa: PLR0911 (one exit for each reading of the question)
    if not reading.has(COUNT):
        return None
    if reading.has(r"how many (?:columns|variables|features|fields)|number of (?:columns|variables)"):
        return reading.request("schema")
    binary = [name for name in reading.targets if reading.table[name].is_binary and reading.table[name].positive]
    distinct = reading.has(r"\b(?:distinct|unique|different|kinds? of|types? of)\b") or reading.has(
        r"how many @c\d+ (?:are|were|is|exist|do)"
    )
    names = [name for name in reading.targets if name not in binary]
    reading.use_loose_values()
    if binary:
        reading.found.filters.append(Filter(binary[0], "==", (reading.table[binary[0]].positive or "",)))
        return reading.request("count", targets=(), by=tuple(reading.by))
    if (
        names
        and reading.table[names[0]].is_number
        and not distinct
        and not reading.table.is_identifier(reading.table[names[0]])
        and not reading.table[names[0]].is_year
    ):
        request = reading.request("group" if reading.by else "statistic", targets=(names[0],))
        note = f"{names[0]} holds numbers, so its total is shown, not the number of rows"
        return with_statistics(replace(request, notes=(*request.notes, note)), ["sum"])
    if names and (distinct or not reading.by):
        intent = "group" if reading.by else "statistic"
        return with_statistics(reading.request(intent, targets=(names[0],)), ["nunique"])
    if reading.by:
        return reading.request("frequency", targets=(reading.by[0],), by=tuple(reading.by[1:2]))
    return reading.request("count", targets=())


def statistic(reading: Reading) -> Request | Unanswerable | None:
    names = reading.statistics()
    if not names:
        return None
    reading.use_loose_values()
    targets = [name for name in reading.targets if reading.table[name].is_number or "nunique" in names]
    dates = [
        name for name in reading.targets if reading.table[name].kind == "date" and set(names) <= {"min", "max", "range"}
    ]
    binary = [name for name in reading.targets if reading.table[name].is_binary and name not in targets]
    by = [*reading.by, *(name for name in reading.categories if name not in (*targets, *dates, *binary))]
    times = [name for name in reading.targets if reading.table[name].kind == "date"]
    if times and not targets and not dates:
        return Unanswerable(f"`{times[0]}` holds dates; of dates only the earliest and the latest are worked out.")
    if not targets and not dates:
        if binary:
            positive = reading.table[binary[0]].positive or ""
            return reading.request("share", targets=(), part=Filter(binary[0], "==", (positive,)))
        others = [c.name for c in reading.table.numbers if not c.is_year and c.name not in by]
        if reading.categories and not reading.by:
            reading.notes.append("the average of text means nothing, so the columns of numbers are shown")
        targets = others[:12]
    if not targets and not dates:
        return None
    request = reading.request(
        "group" if by or reading.period else "statistic",
        targets=tuple(targets or dates),
        by=tuple(by[:2]),
        quantile=_quantile(reading),
    )
    return with_statistics(request, names)


def _quantile(reading: Reading) -> float:
    percent = re.search(r"(\d{1,9}(?:\.\d{1,9})?)(?:st|nd|rd|th)? percentile", reading.text)
    part = re.search(r"quantile (?:of )?(0?\.\d+)", reading.text)
    if percent:
        return min(float(percent.group(1)) / 100, 1.0)
    if part:
        return float(part.group(1))
    return 0.75 if reading.has(r"third quartile|upper quartile") else 0.25 if reading.has(r"quartile") else 0.5
