"""The analyses, one module a kind: each writes the code of a request, and the answer from the facts it printed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from carrel_gateway.agents.models.analyst.analyses import (
    comparison,
    counting,
    groups,
    overview,
    prediction,
    ranking,
    relation,
    shape,
    statistic,
    trend,
)
from carrel_gateway.agents.models.analyst.request import Intent, Request
from carrel_gateway.agents.models.analyst.table import Table


@dataclass(frozen=True, slots=True)
class Analysis:
    """How one kind of request is worked out."""

    code: Callable[[Request, Table], str]
    answer: Callable[[Request, dict[str, Any]], str]
    title: Callable[[Request], str]
    """The step of the plan, in words."""


ANALYSES: Final[dict[Intent, Analysis]] = {
    "statistic": Analysis(statistic.code, statistic.answer, statistic.title),
    "group": Analysis(groups.code, groups.answer, groups.title),
    "count": Analysis(counting.count_code, counting.count_answer, counting.count_title),
    "frequency": Analysis(counting.frequency_code, counting.frequency_answer, counting.frequency_title),
    "share": Analysis(counting.share_code, counting.share_answer, counting.share_title),
    "rank": Analysis(ranking.code, ranking.answer, ranking.title),
    "compare": Analysis(comparison.code, comparison.answer, comparison.title),
    "correlation": Analysis(relation.code, relation.answer, relation.title),
    "trend": Analysis(trend.code, trend.answer, trend.title),
    "distribution": Analysis(shape.distribution_code, shape.distribution_answer, shape.distribution_title),
    "outliers": Analysis(shape.outliers_code, shape.outliers_answer, shape.outliers_title),
    "missing": Analysis(overview.missing_code, overview.missing_answer, overview.missing_title),
    "predict": Analysis(prediction.code, prediction.answer, prediction.title),
    "schema": Analysis(overview.schema_code, overview.schema_answer, overview.schema_title),
    "overview": Analysis(overview.code, overview.answer, overview.title),
}
