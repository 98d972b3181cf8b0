"""How columns go together: correlation of two numbers, of one with all others, of many; two categories."""

from __future__ import annotations

from typing import Any

from carrel_gateway.agents.models.analyst.code import cell, frame, join, png, save
from carrel_gateway.agents.models.analyst.code import title as plot_title
from carrel_gateway.agents.models.analyst.request import Request
from carrel_gateway.agents.models.analyst.table import Table
from carrel_gateway.agents.models.analyst.writing import (
    basis,
    listed,
    markdown_table,
    number,
    paragraphs,
    probability,
    shown,
    where,
)

_CAUTION = "A correlation says what goes together, not what causes what."


def title(request: Request) -> str:
    """Return the step of the plan."""
    names = listed(request.targets) or "all columns of numbers"
    return f"Measure how {names} {'goes' if len(request.targets) == 1 else 'go'} together{where(request)}, and plot it"


def code(request: Request, table: Table) -> str:
    """Return the cell."""
    numbers = [name for name in request.targets if table[name].is_number]
    others = [name for name in request.targets if name not in numbers]
    if len(others) >= 2 and not numbers:
        return _categories(request, others[0], others[1])
    if len(numbers) == 2:
        return _pair(request, numbers[0], numbers[1])
    if len(numbers) == 1:
        return _one_with_all(request, table, numbers[0])
    return _matrix(request, numbers or [column.name for column in table.numbers])


def _pair(request: Request, x: str, y: str) -> str:
    return join(
        "import numpy as np\nfrom scipy import stats\n",
        cell(f"""
            pair = {frame(request)}[[{x!r}, {y!r}]].dropna()
            pearson = stats.pearsonr(pair[{x!r}], pair[{y!r}])
            spearman = stats.spearmanr(pair[{x!r}], pair[{y!r}])
            slope, intercept = np.polyfit(pair[{x!r}], pair[{y!r}], 1)
            print(f"Pearson {{pearson.statistic:.4f}} (p {{pearson.pvalue:.3g}}), Spearman {{spearman.statistic:.4f}}")
            facts(
                rows=len({frame(request)}),
                used=len(pair),
                pearson=pearson.statistic,
                p=pearson.pvalue,
                spearman=spearman.statistic,
                slope=slope,
                intercept=intercept,
            )

            fig, ax = plt.subplots(figsize=(6.5, 4.5))
            ax.scatter(pair[{x!r}], pair[{y!r}], s=18, alpha=0.6)
            ends = np.array([pair[{x!r}].min(), pair[{x!r}].max()])
            ax.plot(ends, slope * ends + intercept, color="darkorange")
            ax.set(title={plot_title(request, f"{y} against {x}")}, xlabel={x!r}, ylabel={y!r})
        """),
        save(png(y, "against", x)),
    )


def _one_with_all(request: Request, table: Table, target: str) -> str:
    others = [column.name for column in table.numbers if column.name != target]
    return join(
        cell(f"""
            numbers = {frame(request)}[{others!r}]
            correlations = numbers.corrwith({frame(request)}[{target!r}]).dropna().sort_values(key=abs, ascending=False)
            print(correlations.to_string())
            facts(
                rows=len({frame(request)}),
                correlations=[{{"column": name, "r": r}} for name, r in correlations.items()],
            )

            fig, ax = plt.subplots(figsize=(7, 4.5))
            correlations.head(20).iloc[::-1].plot.barh(ax=ax, color="steelblue")
            ax.set_title({plot_title(request, f"Correlation with {target}")})
            ax.set(xlabel="Pearson correlation", xlim=(-1, 1))
        """),
        save(png("correlation", "with", target)),
    )


def _matrix(request: Request, numbers: list[str]) -> str:
    return join(
        "import numpy as np\n",
        cell(f"""
            matrix = {frame(request)}[{numbers!r}].corr()
            print(matrix.round(3).to_string())
            pairs = matrix.where(np.triu(np.ones(matrix.shape, dtype=bool), k=1)).stack()
            pairs = pairs.sort_values(key=abs, ascending=False)
            facts(
                rows=len({frame(request)}),
                pairs=[{{"one": one, "other": other, "r": r}} for (one, other), r in pairs.dropna().head(15).items()],
            )

            fig, ax = plt.subplots(figsize=(7, 6))
            image = ax.imshow(matrix, cmap="RdBu_r", vmin=-1, vmax=1)
            ax.set_xticks(range(len(matrix)), matrix.columns, rotation=60, ha="right")
            ax.set_yticks(range(len(matrix)), matrix.columns)
            ax.set_title({plot_title(request, "Correlation matrix")})
            fig.colorbar(image)
        """),
        save(png("correlation", "matrix")),
    )


