"""Development over time: periods, slope, peak, also for each group."""

from __future__ import annotations

from typing import Any

import msgspec

from carrel_gateway.agents.models.analyst.code import PERIOD_CODES, cell, frame, join, png, save
from carrel_gateway.agents.models.analyst.code import title as plot_title
from carrel_gateway.agents.models.analyst.request import Period, Request
from carrel_gateway.agents.models.analyst.table import Column, Table
from carrel_gateway.agents.models.analyst.writing import (
    STATISTIC_WORDS,
    basis,
    markdown_table,
    number,
    paragraphs,
    percent,
    probability,
    where,
)

_DAYS_OF = (("year", 2200), ("month", 120), ("week", 45))
"""The period that is taken when none is named: the first whose number of days the data cover."""


def title(request: Request) -> str:
    """Return the step of the plan."""
    what = f"{STATISTIC_WORDS[request.statistic]} of {request.targets[0]}" if request.targets else "number of rows"
    by = f" for each {request.by[0]}" if request.by else ""
    return f"Follow the {what}{by} over time{where(request)}: slope, peak, plot"


def _period(request: Request, time: Column) -> Period:
    if request.period:
        return request.period
    if time.is_year:
        return "year"
    first, last = _ordinal(time.min), _ordinal(time.max)
    for period, days in _DAYS_OF:
        if last - first > days:
            return "year" if period == "year" else "month" if period == "month" else "week"
    return "day"


def _ordinal(value: Any) -> int:
    """Return a day count of an ISO date, rough where it is none."""
    try:
        year, month, day = (int(part) for part in str(value)[:10].split("-"))
    except ValueError:
        return 0
    return year * 365 + month * 30 + day


def code(request: Request, table: Table) -> str:
    """Return the cell."""
    time = table.time
    if time is None:
        raise ValueError("a trend needs a column of time")
    name, period = frame(request), _period(request, time)
    target = request.targets[0] if request.targets else None
    columns = [time.name, *([target] if target else []), *request.by]
    when = (
        f"data[{time.name!r}]"
        if time.is_year
        else f'data[{time.name!r}].dt.to_period("{PERIOD_CODES[period]}").rename({period!r})'
    )
    how = f"[{target!r}].{request.statistic}()" if target else ".size()"
    what = f"{STATISTIC_WORDS[request.statistic]} of {target}" if target else "number of rows"
    head = f"import numpy as np\nfrom scipy import stats\n\ndata = {name}[{columns!r}].dropna()"
    if request.by:
        return join(head, _groups(request, when, how, what))
    steps = (
        "series.index.to_numpy(dtype=float)"
        if time.is_year
        else "np.array([period.ordinal for period in series.index])"
    )
    text = cell(f"""
        series = data.groupby({when}){how}
        print(series.to_string())
        line = stats.linregress({steps}, series)
        facts(
            rows=len({name}),
            used=len(data),
            period={period!r},
            periods=[{{"period": str(period), "value": value}} for period, value in series.items()][-60:],
            number_of_periods=len(series),
            first=[str(series.index[0]), series.iloc[0]],
            last=[str(series.index[-1]), series.iloc[-1]],
            peak=[str(series.idxmax()), series.max()],
            trough=[str(series.idxmin()), series.min()],
            slope=line.slope,
            p=line.pvalue,
        )

        fig, ax = plt.subplots(figsize=(8, 4.5))
        ax.plot(series.index.astype(str), series.to_numpy(), marker="o" if len(series) <= 40 else None)
        ax.set(title={plot_title(request, f"{what} by {period}".capitalize())}, xlabel={period!r}, ylabel={what!r})
        ax.xaxis.set_major_locator(plt.MaxNLocator(12))
        ax.tick_params(axis="x", rotation=45)
    """)
    return join(head, text, save(png("trend", target or "rows", "by", period)))


def _groups(request: Request, when: str, how: str, what: str) -> str:
    by = request.by[0]
    text = cell(f"""
        largest = data[{by!r}].value_counts().index[:8]
        data = data[data[{by!r}].isin(largest)]
        table = data.groupby([{when}, {by!r}]){how}.unstack()
        print(table.to_string())
        lines = []
        for group in table.columns:
            values = table[group].dropna()
            slope = np.polyfit(range(len(values)), values, 1)[0] if len(values) > 1 else None
            lines.append({{"group": str(group), "first": values.iloc[0], "last": values.iloc[-1], "slope": slope}})
        facts(rows=len({frame(request)}), used=len(data), periods=[str(period) for period in table.index], lines=lines)

        fig, ax = plt.subplots(figsize=(8, 4.5))
        for group in table.columns:
            ax.plot(table.index.astype(str), table[group].to_numpy(dtype=float), marker=".", label=str(group))
        ax.set(title={plot_title(request, f"{what} by {by} over time".capitalize())}, ylabel={what!r})
        ax.xaxis.set_major_locator(plt.MaxNLocator(12))
        ax.tick_params(axis="x", rotation=45)
        ax.legend(title={by!r})
    """)
    return join(text, save(png("trend", request.targets[0] if request.targets else "rows", "by", by)))


def answer(request: Request, facts: dict[str, Any]) -> str:
    """Return the answer."""
    what = f"{STATISTIC_WORDS[request.statistic]} of {request.targets[0]}" if request.targets else "number of rows"
    if "lines" in facts:
        return _groups_answer(request, facts, what)
    first, last = msgspec.convert(facts["first"], tuple[str, float]), msgspec.convert(facts["last"], tuple[str, float])
    peak, trough = (
        msgspec.convert(facts["peak"], tuple[str, float]),
        msgspec.convert(facts["trough"], tuple[str, float]),
    )
    slope, p = float(facts["slope"]), float(facts["p"])
    direction = "no clear trend" if not p < 0.05 else "an upward trend" if slope > 0 else "a downward trend"
    change = f" ({'+' if last[1] >= first[1] else ''}{percent(last[1] / first[1] - 1)})" if first[1] else ""
    adds = request.statistic in ("sum", "count") and facts["period"] != "year"
    rows = list(facts["periods"])
    return paragraphs(
        (
            f"The {what}{where(request)} by {facts['period']} shows **{direction}**: from {number(first[1])} "
            f"({first[0]}) to {number(last[1])} ({last[0]}){change}; the fitted line changes by "
            f"**{number(slope)}** a {facts['period']} ({probability(p)})."
        ),
        (
            f"The peak is **{peak[0]}** with {number(peak[1])}, the low is **{trough[0]}** with "
            f"{number(trough[1])}, over {number(facts['number_of_periods'])} periods."
        ),
        markdown_table(rows, ["period", "value"], [str(facts["period"]), what]) if len(rows) <= 15 else "",
        basis(int(facts["used"]), int(facts["rows"]))
        + (" The first and the last period may be incomplete." if adds else ""),
    )


def _groups_answer(request: Request, facts: dict[str, Any], what: str) -> str:
    rows, periods = list(facts["lines"]), list(facts["periods"])
    rows.sort(key=lambda row: -(row["slope"] or 0))
    best, least = rows[0], rows[-1]
    slopes = [f"**{row['group']}** ({number(row['slope'])} a period)" for row in (best, least)]
    return paragraphs(
        (
            f"From {periods[0]} to {periods[-1]}, the fitted line of the {what}{where(request)} rises most, or falls "
            f"least, for {slopes[0]}, and the other way round for {slopes[1]}."
        ),
        markdown_table(
            rows, ["group", "first", "last", "slope"], [request.by[0], "first", "last", "change per period (fitted)"]
        ),
        basis(int(facts["used"]), int(facts["rows"]), "without a value or of smaller groups"),
    )
