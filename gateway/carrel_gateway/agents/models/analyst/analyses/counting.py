"""Counts of rows, of values, and shares."""

from __future__ import annotations

from typing import Any

from carrel_gateway.agents.models.analyst.code import (
    cell,
    condition,
    frame,
    grouping,
    join,
    key,
    png,
    save,
)
from carrel_gateway.agents.models.analyst.code import (
    title as plot_title,
)
from carrel_gateway.agents.models.analyst.request import Request
from carrel_gateway.agents.models.analyst.table import Table
from carrel_gateway.agents.models.analyst.writing import (
    basis,
    listed,
    markdown_table,
    number,
    paragraphs,
    percent,
    shown,
    where,
)

_MOST_TIED = 5
"""Values that share the first place and are named in the first sentence."""


def count_title(request: Request) -> str:
    """Return the step of the plan."""
    return f"Count the rows{where(request)}"


def count_code(request: Request, table: Table) -> str:
    """Return the cell."""
    if request.by:
        return _counts_by(request, table)
    name = frame(request)
    return join(f"count = len({name})", 'print(count, "of", len(df), "rows")', "facts(count=count, rows=len(df))")


def _counts_by(request: Request, table: Table) -> str:
    line, name, by = grouping(request, table)
    return join(
        line,
        f"counts = {name}.groupby({key(by)}).size().sort_values(ascending=False)",
        "print(counts.to_string())",
        'groups = counts.head(50).reset_index(name="rows").to_dict("records")',
        "facts(count=int(counts.sum()), rows=len(df), groups=groups)",
    )


def count_answer(request: Request, facts: dict[str, Any]) -> str:
    """Return the answer."""
    count, rows = int(facts["count"]), int(facts["rows"])
    if not request.filters and not request.by:
        return f"The table has **{number(count)}** rows."
    lead = f"**{number(count)}** of {number(rows)} rows ({percent(count / rows) if rows else '0 %'}){where(request)}."
    groups = list(facts.get("groups", []))
    return paragraphs(lead, markdown_table(groups, list(groups[0])) if groups else "")


def frequency_title(request: Request) -> str:
    """Return the step of the plan."""
    return f"Count the rows of each {listed([*request.targets, *request.by])}{where(request)}, and plot them"


def frequency_code(request: Request, _: Table) -> str:
    """Return the cell."""
    name, target = frame(request), request.targets[0]
    if request.by:
        other = request.by[0]
        draw = (
            "counts.head(20).plot.bar(stacked=True, "
            f'ax=ax)\nax.set(title={plot_title(request, f"{target} by {other}")}, ylabel="rows")'
        )
        return join(
            f"counts = pd.crosstab({name}[{target!r}], {name}[{other!r}])",
            "print(counts.to_string())",
            (
                f"facts(rows=len({name}), used=int(counts.to_numpy().sum()), "
                f'cross=counts.head(50).reset_index().to_dict("records"))'
            ),
            "\nfig, ax = plt.subplots(figsize=(7, 4.5))",
            draw,
            save(png(target, "by", other)),
        )
    return cell(f"""
        counts = {name}[{target!r}].value_counts(ascending={request.ascending})
        print(counts.head(30).to_string())
        facts(
            rows=len({name}),
            used=int(counts.sum()),
            number_of_values=len(counts),
            counts=[{{"value": str(value), "rows": int(rows)}} for value, rows in counts.head(50).items()],
        )

        fig, ax = plt.subplots(figsize=(7, 4.5))
        counts.head(20).iloc[::-1].plot.barh(ax=ax, color="steelblue")
        ax.set(title={plot_title(request, f"Rows of each {target}")}, xlabel="rows", ylabel={target!r})
        fig.tight_layout()
        fig.savefig({png("rows", "of", "each", target)!r}, dpi=150)
    """)


