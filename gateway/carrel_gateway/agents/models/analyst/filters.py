"""Conditions on rows that a question states, found on its masked text; pure.

What is understood: `X is V`, `X above 10`, `between 1 and 2`, `more than 3 X`, values alone ("female passengers"),
years, months and other spans of time ("in 2023", "after 1 June 2024", `dates`), `not in V`, `without X`, yes-no
columns by name ("for smokers").
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from carrel_gateway.agents.models.analyst.columns import Masked, ValueMention
from carrel_gateway.agents.models.analyst.dates import SPAN, bounds, span_of
from carrel_gateway.agents.models.analyst.table import Column, Table
from carrel_gateway.agents.models.analyst.words import STOP_WORDS

Operator: TypeAlias = Literal[
    "==", "!=", ">", ">=", "<", "<=", "between", "in", "year", "years", "month", "present", "missing"
]

NUMBER: Final = r"(-?\d[\d,]*(?:\.\d+)?)(?![\w.]*\d)"
_COMPARATORS: Final[tuple[tuple[Operator, str], ...]] = (
    (">=", r"at least|no less than|not less than|minimum of|>=|≥"),
    ("<=", r"at most|no more than|not more than|up to|<=|≤"),
    ("!=", r"(?:is |are |was )?not equal to|!=|<>"),
    (
        ">",
        r"(?:greater|more|larger|higher|older|longer|bigger|heavier|taller|faster) than|above|over|exceed(?:s|ing)?|>",
    ),
    ("<", r"(?:less|fewer|lower|smaller|younger|shorter|lighter|slower|cheaper) than|below|under|<"),
    ("==", r"(?:is |are |was )?equal(?:s| to)|==?|(?:is|are|was|of) exactly|exactly"),
)
_IS: Final = r"(?:is|are|was|were|being|of|has|have|values?)"
_YEAR: Final = r"(?<![\w.:/-])(1[5-9]\d\d|2[01]\d\d)(?!\w|[./:-]\d)"
_RELATIONS: Final = (
    ("after", r"after|later than"),
    ("before", r"before|prior to|earlier than"),
    ("since", r"since|from|starting(?: in| on| from)?"),
    ("until", r"until|through|up to|till"),
    ("in", r"in|during|for|of|on"),
)
_LIST: Final = r"(?:\s*(?:,|,? ?(?:and|or|nor))\s*(?:in )?@v\d+)*"
_NEGATIONS: Final = r"(?:not|isnt|arent|wasnt|werent|except(?: for)?|excluding|other than|without|outside(?: of)?)"


@dataclass(frozen=True, slots=True)
class Filter:
    """One condition on rows."""

    column: str
    operator: Operator
    values: tuple[str | float, ...] = ()

    @property
    def text(self) -> str:  # noqa: PLR0911 (one exit for each operator)
        """The condition in words."""
        shown = [value if isinstance(value, str) else f"{value:g}" for value in self.values]
        match self.operator:
            case "between":
                return f"{self.column} between {shown[0]} and {shown[1]}"
            case "in":
                return f"{self.column} is {' or '.join(shown)}"
            case "years":
                return f"{self.column} in {' or '.join(shown)}"
            case "year" | "month":
                return f"{self.column} in {'-'.join(shown)}"
            case "present" | "missing":
                return f"{self.column} is {'known' if self.operator == 'present' else 'missing'}"
            case ">=" | "<" if isinstance(self.values[0], str) and "-" in self.values[0]:
                return f"{self.column} {'from' if self.operator == '>=' else 'before'} {self.values[0]}"
            case _:
                words = {"==": "is", "!=": "is not", ">": "above", "<": "below", ">=": "at least", "<=": "at most"}
                return f"{self.column} {words[self.operator]} {shown[0]}"


@dataclass(slots=True)
class Found:
    """The filters of a question and what is left of its masked text."""

    text: str
    filters: list[Filter]
    loose: list[ValueMention]
    """Values that stand alone; whether they filter or are compared depends on the intent."""
    notes: list[str]
    years_beside: bool = False
    """Several single years were named."""


def find_filters(masked: Masked, table: Table) -> Found:
    """Take the conditions out of the masked text."""
    found = Found(masked.text, [], [], [])
    for take in (_between, _comparisons, _numbers_before, _named_values, _missing, _spans, _years, _equals, _binary):
        take(found, masked, table)
    _merge_years(found, table)
    loose = re.findall(r"@v(\d+)", found.text)
    found.loose = [masked.values[int(number)] for number in loose]
    return found


def _between(found: Found, masked: Masked, table: Table) -> None:
    pattern = (
        rf"(?:where|with|whose|and|for)?\s*@c(\d+)\s+(?:{_IS}\s+)?(?:between|from)\s+{NUMBER}\s+(?:and|to)\s+{NUMBER}"
    )
    for match in _matches(found, pattern):
        column = _column(masked, table, match.group(1))
        if column.is_number:
            _take(found, match, Filter(column.name, "between", (_number(match.group(2)), _number(match.group(3)))))


def _comparisons(found: Found, masked: Masked, table: Table) -> None:
    for operator, words in _COMPARATORS:
        pattern = rf"(?:where|with|whose|and|for|have|has)?\s*(?:an? )?@c(\d+)\s*(?:{_IS}\s+)?(?:{words})\s*{NUMBER}"
        for match in _matches(found, pattern):
            column = _column(masked, table, match.group(1))
            if column.is_number:
                _take(found, match, Filter(column.name, operator, (_number(match.group(2)),)))


def _numbers_before(found: Found, masked: Masked, table: Table) -> None:
    """`more than 3 bedrooms`."""
    for operator, words in _COMPARATORS:
        pattern = (
            rf"(?:(?:where|with|whose|and|for|have|has|having)\s+)?(?:{words})\s*{NUMBER}\s+(?:\w+ (?:of )?)?@c(\d+)"
        )
        for match in _matches(found, pattern):
            column = _column(masked, table, match.group(2))
            if column.is_number:
                _take(found, match, Filter(column.name, operator, (_number(match.group(1)),)))
    for match in _matches(found, rf"(?:with|having)\s+{NUMBER}\s+@c(\d+)"):
        column = _column(masked, table, match.group(2))
        if column.is_number:
            _take(found, match, Filter(column.name, "==", (_number(match.group(1)),)))


def _named_values(found: Found, masked: Masked, table: Table) -> None:
    """`species is Adelie`, `Dream island`, `sex = female`."""
    pattern = (
        r"(?:where |with |whose |in |on |for |and )?(?:the )?@c(\d+)\s*(?:is|are|was|were|==?|equals?|of|being"
        r"|:)?\s*(not (?:in |from |on )?|!=)?\s*@v(\d+)(?!\s*(?:,|and|or|vs\.?|versus)\s*@v)"
    )
    for match in _matches(found, pattern):
        value = masked.values[int(match.group(3))]
        if value.column == _column(masked, table, match.group(1)).name:
            _take(found, match, Filter(value.column, "!=" if match.group(2) else "==", (value.value,)))
    _excluded(found, masked, table)
    for match in _matches(found, r"(?:in |on |for |from )?(?:the )?@v(\d+)\s+@c(\d+)"):
        value = masked.values[int(match.group(1))]
        if value.column == _column(masked, table, match.group(2)).name:
            _take(found, match, Filter(value.column, "==", (value.value,)))


def _excluded(found: Found, masked: Masked, table: Table) -> None:
    """`not in North`, `excluding A and B`, `where region is not A or B`."""
    pattern = (
        r"(?:(?:where|with|whose|that are|which are)\s+)?(?:the )?(?:@c(\d+)\s+(?:is|are|was|were)\s+)?"
        rf"\b{_NEGATIONS}\s+(?:in |from |of |on |for |at )?(?:the )?(@v\d+{_LIST})"
    )
    for match in _matches(found, pattern):
        values = [masked.values[int(number)] for number in re.findall(r"@v(\d+)", match.group(2))]
        columns = {value.column for value in values}
        if len(columns) == 1 and (not match.group(1) or _column(masked, table, match.group(1)).name in columns):
            _take(found, match, *(Filter(value.column, "!=", (value.value,)) for value in values))


def _missing(found: Found, masked: Masked, table: Table) -> None:
    for match in _matches(
        found, r"(?:where|whose|with)\s+@c(\d+)\s+(?:is|are)\s+(not )?(missing|unknown|empty|null|known)"
    ):
        absent = (match.group(3) != "known") != bool(match.group(2))
        _take(found, match, Filter(_column(masked, table, match.group(1)).name, "missing" if absent else "present"))
    for match in _matches(found, r"\b(?:without|(?:have|has|had|having|with) no)\s+(?:an? |any )?@c(\d+)"):
        _take(found, match, Filter(_column(masked, table, match.group(1)).name, "missing"))


def _spans(found: Found, masked: Masked, table: Table) -> None:
    """Spans of time other than single years."""
    times = "|".join(str(n) for n, one in enumerate(masked.columns) if table[one.column].is_time) or "-"
    lead = rf"(?:(?:where|with|whose)\s+)?(?:the )?(?:@c({times})\s+(?:is |are |was )?)?\b"
    for match in _matches(found, rf"{lead}(?:between|from)\s+({SPAN})\s+(?:and|to|until|through|-)\s+({SPAN})"):
        _span(found, match, _date_column(masked, table, match.group(1)), "between")
    for relation, words in _RELATIONS:
        for match in _matches(found, rf"{lead}(?:{words})\s+(?:the )?({SPAN})"):
            column = _date_column(masked, table, match.group(1))
            if column is not None and column.is_year and relation == "in" and re.match("[a-z]", match.group(2)):
                found.notes.append(f"{column.name} holds years only, so the month was left aside")
                _take(found, match, Filter(column.name, "==", (float(match.group(2)[-4:]),)))
            else:
                _span(found, match, column, relation)


def _date_column(masked: Masked, table: Table, number: str | None) -> Column | None:
    """Return the column that a date is compared with: the one named before it, or else the table's first."""
    return table.time if number is None else _column(masked, table, number)


