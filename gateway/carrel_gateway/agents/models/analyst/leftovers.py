"""Finds what of a question was not understood, so that it is refused and not answered as another question; pure.

What is left of the masked text once conditions, groups and targets were taken may hold filler words, but no number, no
span of time, no negation, no word after a preposition that could be a value: each of these is a condition that no
part of the request stands for.
"""

from __future__ import annotations

import re
from typing import Final

from carrel_gateway.agents.models.analyst.dates import MONTH
from carrel_gateway.agents.models.analyst.patterns import EXTREME, NO_NAMES, RATE, SHARE, TOP
from carrel_gateway.agents.models.analyst.question import Reading
from carrel_gateway.agents.models.analyst.request import Request, Unanswerable
from carrel_gateway.agents.models.analyst.words import STOP_WORDS, UNITS, name_words, singular, word_set

_DATES: Final = (
    "Of times I read years (“in 2023”), months (“in March 2023”), quarters (“in Q3 2023”), dates (“after 2023-06-01”, "
    "“between 2023-03-01 and 2023-05-31”)."
)
_CONDITIONS: Final = (
    "Conditions are read as “where COLUMN is VALUE”, “COLUMN above 10”, “in VALUE” or “not in VALUE” with values that "
    "the table holds."
)
_TIMES: Final = (
    rf"\b(?:in|during|of|for|since|before|after|until|by|from|on|between) (?:late |early |mid-?)?{MONTH}(?! not)",
    (
        r"\b(?:last|past|previous|recent|this|next|current|coming)\s+(?:\d+ |\w+ )?"
        r"(?:years?|months?|weeks?|days?|quarters?|hours?|weekends?)\b"
    ),
    r"\b(?:on |at |during )?(?:the )?weekends?\b|\b(?:working|business) days?\b",
    r"\b(?:on|every|until|since|before|after) (?:mon|tues|wednes|thurs|fri|satur|sun)days?\b",
    r"\b(?:first|second|1st|2nd|other|last) half\b|\bh[12]\b|\bhalf of the year\b",
    r"\bq[1-4]\b|\b(?:first|second|third|fourth|1st|2nd|3rd|4th|last) quarter\b",
    r"\b(?:yesterday|today|recently|lately|nowadays)\b|\b(?:morning|evening|afternoon|night)s?\b",
    r"\b(?:at|in|during|over) (?:the )?(?:christmas|easter|summer|winter|spring|autumn|fall)\b",
)
_USED_NUMBERS: Final = (
    r"\d+(?:\.\d+)?(?:st|nd|rd|th)? percentiles?|quantiles? (?:of )?(?:0?\.\d+)",
    r"\bfirst \d+ rows\b",
    r"\b(?:to|with) \d+ (?:decimals?|decimal places|digits)\b",
)
_NUMBER: Final = r"(?<![\w@.])[-+]?\d[\w.,:/%-]*"
_NEGATION: Final = r"\b(?:not|never|except(?: for)?|excluding|isnt|arent|wasnt|werent|neither|nor|outside)\b(?: \S+)*"
_PLACES: Final = (
    r"\b(in|within|from|at|on|during|since|after|before|until|where|whose|with|without|for|of|among|despite)\s+"
    r"((?:(?:the|all|only|any|a|an|each|every|our|my|their|its|this|that|these|those|both|total|single|entire|whole)\s+)*)"
    r"([^\W\d_][\w'-]*)"
)
_LOOSE: Final = r"(?:@[vc]\d+|\bor)\s*(?:,|\bor\b|\band\b)?\s+([^\W\d_][\w-]*)"
_HARMLESS: Final = word_set(
    "total overall average mean median sum minimum maximum min max standard deviation variance percentage percent "
    "share proportion fraction rate count frequency distribution trend correlation relationship relation difference "
    "comparison outlier missing unique distinct different common frequent kind type sort case item thing entry "
    "entries record observation row sample dataset set order highest lowest largest smallest biggest most least best "
    "worst regard respect general detail particular terms term addition fact plot chart graph histogram scatter box "
    "interest help please example bar line pie following time course years months weeks days long short "
    "relative each every people person patient passenger customer plus only everything anything quantile percentile "
    "spread range result results level levels size way ways scale groups another respect basis file sheet comma "
    "first second top bottom regression model machine learning linear python pandas english words plain "
    "simple euro "
    "was were is are has have had been their my our me us them matplotlib"
)
"""Words that may stand after a preposition without being a condition."""
_AGAINST_FIGURE: Final = (
    r"\b(?:above|below|over|under|(?:more|less|higher|lower|larger|smaller|greater|fewer) than)\s+(?:the )?"
    r"(?:overall )?(?:average|mean|median|typical)"
)
_SELECTION: Final = (
    rf"\b(?:of|for|among|in) (?:the |all )?(?:\d+ )?[\w-]+ (?:with|having|that have|of) (?:the )?(?:{EXTREME})"
)
_RANKS: Final = ("rank", "frequency")


