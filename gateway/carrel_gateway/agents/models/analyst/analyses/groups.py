"""A statistic of each group: `average X by Y`, also by two columns, by ranges of a number, and by parts of a date."""

from __future__ import annotations

from typing import Any

from carrel_gateway.agents.models.analyst.analyses.statistic import names_of
from carrel_gateway.agents.models.analyst.code import cell, grouping, join, key, png, save
from carrel_gateway.agents.models.analyst.code import title as plot_title
from carrel_gateway.agents.models.analyst.request import Request
from carrel_gateway.agents.models.analyst.table import Table
from carrel_gateway.agents.models.analyst.writing import (
    STATISTIC_WORDS,
    basis,
    listed,
    markdown_table,
    number,
    paragraphs,
    shown,
    where,
)

_MOST_GROUPS = 50
"""Groups in the facts; the plot shows fewer."""


def title(request: Request) -> str:
    """Return the step of the plan."""
    words = listed([STATISTIC_WORDS[name] for name in names_of(request)])
    by = listed([*request.by, *([request.period] if request.period else [])])
    return f"Work out the {words} of {listed(request.targets)} by {by}{where(request)}, and plot it"


def code(request: Request, table: Table) -> str:
    """Return the cell."""
    line, name, by = grouping(request, table)
    target, *others = request.targets
    if others:
        return join(line, _several(request, name, by))
    names = names_of(request)
    aggregations = ", ".join(
        [*(_aggregation(one, request) for one in names), *([] if "count" in names else ['count="count"'])]
    )
    order = f'.sort_values("{names[0]}", ascending=False)' if not _is_ordered(request, table) else ""
    text = cell(f"""
        groups = {name}.dropna(subset={[*by, target]!r}).groupby({key(by)})[{target!r}].agg({aggregations}){order}
        print(groups.to_string())
        facts(
            rows=len({name}),
            used=int(groups["count"].sum()),
            number_of_groups=len(groups),
            groups=groups.head({_MOST_GROUPS}).reset_index().to_dict("records"),
        )
    """)
    return join(line, text, _plot(request, by, names[0]))


def _is_ordered(request: Request, table: Table) -> bool:
    """Groups that have an order of their own keep it."""
    return request.period is not None or any(table[name].is_year for name in request.by)


def _aggregation(name: str, request: Request) -> str:
    if name == "quantile":
        return f"quantile=lambda values: values.quantile({request.quantile:g})"
    if name == "range":
        return "range=lambda values: values.max() - values.min()"
    return f'{name}="{name}"'


def _several(request: Request, name: str, by: list[str]) -> str:
    statistic = names_of(request)[0]
    how = f"quantile({request.quantile:g})" if statistic == "quantile" else f"agg({statistic!r})"
    return cell(f"""
        groups = {name}.groupby({key(by)})[{list(request.targets)!r}].{how}
        print(groups.to_string())
        facts(rows=len({name}), table=groups.head({_MOST_GROUPS}).reset_index().to_dict("records"))
    """)


def _plot(request: Request, by: list[str], name: str) -> str:
    target, words = request.targets[0], STATISTIC_WORDS[name]
    heading = plot_title(request, f"{words} of {target} by {listed(by)}".capitalize())
    drawn = f'groups["{name}"].head(20)'
    if len(by) == 2:
        draw = (
            f'groups["{name}"].unstack().head(20).plot.bar(ax=ax)\nax.set(title={heading}, xlabel={by[0]!r}, '
            f"ylabel={f'{words} of {target}'!r})"
        )
    else:
        draw = (
            f'{drawn}.iloc[::-1].plot.barh(ax=ax, color="steelblue")\nax.set(title={heading}, '
            f"xlabel={f'{words} of {target}'!r}, ylabel={by[0]!r})"
        )
    return "\n" + join("fig, ax = plt.subplots(figsize=(7, 4.5))", draw, save(png(words, target, "by", *by)))


def answer(request: Request, facts: dict[str, Any]) -> str:
    """Return the answer."""
    names = names_of(request)
    if "table" in facts:
        rows = list(facts["table"])
        words = STATISTIC_WORDS[names[0]]
        return paragraphs(
            f"The {words} of each column by {listed(_by(rows, request))}{where(request)}:",
            markdown_table(rows, list(rows[0])),
        )
    rows = list(facts["groups"])
    if not rows:
        return f"No group is left: no row has both {request.targets[0]} and {listed(request.by)}."
    by = [name for name in rows[0] if name not in (*names, "count")]
    best = max(rows, key=lambda row: row[names[0]])
    least = min(rows, key=lambda row: row[names[0]])
    words, target = STATISTIC_WORDS[names[0]], request.targets[0]
    lead = f"The {words} of {target}{where(request)} is highest for **{_name(best, by)}** ({number(best[names[0]])})"
    lead += f" and lowest for **{_name(least, by)}** ({number(least[names[0]])})." if len(rows) > 1 else "."
    more = int(facts["number_of_groups"]) - len(rows)
    columns = [*by, *names, *([] if "count" in names else ["count"])]
    heads = [*by, *(STATISTIC_WORDS[name] for name in names), *([] if "count" in names else ["rows"])]
    return paragraphs(
        lead,
        markdown_table(rows, columns, heads),
        f"{number(more)} further groups are not listed." if more > 0 else "",
        basis(int(facts["used"]), int(facts["rows"])),
    )


def _by(rows: list[dict[str, Any]], request: Request) -> list[str]:
    return [name for name in rows[0] if name not in request.targets]


def _name(row: dict[str, Any], by: list[str]) -> str:
    return " / ".join(shown(row[name]) for name in by)