def _span(found: Found, match: re.Match[str], column: Column | None, relation: str) -> None:
    """Take the condition; what cannot be compared stays in the text, where it is found to be not understood."""
    spans = [span_of(text) for text in match.groups()[1:] if text]
    first, last = spans[0], spans[-1]
    if column is None or column.kind != "date" or first is None or last is None:
        return
    conditions = [Filter(column.name, operator, (day,)) for operator, day in bounds(relation, first, last)]
    _take(found, match, *conditions)


def _years(found: Found, _: Masked, table: Table) -> None:
    time = table.time
    ranges = rf"\b(?:between|from)\s+(?:the years? )?{_YEAR}\s*(?:and|to|until|through|[-\u2013])\s*{_YEAR}"
    for match in _matches(found, ranges):
        _time(found, match, time, "between", (match.group(1), match.group(2)))
    for match in _matches(
        found, rf"\b(?:(?:in|of|for|and|with)\s+)?{_YEAR}\s*(?:and|or|vs\.?|versus|with)\s*(?:in )?{_YEAR}"
    ):
        _time(found, match, time, "year", (match.group(1),))
        if time is not None:
            found.filters.append(Filter(time.name, found.filters[-1].operator, _years_of(time, match.group(2))))
    words: tuple[tuple[str, Operator], ...] = (
        (r"since|from|starting(?: in)?", ">="),
        (r"after", ">"),
        (r"before|prior to", "<"),
        (r"until|through|up to", "<="),
        (r"in|during|for|of|year", "year"),
    )
    for pattern, operator in words:
        for match in _matches(found, rf"\b(?:{pattern})\s+(?:the )?(?:years? )?{_YEAR}(?!\s*@c)"):
            _time(found, match, time, operator, (match.group(1),))


