"""The words by which questions are understood, as patterns on the masked, lower-case question; data only."""

from __future__ import annotations

from typing import Final

from carrel_gateway.agents.models.analyst.request import Period, Statistic
from carrel_gateway.agents.models.analyst.words import word_set


def any_of(*patterns: str) -> str:
    """Return a pattern that is found where one of these is."""
    return "|".join(f"(?:{pattern})" for pattern in patterns)


FILLER: Final = r"(?:the |each |every |different |various |all |its |their |type of |kind of |both )*"
BY: Final = (
    r"\b(?:grouped by|group by|broken down by|split by|separated by|by|per|for each|for every|for all|in each|"
    rf"within each|of each|across|among|between|depending on|each|every)\s+{FILLER}@c(\d+)"
    rf"(?:\s*(?:,|and|&|by|x)\s*(?:by |per |for each )?{FILLER}@c(\d+))?"
)
_EACH: Final = r"(?:by|per|each|every|over the|across|which|what|@by\s*(?:and|,|&))\s+(?:the )?"
PERIODS: Final[tuple[tuple[str, Period], ...]] = (
    (rf"(?:{_EACH}|in (?:the )?)(?:days? of the week|weekdays?)|day of (?:the )?week", "weekday"),
    (rf"{_EACH}hours?(?: of (?:the )?day)?|hourly", "hour"),
    (rf"{_EACH}months?|calendar months?|monthly|month over month", "month"),
    (rf"{_EACH}quarters?|quarterly", "quarter"),
    (rf"{_EACH}years?|calendar years?|yearly|annual(?:ly)?|year over year", "year"),
    (rf"{_EACH}weeks?|weekly", "week"),
    (rf"{_EACH}(?:days?|dates?)|daily", "day"),
)
STATISTICS: Final[tuple[tuple[str, Statistic], ...]] = (
    (r"standard deviations?|std\b|\bsd\b|\bstdev\b", "std"),
    (r"variances?\b", "var"),
    (
        any_of(
            r"(?:\d+(?:\.\d+)?)(?:st|nd|rd|th)? percentiles?|quantiles?(?: 0?\.\d+)?",
            r"(?:first|third|lower|upper) quartiles?",
        ),
        "quantile",
    ),
    (r"\b(?:average|averages|mean|means|avg|expected)\b", "mean"),
    (r"\b(?:median|medians|typical)\b", "median"),
    (r"\b(?:total|totals|sum|sums|summed|overall sum)\b", "sum"),
    (
        r"\b(?:minimum|minimal|min|lowest|smallest|least|shortest|cheapest|youngest|lightest|earliest|slowest)\b",
        "min",
    ),
    (
        any_of(
            r"\b(?:maximum|maximal|max|highest|largest|biggest|greatest|longest|most expensive)\b",
            r"\b(?:oldest|heaviest|tallest|latest|fastest)\b",
        ),
        "max",
    ),
    (r"\brange\b", "range"),
    (r"\b(?:distinct|unique|different)\b", "nunique"),
)
ADJECTIVES: Final[tuple[tuple[str, tuple[str, ...]], ...]] = (
    (r"oldest|youngest|older|younger", ("age",)),
    (r"most expensive|cheapest|more expensive|cheaper|costs? more", ("price", "cost", "fare")),
    (r"heaviest|lightest|heavier|lighter|weighs? (?:more|less)", ("weight", "mass")),
    (r"tallest|taller|shortest person", ("height",)),
    (r"longest|shortest|longer|shorter", ("length", "duration")),
    (r"fastest|slowest|faster|slower", ("speed", "time")),
    (r"sells?|sold|best.?selling", ("revenue", "sales", "turnover")),
    (r"sells?|sold|best.?selling", ("units", "quantity", "amount")),
    (r"earns? (?:more|less|the most|the least)", ("salary", "wage", "income")),
)
ADDITIVE: Final = r"sale|revenue|turnover|profit|quantity|amount|units?$|count|passenger|visitor|order|cost|spend"
"""Columns of which a total means something."""
UNKNOWN_TARGET: Final = (
    r"\b(?:average|mean|median|total|sum|minimum|maximum|standard deviation|distribution|trend|histogram|variance|"
    r"predict|outliers?)\s+(?:of |in |for )?(?:the |a |an )?([a-z][a-z-]{2,})(?:\s+([a-z][a-z-]{2,}))?"
)
UNKNOWN_GROUP: Final = r"\b(?:by|per|for each|for every|grouped by|across)\s+(?:the |each )?([a-z][a-z-]{2,})"
NO_NAMES: Final = word_set(
    "value values number numbers column columns row rows record records data table everything variable "
    "variables feature features entry entries observation observations group groups month year day week quarter "
    "weekday date time hour plot chart graph histogram summary column's missing unusual name default using"
)
"""Words in the place of a name that are none."""

