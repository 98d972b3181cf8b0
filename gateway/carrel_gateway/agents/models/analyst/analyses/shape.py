"""The shape of a column of numbers: its distribution, and its outliers (Tukey's rule of 1.5 interquartile ranges)."""

from __future__ import annotations

from typing import Any

from carrel_gateway.agents.models.analyst.code import cell, frame, grouping, join, png, save
from carrel_gateway.agents.models.analyst.code import title as plot_title
from carrel_gateway.agents.models.analyst.request import Request
from carrel_gateway.agents.models.analyst.table import Table
from carrel_gateway.agents.models.analyst.writing import basis, listed, markdown_table, number, paragraphs, where


def distribution_title(request: Request) -> str:
    """Return the step of the plan."""
    by = f" for each {request.by[0]}" if request.by else ""
    return f"Show how {request.targets[0]} is distributed{by}{where(request)}"


def distribution_code(request: Request, table: Table) -> str:
    """Return the cell."""
    target = request.targets[0]
    if request.by:
        line, name, by = grouping(request, table)
        return join(line, _by_group(request, name, by[0], target))
    name = frame(request)
    return join(
        cell(f"""
            values = {name}[{target!r}].dropna()
            print(values.describe().to_string())
            facts(
                rows=len({name}),
                used=len(values),
                mean=values.mean(),
                median=values.median(),
                std=values.std(),
                minimum=values.min(),
                maximum=values.max(),
                quartiles=values.quantile([0.25, 0.75]).tolist(),
                skew=values.skew(),
            )

            fig, ax = plt.subplots(figsize=(7, 4.5))
            ax.hist(values, bins=30, color="steelblue", edgecolor="white")
            ax.axvline(values.mean(), color="darkorange", label="average")
            ax.axvline(values.median(), color="black", linestyle="--", label="median")
            ax.set(title={plot_title(request, f"Distribution of {target}")}, xlabel={target!r}, ylabel="rows")
            ax.legend()
        """),
        save(png("distribution", target)),
    )


def _by_group(request: Request, name: str, by: str, target: str) -> str:
    return join(
        cell(f"""
            data = {name}[[{by!r}, {target!r}]].dropna()
            summary = data.groupby({by!r})[{target!r}].describe()
            print(summary.to_string())
            facts(
                rows=len({name}),
                used=len(data),
                groups=summary.head(30).reset_index(names="group").to_dict("records"),
            )

            fig, ax = plt.subplots(figsize=(7, 4.5))
            for group, values in list(data.groupby({by!r})[{target!r}])[:8]:
                ax.hist(values, bins=25, alpha=0.5, label=str(group))
            ax.set(title={plot_title(request, f"Distribution of {target} by {by}")}, xlabel={target!r}, ylabel="rows")
            ax.legend(title={by!r})
        """),
        save(png("distribution", target, "by", by)),
    )


def distribution_answer(request: Request, facts: dict[str, Any]) -> str:
    """Return the answer."""
    target = request.targets[0]
    if "groups" in facts:
        rows = list(facts["groups"])
        columns = ["group", "count", "mean", "std", "min", "25%", "50%", "75%", "max"]
        return paragraphs(
            f"{target} by {request.by[0]}{where(request)}:",
            markdown_table(
                rows, columns, [request.by[0], "rows", "average", "std", "min", "25 %", "median", "75 %", "max"]
            ),
            basis(int(facts["used"]), int(facts["rows"])),
        )
    skew, quartiles = float(facts["skew"]), list(facts["quartiles"])
    side = (
        "skewed to the right (a long tail of high values)"
        if skew > 0.5
        else "skewed to the left (a long tail of low values)"
        if skew < -0.5
        else "roughly symmetric"
    )
    return paragraphs(
        (
            f"{target}{where(request)} ranges from **{number(facts['minimum'])}** to "
            f"**{number(facts['maximum'])}**, with an average of **{number(facts['mean'])}** and a median of "
            f"**{number(facts['median'])}** (standard deviation {number(facts['std'])})."
        ),
        (
            f"The middle half lies between {number(quartiles[0])} and {number(quartiles[1])}. It is {side}; "
            f"skewness {number(skew)}."
        ),
        basis(int(facts["used"]), int(facts["rows"])),
    )


def outliers_title(request: Request) -> str:
    """Return the step of the plan."""
    return f"Look for outliers in {listed(request.targets) or 'all columns of numbers'}{where(request)}"


def outliers_code(request: Request, table: Table) -> str:
    """Return the cell."""
    names = list(request.targets) or [column.name for column in table.numbers if not column.is_binary]
    name = frame(request)
    return join(
        cell(f"""
            numbers = {name}[{names!r}]
            quarter, three_quarters = numbers.quantile(0.25), numbers.quantile(0.75)
            reach = 1.5 * (three_quarters - quarter)
            low, high = quarter - reach, three_quarters + reach
            outside = (numbers < low) | (numbers > high)
            summary = pd.DataFrame({{"outliers": outside.sum(), "low": low, "high": high}})
            summary = summary.assign(min=numbers.min(), max=numbers.max())
            summary = summary.sort_values("outliers", ascending=False)
            print(summary.to_string())
            facts(
                rows=len({name}),
                rows_with_outliers=int(outside.any(axis=1).sum()),
                columns=summary.reset_index(names="column").to_dict("records"),
            )

            fig, ax = plt.subplots(figsize=(7, 4.5))
            scaled = (numbers - numbers.mean()) / numbers.std()
            drawn = list(summary.index[:15])
            ax.boxplot([scaled[column].dropna() for column in drawn], tick_labels=drawn, orientation="horizontal")
            ax.set(title={plot_title(request, "Outliers")}, xlabel="standard deviations from the average")
        """),
        save(png("outliers", *names[:2])),
    )


def outliers_answer(request: Request, facts: dict[str, Any]) -> str:
    """Return the answer."""
    rows = list(facts["columns"])
    found = [row for row in rows if row["outliers"]]
    rule = "An outlier here lies more than 1.5 interquartile ranges outside of the middle half (Tukey's rule)."
    if not found:
        return paragraphs(f"No outliers in {listed([row['column'] for row in rows])}{where(request)}.", rule)
    best = found[0]
    lead = (
        f"**{best['column']}** has **{number(best['outliers'])}** outliers{where(request)}: values below "
        f"{number(best['low'])} or above {number(best['high'])} (it ranges from {number(best['min'])} to "
        f"{number(best['max'])})."
    )
    return paragraphs(
        lead,
        markdown_table(
            rows,
            ["column", "outliers", "low", "high", "min", "max"],
            ["column", "outliers", "below", "above", "minimum", "maximum"],
        )
        if len(rows) > 1
        else "",
        f"{number(facts['rows_with_outliers'])} of {number(facts['rows'])} rows hold at least one. {rule}",
    )
