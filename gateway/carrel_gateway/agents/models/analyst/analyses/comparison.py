"""Groups beside each other: their figures, and a test of whether the difference may be chance.

Welch's t-test for two groups (B. L. Welch, 1947) with Cohen's d; one-way analysis of variance for more; chi² where the
target is yes or no.
"""

from __future__ import annotations

from typing import Any

from carrel_gateway.agents.models.analyst.code import cell, frame, join, png, save
from carrel_gateway.agents.models.analyst.code import title as plot_title
from carrel_gateway.agents.models.analyst.request import Request
from carrel_gateway.agents.models.analyst.table import Table
from carrel_gateway.agents.models.analyst.writing import (
    basis,
    markdown_table,
    number,
    paragraphs,
    percent,
    probability,
    shown,
    where,
)

_MOST_GROUPS = 12
_SIGNIFICANT = 0.05


def title(request: Request) -> str:
    """Return the step of the plan."""
    groups = " and ".join(request.compared) if request.compared else f"the groups of {request.by[0]}"
    return f"Compare {request.targets[0]} between {groups}{where(request)}, test the difference, and plot it"


def code(request: Request, table: Table) -> str:
    """Return the cell."""
    target, by, name = request.targets[0], request.by[0], frame(request)
    binary = table[target].is_binary
    chosen = f"\ndata = data[data[{by!r}].isin({list(request.compared)!r})]" if request.compared else ""
    few = ""
    if not request.compared and table[by].distinct > _MOST_GROUPS:
        few = f"\ndata = data[data[{by!r}].isin(data[{by!r}].value_counts().index[:{_MOST_GROUPS}])]"
    head = f"from scipy import stats\n\ndata = {name}[[{by!r}, {target!r}]].dropna()" + chosen + few
    if binary:
        positive = table[target].positive or "1"
        flag = (
            f"data[{target!r}]"
            if table[target].kind == "boolean"
            else f"data[{target!r}].astype(str).str.removesuffix('.0') == {positive.removesuffix('.0')!r}"
        )
        return join(head, _shares(flag, by), _share_plot(request, target, by))
    return join(head, _means(target, by), _box_plot(request, target, by))


def _means(target: str, by: str) -> str:
    return cell(f"""
        summary = data.groupby({by!r})[{target!r}].agg(["count", "mean", "median", "std"])
        summary = summary.sort_values("mean", ascending=False)
        print(summary.to_string())

        samples = [data.loc[data[{by!r}] == group, {target!r}] for group in summary.index[summary["count"] > 1]]
        test = stats.ttest_ind(*samples, equal_var=False) if len(samples) == 2 else stats.f_oneway(*samples)
        effect = None
        if len(samples) == 2:  # Cohen's d: the difference in standard deviations
            effect = (samples[0].mean() - samples[1].mean()) / ((samples[0].var() + samples[1].var()) / 2) ** 0.5
        print("test statistic", test.statistic, "p", test.pvalue)
        facts(
            used=len(data),
            test="Welch's t-test" if len(samples) == 2 else "one-way analysis of variance",
            statistic=test.statistic,
            p=test.pvalue,
            effect=effect,
            groups=summary.reset_index(names="group").to_dict("records"),
        )
    """)


def _shares(flag: str, by: str) -> str:
    return cell(f"""
        hit = {flag}
        summary = hit.groupby(data[{by!r}]).agg(["count", "sum", "mean"]).sort_values("mean", ascending=False)
        print(summary.to_string())

        test = stats.chi2_contingency(pd.crosstab(data[{by!r}], hit))
        print("chi²", test.statistic, "p", test.pvalue)
        facts(
            used=len(data),
            test="chi² test",
            statistic=test.statistic,
            p=test.pvalue,
            groups=summary.reset_index(names="group").to_dict("records"),
        )
    """)


def _box_plot(request: Request, target: str, by: str) -> str:
    return (
        "\n"
        + cell(f"""
        fig, ax = plt.subplots(figsize=(7, 4.5))
        samples = [data.loc[data[{by!r}] == group, {target!r}] for group in summary.index]
        ax.boxplot(samples, tick_labels=summary.index.astype(str))
        ax.set(title={plot_title(request, f"{target} by {by}")}, xlabel={by!r}, ylabel={target!r})
    """)
        + "\n"
        + save(png("compare", target, "by", by))
    )


def _share_plot(request: Request, target: str, by: str) -> str:
    return (
        "\n"
        + cell(f"""
        fig, ax = plt.subplots(figsize=(7, 4.5))
        summary["mean"].plot.bar(ax=ax, color="steelblue", rot=0)
        ax.set(title={plot_title(request, f"Share of {target} by {by}")}, xlabel={by!r}, ylabel="share")
    """)
        + "\n"
        + save(png("compare", target, "by", by))
    )


def answer(request: Request, facts: dict[str, Any]) -> str:
    """Return the answer."""
    target, by = request.targets[0], request.by[0]
    rows, p = list(facts["groups"]), float(facts["p"])
    shares = "sum" in rows[0]
    best, least = rows[0], rows[-1]
    show = percent if shares else number
    verdict = (
        "the difference is statistically significant at the 5 % level"
        if p < _SIGNIFICANT
        else "the difference may well be chance (not significant at the 5 % level)"
    )
    what = f"share of {target}" if shares else f"average {target}"
    lead = (
        f"**{shown(best['group'])}** has the higher {what}{where(request)}: **{show(best['mean'])}** against "
        f"**{show(least['mean'])}** for {shown(least['group'])}"
    )
    if len(rows) > 2:
        lead = (
            f"The {what}{where(request)} ranges from **{show(least['mean'])}** ({shown(least['group'])}) to "
            f"**{show(best['mean'])}** ({shown(best['group'])})"
        )
    difference = f"; a difference of {show(best['mean'] - least['mean'])}"
    effect = facts.get("effect")
    test = f"{facts['test']}: statistic {number(facts['statistic'])}, {probability(p)}, so {verdict}."
    if effect is not None:
        size = abs(float(effect))
        word = "large" if size >= 0.8 else "medium" if size >= 0.5 else "small" if size >= 0.2 else "negligible"
        test += f" Effect size (Cohen's d): {number(size)}, {word}."
    columns = ["group", "count", "sum", "mean"] if shares else ["group", "count", "mean", "median", "std"]
    heads = [by, "rows", "with it", "share"] if shares else [by, "rows", "average", "median", "standard deviation"]
    return paragraphs(
        lead + difference + ".",
        test,
        markdown_table(rows, columns, heads),
        basis(int(facts["used"]), int(facts["used"])),
    )