MORE: Final = (
    r"(?:more|less|higher|lower|larger|smaller|longer|shorter|heavier|lighter|better|worse|older|younger|taller|"
    r"greater|bigger|faster|slower|cheaper|fewer)\b"
)
EXTREME: Final = (
    r"\b(?:highest|largest|biggest|most|greatest|best|longest|heaviest|oldest|tallest|fastest|maximum|max|lowest|"
    r"smallest|least|fewest|worst|shortest|lightest|youngest|slowest|cheapest|minimum|min)\b"
)
LEAST: Final = (
    r"\b(?:lowest|smallest|least|fewest|worst|shortest|lightest|youngest|slowest|cheapest|minimum|min|bottom)\b"
)
TOP: Final = (
    r"\b(?:top|bottom|first|last)\s+(\d+)\b|\b(\d+)\s+(?:\w+ )?(?:highest|largest|biggest|most|lowest|smallest|least|"
    r"best|worst|oldest|youngest|longest|shortest|heaviest|lightest|fastest|slowest|cheapest)"
)
OFTEN: Final = r"(?:most|least) (?:common|frequent|often|popular)"
TREND: Final = any_of(
    r"\btrends?\b",
    r"over time|over the (?:years|months|weeks|days)|time series|timeline",
    r"develop(?:ed|ment)|evol(?:ve|ution)|\bchang(?:e|ed|es|ing) (?:over|with|across|since|by)",
    r"\b(?:has|have|had|did)\b.*\bchanged?\b|\bgrow(?:n|th|ing|s|ed)?\b|\bincreas|\bdecreas|\bdeclin|\bseasonal",
)
PREDICT: Final = any_of(
    r"\bpredict|\bclassif|\bregression\b|\bmachine learning\b",
    r"\b(?:train|fit|build)\b.*\bmodel\b|\bmodel(?:l?ing)? (?:of|for|@c)",
)
MISSING: Final = r"\bmissing\b|\bnulls?\b|\bnans?\b|\bincomplete\b|\bna values\b|\bempty (?:cells|values|fields)\b"
OUTLIERS: Final = r"\boutl[iy]+ers?\b|\banomal|\bunusual\b|\bextreme values?\b"
CORRELATION: Final = any_of(
    r"correlat|relationship|\brelat(?:ed?|ion|es)\b|associat|scatter|depend(?:s|ent)? on|\binfluenc|\baffect|\bimpact",
    r"\bdriv(?:e|es|er|ers)\b|\beffect of|\bexplains?\b|\blinked\b|go(?:es)? together",
)
COMPARE: Final = any_of(
    r"\bcompar|\bdiffer(?!ent values)|\bversus\b|\bvs\b|\bsignifican|\bt-?test|\banova\b",
    rf"{MORE} (?:@\w+ )*than|\bthan\b",
)
RATE: Final = r"|\brates?\b"
SHARE: Final = r"\bpercent|\bshares?\b|\bproportions?\b|\bfractions?\b|%" + RATE
FREQUENCY: Final = any_of(
    OFTEN, r"how often|\bfrequenc|value counts|\bbreakdown\b|\bmode\b|how many of each|counts? (?:of|by|per) "
)
COUNT: Final = r"how many|number of|\bcounts?\b|\bhow much data\b"
DISTRIBUTION: Final = r"\bdistribut|\bhistogram|\bspread\b|\bbox ?plot|\bviolin|\bskew|\bdensity\b"
SCHEMA: Final = any_of(
    r"\b(?:what|which|list|show|name)\b.*\b(?:columns|variables|fields|features)\b|\bdata ?types?\b|\bschema\b",
    r"\bdtypes\b|\bfirst (?:few |\d+ )?rows\b|\bhead\b|\bhow (?:big|large) is\b|\bshape\b",
)
OVERVIEW: Final = any_of(
    r"\bdescri|\banaly[sz]|\bsummar|\boverview\b|\bexplor|\binsights?\b|\binteresting\b|\btell me about\b",
    r"\blook at\b|\bwhat(?:'s| is)? in\b|\beda\b|\bprofile\b|\bfindings?\b|\bwhat can you\b|\bpatterns?\b",
)
UNSUPPORTED: Final[tuple[tuple[str, str], ...]] = (
    (r"\b(?:join|merge|combine|link)\b.*\b(?:with|and|to|files|tables)\b", "joining several tables"),
    (
        r"\bforecast|\bpredict (?:the )?next|\bnext (?:year|month|week|quarter)\b|\bin the future\b",
        "forecasting the future",
    ),
    (r"\bcluster", "clustering"),
    (r"^\s*why\b|\bcause[sd]?\b|\bcausal", "finding causes; tables alone show what goes together, not why"),
    (
        r"\b(?:delete|drop|remove|write|save|export|send|e-?mail|translate|download|scrape)\b",
        "changing, sending or fetching things",
    ),
)
