"""The table as a whole: its columns, its missing values, and its strongest findings."""

from __future__ import annotations

from typing import Any

from carrel_gateway.agents.models.analyst.code import cell, frame, join, png, save
from carrel_gateway.agents.models.analyst.code import title as plot_title
from carrel_gateway.agents.models.analyst.request import Request
from carrel_gateway.agents.models.analyst.table import Table
from carrel_gateway.agents.models.analyst.writing import (
    listed,
    markdown_table,
    number,
    paragraphs,
    percent,
    shown,
    where,
)

_MOST_NUMBERS = 25
_MOST_CATEGORIES = 8


def missing_title(request: Request) -> str:
    """Return the step of the plan."""
    return f"Count the missing values of {listed(request.targets) or 'each column'}{where(request)}"


def missing_code(request: Request, _: Table) -> str:
    """Return the cell."""
    name = frame(request) + (f"[{list(request.targets)!r}]" if request.targets else "")
    return join(
        cell(f"""
            missing = {name}.isna().sum().sort_values(ascending=False)
            print(missing.to_string())
            facts(
                rows=len({frame(request)}),
                complete={name}.notna().all(axis=1).sum(),
                columns=[{{"column": name, "missing": int(count)}} for name, count in missing.items()],
            )

            fig, ax = plt.subplots(figsize=(7, 4.5))
            missing.head(20).iloc[::-1].plot.barh(ax=ax, color="steelblue")
            ax.set(title={plot_title(request, "Missing values")}, xlabel="rows without a value")
        """),
        save(png("missing", "values")),
    )


def missing_answer(request: Request, facts: dict[str, Any]) -> str:
    """Return the answer."""
    rows, total = list(facts["columns"]), int(facts["rows"])
    found = [{**row, "share": percent(row["missing"] / total) if total else ""} for row in rows if row["missing"]]
    total_missing = sum(int(row["missing"]) for row in rows)
    if not found:
        return f"No value is missing{where(request)}: all {number(total)} rows are complete" + (
            f" in {listed(request.targets)}." if request.targets else "."
        )
    return paragraphs(
        (
            f"**{number(total_missing)}** values are missing{where(request)}, in "
            f"{number(len(found))} of {number(len(rows))} columns; most in **{found[0]['column']}** "
            f"({number(found[0]['missing'])}, {found[0]['share']})."
        ),
        markdown_table(found, ["column", "missing", "share"]),
        f"{number(facts['complete'])} of {number(total)} rows are complete.",
    )


def schema_title(request: Request) -> str:
    """Return the step of the plan."""
    return f"List the columns{where(request)} and their kinds"


def schema_code(request: Request, _: Table) -> str:
    """Return the cell."""
    name = frame(request)
    return cell(f"""
        columns = pd.DataFrame(
            {{"type": {name}.dtypes.astype(str), "missing": {name}.isna().sum(), "different": {name}.nunique()}}
        )
        print(columns.to_string())
        print({name}.head().to_string())
        facts(rows=len({name}), columns=columns.reset_index(names="column").to_dict("records"))
    """)


def schema_answer(request: Request, facts: dict[str, Any]) -> str:
    """Return the answer."""
    rows = list(facts["columns"])
    return paragraphs(
        f"The table has **{number(facts['rows'])}** rows and **{number(len(rows))}** columns{where(request)}.",
        markdown_table(
            rows, ["column", "type", "missing", "different"], ["column", "type", "missing", "different values"]
        ),
    )


def title(request: Request) -> str:
    """Return the step of the plan."""
    return f"Look at all columns{where(request)}: ranges, groups, what goes together, what stands out"


def code(request: Request, table: Table) -> str:
    """Return the cell."""
    numbers = [column.name for column in table.numbers if not table.is_identifier(column) or column.distinct > 1]
    numbers = [name for name in numbers if not table[name].is_binary][:_MOST_NUMBERS]
    categories = [column.name for column in table.categories if column.name not in numbers][:_MOST_CATEGORIES]
    name = frame(request)
    parts = [f"numbers = {name}[{numbers!r}]", f"categories = {categories!r}"]
    parts.append(_summary(name))
    if numbers:
        parts.append(_figure(request, min(len(numbers), 6)))
    return join("import numpy as np\n", *parts)


