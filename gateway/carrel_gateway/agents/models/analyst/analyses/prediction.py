"""A baseline model of one column from the others, with its score on rows that it has not seen.

A random forest with default settings beside the simplest guess (the average, or the most frequent class). It is a
baseline: nothing is tuned, and dates and names are left out.
"""

from __future__ import annotations

from typing import Any

from carrel_gateway.agents.models.analyst.code import cell, frame, join, png, save
from carrel_gateway.agents.models.analyst.code import title as plot_title
from carrel_gateway.agents.models.analyst.request import Request
from carrel_gateway.agents.models.analyst.table import Column, Table
from carrel_gateway.agents.models.analyst.writing import listed, markdown_table, number, paragraphs, percent, where

_MOST_CLASSES = 5
"""A number with at most this many values is predicted as a class."""
_MOST_CATEGORIES = 50
_MOST_ROWS = 20_000
_ALMOST_PERFECT = 0.995


def title(request: Request) -> str:
    """Return the step of the plan."""
    features = listed(request.features) or "the other columns"
    return (
        f"Fit a baseline model of {request.targets[0]} from {features}{where(request)}, and score it on held-out rows"
    )


def features_of(request: Request, table: Table) -> tuple[list[str], list[str]]:
    """Return the columns of numbers and of categories that the model is made from."""
    target = request.targets[0]
    chosen = [table[name] for name in request.features] or [c for c in table.columns if c.name != target]
    numbers = [c.name for c in chosen if c.is_number and not (c.distinct == table.rows and _is_counter(c, table))]
    categories = [c.name for c in chosen if c.kind in ("text", "boolean") and 1 < c.distinct <= _MOST_CATEGORIES]
    return numbers, categories


def _is_counter(column: Column, table: Table) -> bool:
    """Row numbers and the like: as many values as rows, and none left out."""
    whole = isinstance(column.min, int) and isinstance(column.max, int)
    return whole and column.max - column.min == table.rows - 1


def is_classification(column: Column) -> bool:
    """Return whether the target is a class."""
    return not column.is_number or column.distinct <= _MOST_CLASSES


def code(request: Request, table: Table) -> str:
    """Return the cell."""
    target, name = request.targets[0], frame(request)
    numbers, categories = features_of(request, table)
    classes = is_classification(table[target])
    forest = "RandomForestClassifier" if classes else "RandomForestRegressor"
    dummy = 'DummyClassifier(strategy="most_frequent")' if classes else "DummyRegressor()"
    sample = f"\ndata = data.sample({_MOST_ROWS}, random_state=0)" if table.rows > _MOST_ROWS else ""
    rare = (
        f'\ndata = data[data.groupby({target!r})[{target!r}].transform("size") >= 5]  # too rare to learn from'
        if classes
        else ""
    )
    metrics = "accuracy_score, balanced_accuracy_score" if classes else "mean_absolute_error, r2_score"
    stratify = ", stratify=target" if classes else ""
    head = cell(f"""
        from sklearn.compose import ColumnTransformer
        from sklearn.dummy import {dummy.split("(", maxsplit=1)[0]}
        from sklearn.ensemble import {forest}
        from sklearn.impute import SimpleImputer
        from sklearn.inspection import permutation_importance
        from sklearn.metrics import {metrics}
        from sklearn.model_selection import train_test_split
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import OneHotEncoder

        numbers = {numbers!r}
        categories = {categories!r}
        data = {name}.dropna(subset=[{target!r}])
    """)
    body = cell(f"""
        features = data[numbers + categories].astype({{name: str for name in categories}})
        target = data[{target!r}]{".astype(str)" if classes else ""}
        train_x, test_x, train_y, test_y = train_test_split(
            features, target, test_size=0.25, random_state=0{stratify}
        )
        prepare = ColumnTransformer(
            [
                ("numbers", SimpleImputer(strategy="median"), numbers),
                ("categories", OneHotEncoder(handle_unknown="ignore"), categories),
            ]
        )
        model = make_pipeline(prepare, {forest}(n_estimators=100, random_state=0)).fit(train_x, train_y)
        guess = {dummy}.fit(train_x, train_y)
        predicted = model.predict(test_x)
        weights = permutation_importance(model, test_x, test_y, n_repeats=5, random_state=0).importances_mean
        importance = pd.Series(weights, index=features.columns).sort_values(ascending=False)
        print(importance.head(10).to_string())
    """)
    return join(head + sample + rare, body, _facts(classes), _plot(request, target, classes))


def _facts(classes: bool) -> str:
    scores = (
        """
            accuracy=accuracy_score(test_y, predicted),
            balanced=balanced_accuracy_score(test_y, predicted),
            guess=accuracy_score(test_y, guess.predict(test_x)),
            classes=int(test_y.nunique()),"""
        if classes
        else """
            r2=r2_score(test_y, predicted),
            mae=mean_absolute_error(test_y, predicted),
            guess=mean_absolute_error(test_y, guess.predict(test_x)),"""
    )
    return cell(f"""
        facts(
            train=len(train_x),
            test=len(test_x),{scores}
            importance=[{{"column": name, "importance": weight}} for name, weight in importance.head(8).items()],
        )
    """)


def _plot(request: Request, target: str, classes: bool) -> str:
    if classes:
        draw = cell(f"""
            fig, ax = plt.subplots(figsize=(7, 4.5))
            importance.head(10).iloc[::-1].plot.barh(ax=ax, color="steelblue")
            ax.set_title({plot_title(request, f"What the model of {target} rests on")})
            ax.set_xlabel("loss of accuracy when shuffled")
        """)
    else:
        draw = cell(f"""
            fig, ax = plt.subplots(figsize=(5.5, 5))
            ax.scatter(test_y, predicted, s=14, alpha=0.5)
            ax.axline((test_y.mean(), test_y.mean()), slope=1, color="darkorange")
            ax.set_title({plot_title(request, f"{target}: predicted and true, held-out rows")})
            ax.set(xlabel="true", ylabel="predicted")
        """)
    return "\n" + join(draw, save(png("predict", target)))


def answer(request: Request, facts: dict[str, Any]) -> str:
    """Return the answer."""
    target = request.targets[0]
    rows = list(facts["importance"])
    strongest = [row["column"] for row in rows[:3]]
    held_out = f"Trained on {number(facts['train'])} rows, scored on {number(facts['test'])} held-out rows."
    if "accuracy" in facts:
        score, guess = float(facts["accuracy"]), float(facts["guess"])
        lead = (
            f"A random forest predicts {target}{where(request)} with an accuracy of **{percent(score)}** on "
            f"rows it has not seen; always guessing the most frequent class gives {percent(guess)}. Balanced "
            f"accuracy: {percent(facts['balanced'])}."
        )
        useless = score <= guess
    else:
        score, guess = float(facts["r2"]), float(facts["guess"])
        lead = (
            f"A random forest predicts {target}{where(request)} with **R² = {number(score)}** on rows it has "
            f"not seen; it is off by {number(facts['mae'])} on average (mean absolute error), against "
            f"{number(guess)} when always guessing the average."
        )
        useless = score <= 0
    verdict = "That is no better than the guess: the columns hold little about the target." if useless else ""
    if score > _ALMOST_PERFECT:
        verdict = (
            "A nearly perfect score can mean that a column already holds the target in another form; check "
            f"`{rows[0]['column']}` first."
        )
    return paragraphs(
        lead,
        verdict,
        f"It rests most on {listed([f'`{name}`' for name in strongest])}.",
        markdown_table(rows, ["column", "importance"]),
        f"{held_out} This is a baseline: nothing is tuned; dates and names are left out.",
    )