def _merge_years(found: Found, table: Table) -> None:
    """`2023 than in 2022`: single years of one column are alternatives, to be looked at beside each other."""
    single = [
        one for one in found.filters if one.operator == "year" or (one.operator == "==" and table[one.column].is_year)
    ]
    if len(single) < 2 or len({one.column for one in single}) > 1:
        return
    values = tuple(sorted((one.values[0] for one in single), key=float))
    operator: Operator = "in" if table[single[0].column].is_year else "years"
    found.filters = [one for one in found.filters if one not in single] + [Filter(single[0].column, operator, values)]
    found.years_beside = True


def _years_of(time: Column, year: str) -> tuple[str | float, ...]:
    return (float(year),) if time.is_year else (year,)


def _time(found: Found, match: re.Match[str], time: Column | None, operator: Operator, years: tuple[str, ...]) -> None:
    if time is None:
        return  # stays in the text, where it is found to be not understood
    if time.is_year:
        values = tuple(float(year) for year in years)
        _take(found, match, Filter(time.name, "==" if operator == "year" else operator, values))
    else:
        _take(found, match, Filter(time.name, operator, years))


def _equals(found: Found, masked: Masked, table: Table) -> None:
    """`where X is 3`, and `where X is word` with a word that is no value: no row is left, and the answer says so."""
    for match in _matches(found, rf"@c(\d+)\s*(?:is|are|was|equals?|==?)\s*{NUMBER}"):
        column = _column(masked, table, match.group(1))
        value: str | float = _number(match.group(2)) if column.is_number else match.group(2)
        _take(found, match, Filter(column.name, "==", (value,)))
    for match in _matches(
        found, r"\b(?:where|whose|with)\s+(?:the )?@c(\d+)\s*(?:is|are|was|equals?|==?)\s*([a-z][\w-]*)"
    ):
        column, word = _column(masked, table, match.group(1)), match.group(2)
        if column.kind in ("text", "boolean") and word not in STOP_WORDS - {"no"}:
            known = next((value for value in column.values if value.casefold() == word), word)
            _take(found, match, Filter(column.name, "==", (known,)))


def _binary(found: Found, masked: Masked, table: Table) -> None:
    """`for smokers`, where `smoker` is a column of yes and no."""
    for match in _matches(
        found, r"\b(?:for|of|among)\s+(?:all |the )?(non-?\s?)?@c(\d+)(?!\s*(?:and|vs|versus|or)\s+non)"
    ):
        mention = masked.columns[int(match.group(2))]
        column = table[mention.column]
        if column.is_binary and column.kind != "number" and mention.text.casefold().endswith("s") and column.positive:
            _take(found, match, Filter(column.name, "!=" if match.group(1) else "==", (column.positive,)))


def _matches(found: Found, pattern: str) -> list[re.Match[str]]:
    return list(re.finditer(pattern, found.text))


def _take(found: Found, match: re.Match[str], *conditions: Filter) -> None:
    if match.group(0) in found.text:
        found.filters += conditions
        found.text = found.text.replace(match.group(0), " ", 1)


def _column(masked: Masked, table: Table, number: str) -> Column:
    return table[masked.columns[int(number)].column]


def _number(text: str) -> float:
    return float(text.replace(",", ""))