def _categories(request: Request, one: str, other: str) -> str:
    return join(
        "from scipy import stats\n",
        cell(f"""
            counts = pd.crosstab({frame(request)}[{one!r}], {frame(request)}[{other!r}])
            print(counts.to_string())
            test = stats.chi2_contingency(counts)
            total = int(counts.to_numpy().sum())
            cramers_v = (test.statistic / (total * (min(counts.shape) - 1))) ** 0.5
            print("chi²", test.statistic, "p", test.pvalue, "Cramér's V", cramers_v)
            facts(
                rows=len({frame(request)}),
                used=total,
                chi2=test.statistic,
                p=test.pvalue,
                cramers_v=cramers_v,
                cross=counts.reset_index().head(30).to_dict("records"),
            )

            fig, ax = plt.subplots(figsize=(7, 4.5))
            counts.div(counts.sum(axis=1), axis=0).plot.bar(stacked=True, ax=ax, rot=0)
            ax.set(title={plot_title(request, f"{other} by {one}")}, ylabel="share of rows")
        """),
        save(png(other, "by", one)),
    )


def answer(request: Request, facts: dict[str, Any]) -> str:
    """Return the answer."""
    if "pearson" in facts:
        return _pair_answer(request, facts)
    if "chi2" in facts:
        return _categories_answer(request, facts)
    if "correlations" in facts:
        return _one_answer(request, facts)
    pairs = list(facts["pairs"])
    if not pairs:
        return "There are not two columns of numbers that could be correlated."
    best = pairs[0]
    return paragraphs(
        (
            f"The strongest correlation{where(request)} is between **{best['one']}** and **{best['other']}**: r "
            f"= **{number(best['r'])}** ({_strength(best['r'])})."
        ),
        markdown_table(pairs, ["one", "other", "r"], ["column", "with", "Pearson r"]),
        _CAUTION,
    )


def _strength(r: float) -> str:
    size = abs(r)
    word = (
        "very strong"
        if size >= 0.9
        else "strong"
        if size >= 0.7
        else "moderate"
        if size >= 0.4
        else "weak"
        if size >= 0.1
        else "practically none"
    )
    return f"{word}, {'positive' if r > 0 else 'negative'}" if size >= 0.1 else word


def _pair_answer(request: Request, facts: dict[str, Any]) -> str:
    x, y = request.targets[0], request.targets[1]
    r = float(facts["pearson"])
    verdict = "statistically significant" if float(facts["p"]) < 0.05 else "not statistically significant"
    return paragraphs(
        (
            f"The correlation of {x} and {y}{where(request)} is **r = {number(r)}** ({_strength(r)}; "
            f"{probability(facts['p'])}, {verdict})."
        ),
        (
            f"Spearman's rank correlation is {number(facts['spearman'])}. On the fitted line, one more of {x} "
            f"goes with {number(facts['slope'])} of {y}."
        ),
        f"{basis(int(facts['used']), int(facts['rows']))} {_CAUTION}",
    )


def _one_answer(request: Request, facts: dict[str, Any]) -> str:
    rows, target = list(facts["correlations"]), request.targets[0]
    if not rows:
        return f"No other column of numbers can be correlated with {target}."
    best = rows[0]
    return paragraphs(
        (
            f"**{best['column']}** goes most closely with {target}{where(request)}: r = **{number(best['r'])}** "
            f"({_strength(best['r'])})."
        ),
        markdown_table(rows, ["column", "r"], ["column", f"correlation with {target}"]),
        f"Only columns of numbers were looked at. {_CAUTION}",
    )


def _categories_answer(request: Request, facts: dict[str, Any]) -> str:
    one, other = request.targets[0], request.targets[1]
    v, rows = float(facts["cramers_v"]), list(facts["cross"])
    word = "strong" if v >= 0.5 else "moderate" if v >= 0.3 else "weak" if v >= 0.1 else "practically no"
    verdict = "unlikely to be chance" if float(facts["p"]) < 0.05 else "may well be chance"
    return paragraphs(
        (
            f"{one} and {other}{where(request)} show a {word} association: Cramér's V = **{number(v)}**; chi² = "
            f"{number(facts['chi2'])}, {probability(facts['p'])}, so it is {verdict}."
        ),
        markdown_table(
            [{key: shown(value) if key == one else value for key, value in row.items()} for row in rows], list(rows[0])
        ),
        basis(int(facts["used"]), int(facts["rows"])),
    )