def _summary(name: str) -> str:
    return cell(f"""
        wanted = ["mean", "median", "std", "min", "max", "skew"]
        summary = numbers.agg(wanted).T if len(numbers.columns) else pd.DataFrame()
        print(summary.to_string())

        matrix = numbers.corr()
        pairs = matrix.where(np.triu(np.ones(matrix.shape, dtype=bool), k=1)).stack().dropna()
        pairs = pairs.sort_values(key=abs, ascending=False)


        def explained(group, column):
            '''Part of the column's variance that lies between the groups.'''
            data = {name}[[group, column]].dropna()
            return data.groupby(group)[column].transform("mean").var(ddof=0) / data[column].var(ddof=0)


        def extremes(group, column):
            \"\"\"The groups with the highest and the lowest average.\"\"\"
            means = {name}.groupby(group)[column].mean().sort_values(ascending=False)
            return [{{"name": str(name), "mean": means[name]}} for name in (means.index[0], means.index[-1])]


        effects = [(explained(group, column), group, column) for group in categories for column in numbers]
        effects = sorted((effect for effect in effects if effect[0] == effect[0]), reverse=True)  # without NaN
        counts = {{column: {name}[column].value_counts() for column in categories}}
        missing = {name}.isna().sum()
        facts(
            rows=len({name}),
            columns=len({name}.columns),
            duplicates=int({name}.astype(str).duplicated().sum()),
            missing=[{{"column": column, "missing": int(count)}} for column, count in missing.items() if count],
            summary=summary.reset_index(names="column").to_dict("records"),
            pairs=[{{"one": one, "other": other, "r": r}} for (one, other), r in pairs.head(3).items()],
            effects=[
                {{"group": group, "column": column, "explained": part, "means": extremes(group, column)}}
                for part, group, column in effects[:3]
            ],
            categories=[
                {{"column": column, "top": str(found.index[0]), "rows": int(found.iloc[0]), "different": len(found)}}
                for column, found in counts.items()
                if len(found)
            ],
        )
    """)


def _figure(request: Request, count: int) -> str:
    across = min(count, 3)
    down = -(-count // across)
    return "\n" + join(
        cell(f"""
            fig, axes = plt.subplots({down}, {across}, figsize=({3.2 * across:g}, {2.7 * down:g}), squeeze=False)
            for ax, column in zip(axes.flat, numbers.columns):
                ax.hist(numbers[column].dropna(), bins=25, color="steelblue", edgecolor="white")
                ax.set_title(column, fontsize=9)
            fig.suptitle({plot_title(request, "Distributions")})
        """),
        save(png("overview")),
    )


def answer(request: Request, facts: dict[str, Any]) -> str:
    """Return the answer."""
    missing = list(facts["missing"])
    size = f"The table has **{number(facts['rows'])}** rows and **{number(facts['columns'])}** columns{where(request)}."
    if missing:
        named = [f"{row['column']} ({number(row['missing'])})" for row in missing[:6]]
        size += f" Values are missing in {listed(named)}{' and others' if len(missing) > 6 else ''}."
    else:
        size += " No value is missing."
    if facts["duplicates"]:
        size += f" {number(facts['duplicates'])} rows are exact duplicates of others."
    findings = [f"- {line}" for line in _findings(facts)]
    return paragraphs(
        size,
        "What stands out:\n\n" + "\n".join(findings) if findings else "",
        markdown_table(
            list(facts["summary"]),
            ["column", "mean", "median", "std", "min", "max"],
            ["column", "average", "median", "std", "min", "max"],
        )
        if facts["summary"]
        else "",
        "Ask for one of these in detail, such as an average by group, a trend, a comparison or a prediction.",
    )


def _findings(facts: dict[str, Any]) -> list[str]:
    lines: list[str] = []
    for effect in facts["effects"]:
        if effect["explained"] < 0.1:
            continue
        most, least = effect["means"][0], effect["means"][-1]
        lines.append(
            f"**{effect['column']}** differs by **{effect['group']}**, which explains "
            f"{percent(effect['explained'])} of its variance: on average {number(most['mean'])} for "
            f"{shown(most['name'])} and {number(least['mean'])} for {shown(least['name'])}."
        )
    lines += [
        f"**{pair['one']}** and **{pair['other']}** go together: r = {number(pair['r'])}."
        for pair in facts["pairs"]
        if abs(pair["r"]) >= 0.3
    ]
    skewed = [row["column"] for row in facts["summary"] if row["skew"] is not None and abs(row["skew"]) > 1]
    if skewed:
        lines.append(f"Strongly skewed, so that the median says more than the average: {listed(skewed[:6])}.")
    lines += [
        (
            f"The most frequent {row['column']} is {shown(row['top'])} ({number(row['rows'])} rows; "
            f"{number(row['different'])} different)."
        )
        for row in facts["categories"][:3]
    ]
    return lines
