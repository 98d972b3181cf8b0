"""Words of questions and of column names, made comparable: case, plural, underscores, units, spelling; pure."""

from __future__ import annotations

import re
from difflib import SequenceMatcher
from functools import lru_cache
from typing import Final

_WORD: Final = re.compile(r"[^\W_]+")
_CAMEL: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


def word_set(text: str) -> frozenset[str]:
    """Return the words of a text."""
    return frozenset(text.split())


UNITS: Final = word_set(
    "mm cm m km in ft mi g kg mg lb lbs oz t usd eur gbp chf dollar dollars euro euros pct percent s sec ms min "
    "h hr hrs c f k w kw kwh mwh l ml hpa pa ppm nr no"
)
"""Words at the end of a column's name that a question leaves out."""
STOP_WORDS: Final = word_set(
    "a about above after all am an and any are as at be because been before being below between both but by can "
    "could did do does doing down during each every find for from further get give had has have having he her "
    "here his how i if in into is it its let list many me more most much my no not of off on once only or other "
    "our out over own per please same she show should so some such tell than that the their them then there "
    "these they this those through to too under until up use using very was we were what when where which while "
    "who whom whose why will with without would you your vs versus row rows column columns table data dataset "
    "file value values number numbers"
)
SYNONYMS: Final[tuple[frozenset[str], ...]] = tuple(
    frozenset(group.split())
    for group in (
        "revenue sale turnover",
        "salary wage income pay earning",
        "gender sex",
        "country nation",
        "weight mass",
        "price cost fare",
        "quantity amount count",
        "horsepower hp",
        "mpg mileage",
        "customer client buyer",
        "employee worker staff",
        "city town",
        "kind type category",
        "class grade",
        "length len",
        "temperature temp",
        "consumption usage",
    )
)


def singular(word: str) -> str:
    """Return the word without an English plural ending.

    >>> [singular(w) for w in ("species", "cities", "boxes", "Cars", "class", "gas")]
    ['species', 'city', 'box', 'car', 'class', 'gas']
    """
    word = word.casefold()
    if word in ("species", "series", "means", "news", "gas", "bus") or len(word) < 4:
        return word
    if word.endswith("ies"):
        return word[:-3] + "y"
    if word.endswith(("ses", "xes", "zes", "ches", "shes")) and not word.endswith(("ases", "uses", "oses", "ices")):
        return word[:-2]
    if word.endswith("s") and not word.endswith(("ss", "us", "is")):
        return word[:-1]
    return word


@lru_cache(maxsize=4096)
def name_words(name: str) -> tuple[str, ...]:
    """Return the words of a column's or file's name.

    >>> name_words("BillLength_mm"), name_words("petal length (cm)")
    (('bill', 'length', 'mm'), ('petal', 'length', 'cm'))
    """
    return tuple(singular(word) for word in _WORD.findall(_CAMEL.sub(" ", name)))


def without_units(words: tuple[str, ...]) -> tuple[str, ...]:
    """Return the words without units at their end; at least one is left."""
    while len(words) > 1 and words[-1] in UNITS:
        words = words[:-1]
    return words


def similarity(left: str, right: str) -> float:
    """Return how alike two spellings are, from 0 to 1."""
    return SequenceMatcher(None, left, right, autojunk=False).ratio()


def are_synonyms(left: str, right: str) -> bool:
    """Return whether two words mean the same in tables."""
    return any(left in group and right in group for group in SYNONYMS)