def not_understood(reading: Reading, request: Request) -> Unanswerable | None:  # noqa: PLR0911 (one exit for each kind)
    """Return the refusal when the question holds a condition that the request does not."""
    text = reading.text
    if request.intent not in _RANKS:
        chosen = re.search(_SELECTION, text)
        if chosen:
            return _refusal(reading, chosen.group(0), "A statistic of the rows with the highest or lowest values")
    against = re.search(_AGAINST_FIGURE, text)
    if against:
        return _refusal(reading, against.group(0), _CONDITIONS)
    for pattern in _TIMES:
        match = re.search(pattern, text)
        if match:
            return _refusal(reading, match.group(0), _DATES)
    numbers = text
    for used in (*_USED_NUMBERS, *([TOP] if request.top else [])):
        numbers = re.sub(used, " ", numbers)
    match = re.search(
        rf"(?:\b(?:in|on|after|before|since|until|from|of|for|by|above|below|than)\s+)?{_NUMBER}", numbers
    )
    if match and not _is_lowest_few(numbers):
        return _refusal(reading, match.group(0), f"{_DATES} {_CONDITIONS}")
    if _has_or(reading, request):
        return _refusal(
            reading, "or", "Several conditions are joined by “and” only; “A or B” joins values of one column."
        )
    match = re.search(_NEGATION, text)
    if match:
        return _refusal(reading, match.group(0), _CONDITIONS)
    return _unknown_word(reading)


def _refusal(reading: Reading, phrase: str, forms: str) -> Unanswerable:
    shown = re.sub(r"@c(\d+)", lambda m: reading.masked.columns[int(m[1])].text, phrase)
    shown = re.sub(r"@v(\d+)", lambda m: reading.masked.values[int(m[1])].value, shown).replace("@by", "…")
    shown = " ".join(shown.split()).strip(" ?!.,;")
    if not forms.endswith("."):
        forms = f"{forms} is more than I work out in one question."
    return Unanswerable(f"I did not understand “{shown}” and will not leave it out silently. {forms}")


def _is_lowest_few(text: str) -> bool:
    """`lowest 5 X`, of which the lowest is shown."""
    return re.search(rf"{EXTREME}\s+\d+\b", text) is not None


def _has_or(reading: Reading, request: Request) -> bool:
    """Whether `or` joins conditions: more than the values of one column, or two years."""
    conditions = [*request.filters, *([request.part] if request.part else [])]
    if len(conditions) < 2:
        return False
    text = reading.masked.text
    for match in re.finditer(r"@v(\d+)(?:\s*(?:,|\bor\b|,\s*or\b)\s*(?:in |the )*@v(\d+))+", text):
        columns = {reading.masked.values[int(number)].column for number in re.findall(r"@v(\d+)", match.group(0))}
        if len(columns) == 1:
            text = text.replace(match.group(0), " ")
    text = re.sub(r"\b\d{4} or (?:in )?\d{4}\b|\bmore or less\b|\bor (?:more|less|fewer)\b", " ", text)
    return re.search(r"\bor\b|\beither\b", text) is not None


def _unknown_word(reading: Reading) -> Unanswerable | None:
    files = set(name_words(reading.table.file)) | {"data"}
    for match in re.finditer(_PLACES, reading.text):
        place, filler, word = match.groups()
        if _is_harmless(word, files) or (
            place in ("of", "for", "from", "with", "among") and not _may_be_value(reading, word)
        ):
            continue
        return _refusal(reading, f"{place} {filler}{word}", _CONDITIONS)
    for match in re.finditer(_LOOSE, reading.text):
        word = match.group(1)
        if not _is_harmless(word, files) and _is_capital(reading, word):
            return _refusal(reading, word, _CONDITIONS)
    return None


def _is_harmless(word: str, files: set[str]) -> bool:
    forms = {word, singular(word), *name_words(word)}
    return (
        bool(forms & (STOP_WORDS | NO_NAMES | UNITS | _HARMLESS))
        or set(name_words(word)) <= files
        or word.endswith("ing")
    )


def _may_be_value(reading: Reading, word: str) -> bool:
    """A plural in small letters names the rows ("of the wines"); another word may be a value."""
    return _is_capital(reading, word) or not word.endswith(("s", "people"))


def _is_capital(reading: Reading, word: str) -> bool:
    found = re.search(rf"(?<!\w){re.escape(word)}(?!\w)", reading.question, re.IGNORECASE)
    return found is not None and found.start() > 0 and found.group(0)[0].isupper()


def share_of_number(reading: Reading) -> Unanswerable | None:
    """Return the refusal of the share of a total, as only shares of rows are worked out."""
    numbers = [name for name in reading.numbers if not reading.table[name].is_binary]
    text = re.sub("percentiles?", " ", reading.text)
    if not numbers or not re.search(SHARE.removesuffix(RATE), text):
        return None
    return Unanswerable(
        f"I work out shares of rows, not of the total of `{numbers[0]}`. Ask for the total of it by group, or for the "
        "share of rows."
    )
