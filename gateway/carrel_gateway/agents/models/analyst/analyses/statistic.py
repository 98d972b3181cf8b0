"""One statistic, or several, of one column or several."""

from __future__ import annotations

from typing import Any

from carrel_gateway.agents.models.analyst.code import cell, frame, join, png, save
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
    where,
)


def title(request: Request) -> str:
    """Return the step of the plan."""
    words = listed([STATISTIC_WORDS[name] for name in names_of(request)])
    return f"Work out the {words} of {listed(request.targets)}{where(request)}"


def names_of(request: Request) -> list[str]:
    """Return the statistics of a request."""
    return list(request.statistics or (request.statistic,))


def code(request: Request, table: Table) -> str:
    """Return the cell."""
    names, targets = names_of(request), list(request.targets)
    plain = [name for name in names if name not in ("quantile", "range")]
    if "range" in names:
        plain += [name for name in ("min", "max") if name not in plain]
    asked = repr([*plain, *(["count"] if "count" not in plain else [])])
    lines = [f"result = {frame(request)}[{targets!r}].agg({asked}).T"]
    if "quantile" in names:
        lines.append(f'result["quantile"] = {frame(request)}[{targets!r}].quantile({request.quantile:g})')
    if "range" in names:
        lines.append('result["range"] = result["max"] - result["min"]')
    lines += [
        "print(result.to_string())",
        f'facts(rows=len({frame(request)}), columns=result.reset_index(names="column").to_dict("records"))',
    ]
    return join(*lines, _plot(request, table, names))


def _plot(request: Request, table: Table, names: list[str]) -> str:
    """A histogram with the statistic as a line, for one column of numbers that is more than a few values."""
    target = request.targets[0]
    drawn = [name for name in names if name in ("mean", "median", "quantile")]
    if len(request.targets) > 1 or not drawn or not table[target].is_number or table[target].distinct < 5:
        return ""
    name, words = drawn[0], STATISTIC_WORDS[drawn[0]]
    drawing = cell(f"""
        fig, ax = plt.subplots(figsize=(7, 4))
        ax.hist({frame(request)}[{target!r}].dropna(), bins=30, color="steelblue", edgecolor="white")
        ax.axvline(result.loc[{target!r}, {name!r}], color="darkorange", linewidth=2, label={words!r})
        ax.set(title={plot_title(request, f"{target}: {words}")}, xlabel={target!r}, ylabel="rows")
        ax.legend()
    """)
    return "\n" + join(drawing, save(png(words, target)))


def answer(request: Request, facts: dict[str, Any]) -> str:
    """Return the answer."""
    rows, columns = int(facts["rows"]), list(facts["columns"])
    names = names_of(request)
    if len(columns) == 1:
        found = columns[0]
        first, *others = names
        said = [f"The {_words(first, request)} of {found['column']}{where(request)} is **{number(found[first])}**"]
        said += [f"the {_words(name, request)} **{number(found[name])}**" for name in others]
        return paragraphs(f"{listed(said)}.", basis(int(found["count"]), rows))
    heads = ["column", *(_words(name, request) for name in names), "rows"]
    return paragraphs(
        f"The {listed([_words(name, request) for name in names])} of each column{where(request)}:",
        markdown_table(columns, ["column", *names, "count"], heads),
        f"The table has {number(rows)} rows; missing values are left out column by column.",
    )


def _words(name: str, request: Request) -> str:
    return f"{request.quantile * 100:g} % quantile" if name == "quantile" else STATISTIC_WORDS[name]
