"""What a question asks for, as data: the result of `question.parse` and the input of every analysis."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from carrel_gateway.agents.models.analyst.filters import Filter

Intent: TypeAlias = Literal[
    "statistic",
    "group",
    "share",
    "count",
    "frequency",
    "rank",
    "compare",
    "correlation",
    "trend",
    "distribution",
    "outliers",
    "missing",
    "predict",
    "schema",
    "overview",
]
Statistic: TypeAlias = Literal[
    "mean", "median", "sum", "min", "max", "std", "var", "count", "nunique", "quantile", "range"
]
Period: TypeAlias = Literal["year", "quarter", "month", "week", "day", "weekday", "hour"]


@dataclass(frozen=True, slots=True)
class Request:
    """One analysis."""

    intent: Intent
    targets: tuple[str, ...] = ()
    by: tuple[str, ...] = ()
    filters: tuple[Filter, ...] = ()
    statistic: Statistic = "mean"
    statistics: tuple[Statistic, ...] = ()
    """All that were asked for, when there are several."""
    quantile: float = 0.5
    top: int | None = None
    ascending: bool = False
    """The least first."""
    period: Period | None = None
    compared: tuple[str, ...] = ()
    """Values of the group column that are compared."""
    part: Filter | None = None
    """Of a share: what is counted."""
    features: tuple[str, ...] = ()
    """Of a prediction: what it is made from; all when empty."""
    notes: tuple[str, ...] = ()
    """What the reader should know about how the question was understood."""


@dataclass(frozen=True, slots=True)
class Unanswerable:
    """Why a question is not answered, in words for the reader."""

    reason: str
    suggestions: tuple[str, ...] = ()
