"""The first or last of something: rows by a number, or groups by a statistic."""

from __future__ import annotations

from typing import Any

from carrel_gateway.agents.models.analyst.code import cell, frame, grouping, join, key, png, save
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

_USUAL = 5
_SHOWN_COLUMNS = 5


def title(request: Request) -> str:
    """Return the step of the plan."""
    what = listed([*request.by, *([request.period] if request.period else [])]) or "rows"
    return f"Rank {what} by {request.targets[0]}{where(request)}"


def code(request: Request, table: Table) -> str:
    """Return the cell."""
    target, count = request.targets[0], request.top or _USUAL
    single = not request.period and (not request.by or table.is_identifier(table[request.by[0]]))
    if single:
        return _rows(request, table, target, count)
    line, name, by = grouping(request, table)
    how = request.statistic
    words = f"{STATISTIC_WORDS[how]} of {target}"
    return join(
        line,
        cell(f"""
            ranking = (
                {name}.dropna(subset={[*by, target]!r})
                .groupby({key(by)})[{target!r}]
                .agg({how}="{how}", rows="count")
                .sort_values("{how}", ascending={request.ascending})
            )
            print(ranking.head({max(count, 10)}).to_string())
            facts(
                rows=len({name}),
                used=int(ranking["rows"].sum()),
                number_of_groups=len(ranking),
                ranking=ranking.head({max(count, _USUAL)}).reset_index().to_dict("records"),
            )
        """),
        "\nfig, ax = plt.subplots(figsize=(7, 4.5))",
        f'ranking["{how}"].head({max(count, 10)}).iloc[::-1].plot.barh(ax=ax, color="steelblue")',
        (
            f"ax.set(title={plot_title(request, f'{words} by {listed(by)}'.capitalize())}, xlabel={words!r}, "
            f"ylabel={listed(by)!r})"
        ),
        save(png("rank", *by, "by", target)),
    )


def _rows(request: Request, table: Table, target: str, count: int) -> str:
    """Rank the rows themselves, shown with the columns that name them."""
    names = [column.name for column in table.columns if column.kind in ("text", "date") or column.is_year]
    names.sort(key=lambda name: -table[name].distinct)
    shown_columns = list(dict.fromkeys([*request.by, *names]))[: _SHOWN_COLUMNS - 1]
    pick = "nsmallest" if request.ascending else "nlargest"
    name = frame(request)
    return cell(f"""
        ranking = {name}.{pick}({count}, {target!r})[{[*shown_columns, target]!r}]
        print(ranking.to_string())
        facts(
            rows=len({name}),
            used=int({name}[{target!r}].count()),
            ties=int(({name}[{target!r}] == ranking[{target!r}].iloc[0]).sum()),
            ranking=ranking.reset_index(names="row").to_dict("records"),
        )
    """)


def answer(request: Request, facts: dict[str, Any]) -> str:
    """Return the answer."""
    target, rows = request.targets[0], list(facts["ranking"])
    if not rows:
        return f"No row has a value of {target}{where(request)}."
    best = rows[0]
    word = "lowest" if request.ascending else "highest"
    if "row" in best:
        names = [name for name in best if name not in ("row", target)]
        who = ", ".join(shown(best[name]) for name in names[:2] if best[name] is not None) or f"row {best['row']}"
        ties = int(facts.get("ties", 1))
        lead = f"The {word} {target}{where(request)} is **{number(best[target])}**: {who} (row {best['row']})."
        also = f"{number(ties)} rows share this value." if ties > 1 else ""
        return paragraphs(
            lead,
            also,
            markdown_table(rows, [*names, target]) if len(rows) > 1 else "",
            basis(int(facts["used"]), int(facts["rows"])),
        )
    how = request.statistic
    by = [name for name in best if name not in (how, "rows")]
    name = " / ".join(shown(best[one]) for one in by)
    lead = f"**{name}** has the {word} {STATISTIC_WORDS[how]} of {target}{where(request)}: **{number(best[how])}**."
    return paragraphs(
        lead,
        markdown_table(rows, [*by, how, "rows"], [*by, f"{STATISTIC_WORDS[how]} of {target}", "rows"]),
        f"{number(facts['number_of_groups'])} groups. {basis(int(facts['used']), int(facts['rows']))}",
    )
