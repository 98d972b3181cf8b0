"""Finds the columns and values that a question names, tolerant of case, plural, underscores, units and spelling; pure.

Each mention covers a stretch of the question. The result is the question with mentions masked (`@c0`, `@v1`), on which
patterns for filters and intents can work without tripping over the words of names.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from carrel_gateway.agents.models.analyst.table import Column, Table
from carrel_gateway.agents.models.analyst.words import (
    STOP_WORDS,
    are_synonyms,
    name_words,
    similarity,
    singular,
    without_units,
    word_set,
)

_LONGEST: Final = 6
"""Words of one mention at most."""
_CLOSE: Final = 0.8
"""Spellings at least this alike, with the same first letter and digits, are the same: one slip in five letters."""
_SHORTEST_FUZZY: Final = 5
_SOMEWHAT_ALIKE: Final = 0.6
_TOKEN: Final = re.compile(r"[^\W_]+(?:[_.][^\W_]+)*|_\w+")
_NOT_VALUES: Final = frozenset({"yes", "no", "true", "false", "none", "other", "mean", "total", "average", "all"})
_ROW_MARKS: Final = frozenset({"id", "date", "time", "key", "code", "number", "index", "nr", "no", "uuid"})
_PATTERN_WORDS: Final = word_set(
    "average mean median total sum minimum maximum min max count highest lowest largest smallest most least top "
    "correlation trend distribution histogram outlier missing predict compare difference relationship plot "
    "percentage share proportion standard deviation different unique distinct overview describe summary month "
    "monthly yearly week quarter daily"
)
"""Words with a meaning of their own: a column is meant by them only when it is called so."""


@dataclass(frozen=True, slots=True)
class Mention:
    """A stretch of the question and the column it may mean; several when it is not certain."""

    start: int
    end: int
    text: str
    columns: tuple[str, ...]
    score: float

    @property
    def column(self) -> str:
        return self.columns[0]


@dataclass(frozen=True, slots=True)
class ValueMention:
    """A stretch of the question that is a value of a column."""

    start: int
    end: int
    column: str
    value: str


@dataclass(slots=True)
class Masked:
    """The question with its mentions masked."""

    text: str
    columns: list[Mention] = field(default_factory=list[Mention])
    values: list[ValueMention] = field(default_factory=list[ValueMention])

    @property
    def ambiguous(self) -> list[Mention]:
        return [mention for mention in self.columns if len(mention.columns) > 1]


def mask(question: str, table: Table) -> Masked:
    """Return the question with the table's columns and values masked, in lower case."""
    columns = _find_columns(question, table)
    values = _find_values(question, table, columns)
    columns = [
        mention for mention in columns if not any(_overlap(mention, value) for value in values) or mention.score >= 0.9
    ]
    values = [value for value in values if not any(_overlap(value, mention) for mention in columns)]
    pieces: list[str] = []
    at = 0
    marks = [(m.start, m.end, f"@c{n}") for n, m in enumerate(columns)]
    marks += [(v.start, v.end, f"@v{n}") for n, v in enumerate(values)]
    for start, end, mark in sorted(marks):
        pieces += [question[at:start], mark]
        at = end
    text = "".join([*pieces, question[at:]]).lower()
    return Masked(re.sub("[\"'\u201c\u201d\u2018\u2019`]", "", text), columns, values)


def match_name(words: tuple[str, ...], column: Column) -> float:  # noqa: PLR0911 (a ladder of ever weaker matches)
    """Return how well the words (singular, lower case) name the column, from 0 (not at all) to 1."""
    full = name_words(column.name)
    if not full or not words:
        return 0.0
    bare = without_units(full)
    if words == full:
        return 1.0
    if words == bare:
        return 0.97
    said, joined = "".join(words), "".join(bare)
    if said in (joined, "".join(full)):
        return 0.95
    digits = re.findall(r"\d", said) == re.findall(r"\d", joined)
    if len(said) >= _SHORTEST_FUZZY and len(joined) >= _SHORTEST_FUZZY and said[0] == joined[0] and digits:
        alike = similarity(said, joined)
        if alike >= _CLOSE:
            return 0.9 * alike
    if all(word not in STOP_WORDS and word not in _PATTERN_WORDS for word in words) and set(words) <= set(bare):
        return 0.5 + 0.1 * len(words) / len(bare)
    if len(words) == len(bare) and all(a == b or are_synonyms(a, b) for a, b in zip(words, bare, strict=True)):
        return 0.45
    if len(words) == 1 and words[0] not in STOP_WORDS and any(are_synonyms(words[0], word) for word in bare):
        return 0.3
    return 0.0