def frequency_answer(request: Request, facts: dict[str, Any]) -> str:
    """Return the answer."""
    target = request.targets[0]
    if "cross" in facts:
        rows = list(facts["cross"])
        return paragraphs(
            f"Rows of each {target} by {request.by[0]}{where(request)}:",
            markdown_table(rows, list(rows[0])) if rows else "",
            basis(int(facts["used"]), int(facts["rows"])),
        )
    rows, used = list(facts["counts"]), int(facts["used"])
    if not rows:
        return f"{target} has no values{where(request)}."
    for row in rows:
        row["share"] = percent(row["rows"] / used)
    word = "rarest" if request.ascending else "most frequent"
    first = [f"**{shown(row['value'])}**" for row in rows if row["rows"] == rows[0]["rows"]]
    how_many = f"{number(rows[0]['rows'])} of {number(used)} rows ({rows[0]['share']})"
    lead = f"The {word} {target}{where(request)} is {first[0]} with {how_many}."
    if len(first) > 1:
        named = listed(first[:_MOST_TIED]) + (" and others" if len(first) > _MOST_TIED else "")
        lead = f"The {word} values of {target}{where(request)} are {named}, each with {how_many}."
    limit = request.top or len(rows)
    return paragraphs(
        lead,
        markdown_table(rows[:limit], ["value", "rows", "share"], [target, "rows", "share"]) if len(rows) > 1 else "",
        f"{number(facts['number_of_values'])} different values. {basis(used, int(facts['rows']))}",
    )


def share_title(request: Request) -> str:
    """Return the step of the plan."""
    part = request.part.text if request.part else ""
    by = f" by {listed(request.by)}" if request.by else ""
    return f"Work out the share of rows where {part}{by}{where(request)}"


def share_code(request: Request, table: Table) -> str:
    """Return the cell."""
    if request.part is None:
        raise ValueError("a share needs the part that is counted")
    line, name, by = grouping(request, table)
    column = request.part.column
    lines = [
        line,
        f"known = {name}.dropna(subset={[*by, column]!r})",
        f"hit = {condition(request.part, table, 'known')}",
    ]
    if not by:
        return join(
            *lines,
            'print(int(hit.sum()), "of", len(known), "rows")',
            f"facts(rows=len({name}), used=len(known), part=int(hit.sum()), share=hit.mean())",
        )
    keys = "[" + ", ".join(f"known[{one!r}]" for one in by) + "]"
    draw = 'shares["mean"].head(20).iloc[::-1].plot.barh(ax=ax, color="steelblue")'
    return join(
        *lines,
        f'shares = hit.groupby({keys}).agg(["mean", "sum", "count"]).sort_values("mean", ascending=False)',
        "print(shares.to_string())",
        f"facts(rows=len({name}), used=len(known), part=int(hit.sum()), share=hit.mean(),",
        '      groups=shares.head(50).reset_index().to_dict("records"))',
        "\nfig, ax = plt.subplots(figsize=(7, 4.5))",
        draw,
        (
            f'ax.set(title={plot_title(request, f"Share of rows where {request.part.text}")}, xlabel="share", '
            f"ylabel={listed(by)!r})"
        ),
        save(png("share", column, "by", *by)),
    )


def share_answer(request: Request, facts: dict[str, Any]) -> str:
    """Return the answer."""
    part = request.part.text if request.part else ""
    used = int(facts["used"])
    if not used:
        return f"No row has a known value to tell the share where {part}{where(request)}."
    lead = f"**{percent(facts['share'])}** ({number(facts['part'])} of {number(used)} rows): {part}{where(request)}."
    groups = list(facts.get("groups", []))
    if groups:
        by = [name for name in groups[0] if name not in ("mean", "sum", "count")]
        rows = [{**row, "share": percent(row["mean"])} for row in groups]
        best, least = rows[0], rows[-1]
        lead += (
            f" It is highest for **{' / '.join(shown(best[name]) for name in by)}** ({best['share']}) and "
            f"lowest for **{' / '.join(shown(least[name]) for name in by)}** ({least['share']})."
        )
        return paragraphs(
            lead,
            markdown_table(rows, [*by, "share", "sum", "count"], [*by, "share", "rows", "of"]),
            basis(used, int(facts["rows"])),
        )
    return paragraphs(lead, basis(used, int(facts["rows"])))