def _find_columns(question: str, table: Table) -> list[Mention]:
    found: list[Mention] = []
    for start, end, words in _stretches(question):
        single = words[0] if "".join(words) == words[0] else None
        if single and (single in STOP_WORDS or single.isdigit()):
            exact = [c.name for c in table.columns if c.name.casefold() == single and len(single) > 3]
            if not exact:
                continue
        if words[0] in STOP_WORDS or words[-1] in STOP_WORDS:
            scores = {c.name: 1.0 for c in table.columns if name_words(c.name) == words}
        else:
            scores = {c.name: match_name(words, c) for c in table.columns}
        best = max(scores.values(), default=0.0)
        if best <= 0 or (best < 0.9 and single in _PATTERN_WORDS):
            continue
        names = tuple(name for name, score in scores.items() if score > best - 0.02)
        mention = Mention(start, end, question[start:end], names, best)
        if best >= 0.9 or not _is_entity(question, mention, table):
            found.append(mention)
    return _without_overlaps(found)


def _is_entity(question: str, mention: Mention, table: Table) -> bool:
    """Return whether `orders` means the rows, not `order_id` or `order_date`; by, per and which do mean a column."""
    said = set(name_words(mention.text))
    rest = {word for name in mention.columns for word in name_words(name)} - said
    before = question[: mention.start].split()[-1:]
    asked = {word.casefold() for word in before} & {"by", "per", "each", "which", "what", "top"}
    of_rows = all(table[name].kind == "date" or table.is_identifier(table[name]) for name in mention.columns)
    return rest <= _ROW_MARKS and not asked and of_rows


def _stretches(question: str) -> Iterator[tuple[int, int, tuple[str, ...]]]:
    """Yield every run of up to `_LONGEST` neighbouring words: start, end, words in the singular."""
    tokens = list(_TOKEN.finditer(question))
    for first in range(len(tokens)):
        for last in range(first, min(first + _LONGEST, len(tokens))):
            start, end = tokens[first].start(), tokens[last].end()
            between = [
                question[a.end() : b.start()] for a, b in zip(tokens[first:last], tokens[first + 1 :], strict=False)
            ]
            if any(re.search(r"[,;:?!]|\.\s", gap) for gap in between):
                break
            words = name_words(question[start:end])
            if words:
                yield start, end, words


def _without_overlaps(found: list[Mention]) -> list[Mention]:
    """Keep the best of overlapping mentions: the surest, then the longest."""
    kept: list[Mention] = []
    ranked = sorted(found, key=lambda m: (-(m.score >= 0.9), -(m.end - m.start) * (m.score >= 0.5), -m.score))
    for mention in ranked:
        if not any(_overlap(mention, other) for other in kept):
            kept.append(mention)
    return sorted(kept, key=lambda mention: mention.start)


def _find_values(question: str, table: Table, columns: list[Mention]) -> list[ValueMention]:
    mentioned = {name for mention in columns for name in mention.columns}
    found: list[ValueMention] = []
    for column in sorted(table.columns, key=lambda c: c.name not in mentioned):
        for value in sorted(column.named, key=len, reverse=True):
            found += _occurrences(question, column, value)
    kept: list[ValueMention] = []
    for mention in sorted(found, key=lambda v: v.start - v.end):  # the longest first; stable, so mentioned columns win
        if not any(_overlap(mention, other) for other in kept):
            kept.append(mention)
    return sorted(kept, key=lambda mention: mention.start)


def _occurrences(question: str, column: Column, value: str) -> Iterator[ValueMention]:
    plain = value.strip()
    common = plain.casefold() in STOP_WORDS or plain.casefold() in _NOT_VALUES or plain.casefold() in _PATTERN_WORDS
    if len(plain) == 1:
        yield from _letters(question, column, value)
        return
    if re.fullmatch(r"[\d.,\s-]+", plain) or common:
        return
    for found in re.finditer(rf"(?<!\w){re.escape(plain)}(?:s|es)?(?!\w)", question, re.IGNORECASE):
        yield ValueMention(found.start(), found.end(), column.name, value)


def _letters(question: str, column: Column, value: str) -> Iterator[ValueMention]:
    """A single letter is a value when it is written as in the table and stands as one: `A and B`, `type C`."""
    if not value.strip().isalpha():
        return
    before = "|".join(
        [r"and", r"or", r"vs\.?", r"versus", r"is", r"=", *(re.escape(word) for word in name_words(column.name))]
    )
    letter = re.escape(value.strip())
    pattern = rf"(?:\b(?:{before})s?\s+)?(?<!\w)(?P<value>{letter})(?!\w)(?P<after>\s*(?:,|and|or|vs|versus)\b)?"
    for found in re.finditer(pattern, question):
        if found.start() != found.start("value") or found["after"]:
            yield ValueMention(found.start("value"), found.end("value"), column.name, value)


def _overlap(left: Mention | ValueMention, right: Mention | ValueMention) -> bool:
    return left.start < right.end and right.start < left.end


def nearest_names(word: str, table: Table, count: int = 2) -> list[str]:
    """Return the columns whose names are much like the word, for "did you mean"."""
    said = singular(word)
    alike = {c.name: max(similarity(said, part) for part in (*name_words(c.name), c.name)) for c in table.columns}
    return [name for name in sorted(alike, key=lambda name: -alike[name]) if alike[name] >= _SOMEWHAT_ALIKE][:count]
