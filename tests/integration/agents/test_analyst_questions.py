"""Questions about real tables: the numbers in the written answer are those that the test computes by itself.

Every question runs as a whole: the analyst's code in a real interpreter on a file of some kind (CSV with commas,
semicolons and decimal commas, tabs, pipes, titles, units; JSON, Parquet, Excel, gzip), the loop's rules around it, the
answer from the facts. A figure counts as found when the answer shows it to the digits that it shows.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
import scipy
from tests.integration.agents import tables
from tests.integration.agents.conftest import Interpreter, Told
from tests.integration.agents.tables import Workspace

Frame = pd.DataFrame
Expected = Callable[[Frame], list[float | str]]


@pytest.fixture(scope="module")
def workspaces(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Workspace]:
    return tables.make(tmp_path_factory.mktemp("tables"))


def numbers_in(text: str) -> list[float]:
    """Return every number that the text shows; percents also as parts of one."""
    found = [float(match.replace(",", "")) for match in re.findall(r"(?<![\w.])-?\d[\d,]*(?:\.\d+)?(?:e-?\d+)?", text)]
    return found + [float(match) / 100 for match in re.findall(r"(-?\d+\.\d) %", text)]


def shows(answer: str, expected: float) -> bool:
    """Return whether the answer holds the number, allowing for the digits that it leaves out."""
    return any(abs(value - expected) <= max(0.0006 * abs(expected), 0.00051) for value in numbers_in(answer))


def check(told: Told, expected: list[float | str]) -> None:
    assert told.answer.endswith("_Worked out by `demo/analyst`: rules and code, no language model._")
    for item in expected:
        if isinstance(item, str):
            assert item.lower() in told.answer.lower(), f"{item!r} is not in: {told.answer}"
        else:
            assert shows(told.answer, float(item)), f"{item} is not in: {told.answer}"


def mean_by(frame: Frame, by: str, column: str) -> list[float | str]:
    means = frame.groupby(by)[column].mean()
    return [*means.tolist(), str(means.idxmax())]


QUESTIONS: list[tuple[str, str, Expected]] = [
    # statistics
    ("iris", "What is the average sepal length?", lambda d: [d["sepal length (cm)"].mean(), 150]),
    ("iris", "median of petal width", lambda d: [d["petal width (cm)"].median()]),
    ("iris", "What's the standard deviation of sepal width?", lambda d: [d["sepal width (cm)"].std()]),
    (
        "iris",
        "minimum and maximum petal length",
        lambda d: [d["petal length (cm)"].min(), d["petal length (cm)"].max()],
    ),
    ("iris", "90th percentile of sepal length", lambda d: [d["sepal length (cm)"].quantile(0.9)]),
    ("cancer", "mean of mean radius", lambda d: [d["mean radius"].mean()]),
    ("macro", "What was the highest unemp?", lambda d: [d["unemp"].max()]),
    ("exercise", "average and median of Situps", lambda d: [d["Situps"].mean(), d["Situps"].median()]),
    ("diabetes", "mean blood pressure", lambda d: [d["blood_pressure"].mean()]),
    ("flowers", "average petal width", lambda d: [d["PetalWidth"].mean(), d["PetalWidth"].count(), 15]),
    ("firmen", "What is the mean Kapital?", lambda d: [d["Kapital"].mean()]),
    ("orders", "total revenue", lambda d: [d["revenue"].sum()]),
    # groups
    ("iris", "average petal length by species", lambda d: mean_by(d, "species", "petal length (cm)")),
    ("iris", "What is the mean sepal wdith for each species?", lambda d: mean_by(d, "species", "sepal width (cm)")),
    ("wine", "average proline per cultivar", lambda d: mean_by(d, "cultivar", "proline")),
    ("wine", "median magnesium by cultivar", lambda d: d.groupby("cultivar")["magnesium"].median().tolist()),
    ("flowers", "mean petal widths by species", lambda d: mean_by(d, "Species", "PetalWidth")),
    ("cancer", "average worst area by diagnosis", lambda d: mean_by(d, "diagnosis", "worst area")),
    ("firmen", "Average Investition by Unternehmen", lambda d: mean_by(d, "Unternehmen", "Investition")),
    ("orders", "total revenue by region", lambda d: [*d.groupby("Region")["revenue"].sum().tolist(), "North"]),
    (
        "orders",
        "total quantity by region and product category",
        lambda d: d.groupby(["Region", "product_category"])["quantity"].sum().tolist(),
    ),
    ("travel", "average generalized cost by mode", lambda d: mean_by(d, "mode", "generalized_cost")),
    ("affairs", "average affairs by children", lambda d: d.groupby("children")["affairs"].mean().tolist()),
    # conditions
    (
        "iris",
        "average petal width of virginica",
        lambda d: [d.loc[d["species"] == "virginica", "petal width (cm)"].mean(), 50],
    ),
    (
        "wine",
        "How many wines have alcohol above 13?",
        lambda d: [int((d["alcohol"] > 13).sum()), 178],
    ),
    (
        "orders",
        "total revenue in 2023",
        lambda d: [d.loc[d["order_date"].dt.year == 2023, "revenue"].sum()],
    ),
    (
        "orders",
        "average unit price where region is South and quantity is at least 5",
        lambda d: [d.loc[(d["Region"] == "South") & (d["quantity"] >= 5), "unit_price"].mean()],
    ),
    (
        "orders",
        "total revenue of lamps in March 2022",
        lambda d: [
            d.loc[
                (d["product_category"] == "Lamps") & (d["order_date"].dt.strftime("%Y-%m") == "2022-03"), "revenue"
            ].sum()
        ],
    ),
    ("orders", "how many orders in 2022?", lambda d: [int((d["order_date"].dt.year == 2022).sum()), 900]),
    ("orders", "average quantity since 2023", lambda d: [d.loc[d["order_date"].dt.year >= 2023, "quantity"].mean()]),
    (
        "orders",
        "what percentage of orders from the North were returned?",
        lambda d: [(d.loc[d["Region"] == "North", "returned"] == "Yes").mean()],
    ),
    (
        "grunfeld",
        "average invest of General Motors between 1940 and 1950",
        lambda d: [d.loc[(d["firm"] == "General Motors") & d["year"].between(1940, 1950), "invest"].mean()],
    ),
    (
        "crime",
        "mean murder where poverty is between 10 and 15",
        lambda d: [d.loc[d["poverty"].between(10, 15), "murder"].mean()],
    ),
    (
        "cancer",
        "median mean texture for malignant",
        lambda d: [d.loc[d["diagnosis"] == "malignant", "mean texture"].median()],
    ),
    ("wine", "average hue excluding Barolo", lambda d: [d.loc[d["cultivar"] != "Barolo", "hue"].mean()]),
    # counts and shares
    ("iris", "How many rows are there?", lambda _: [150]),
    ("wine", "how many different cultivars are there?", lambda _: [3]),
    ("cancer", "How many patients are malignant?", lambda d: [int((d["diagnosis"] == "malignant").sum()), 569]),
    ("grunfeld", "How many different firms are there?", lambda d: [d["firm"].nunique()]),
    ("orders", "how many orders per region", lambda d: d["Region"].value_counts().tolist()),
    ("orders", "What percentage of orders were returned?", lambda d: [(d["returned"] == "Yes").mean()]),
    (
        "orders",
        "return rate by product category",
        lambda d: (d["returned"] == "Yes").groupby(d["product_category"]).mean().tolist(),
    ),
    ("cancer", "what share of patients is benign?", lambda d: [(d["diagnosis"] == "benign").mean()]),
    ("travel", "how often was each mode used?", lambda d: d["mode"].value_counts().tolist()),
    ("orders", "most common product category", lambda d: [d["product_category"].mode()[0]]),
    # ranks
    (
        "crime",
        "Which state has the highest murder rate?",
        lambda d: [str(d.loc[d["murder"].idxmax(), "state"]), d["murder"].max()],
    ),
    (
        "crime",
        "top 3 states by violent crime",
        lambda d: [*d.nlargest(3, "violent")["state"], *d["violent"].nlargest(3)],
    ),
    ("crime", "5 lowest poverty", lambda d: [*d.nsmallest(5, "poverty")["state"].tolist()]),
    (
        "wine",
        "which cultivar has the lowest average hue?",
        lambda d: ["Barbera", d.groupby("cultivar")["hue"].mean().min()],
    ),
    (
        "nile",
        "in which year was the volume highest?",
        lambda d: [str(int(d.loc[d["volume"].idxmax(), "year"])), d["volume"].max()],
    ),
    (
        "orders",
        "top 2 regions by total revenue",
        lambda d: [
            *d.groupby("Region")["revenue"].sum().nlargest(2).index,
            *d.groupby("Region")["revenue"].sum().nlargest(2),
        ],
    ),
    (
        "orders",
        "which month had the highest total revenue?",
        lambda d: [
            d.groupby(d["order_date"].dt.strftime("%Y-%m"))["revenue"].sum().idxmax(),
            d.groupby(d["order_date"].dt.strftime("%Y-%m"))["revenue"].sum().max(),
        ],
    ),
    # comparisons
    (
        "wine",
        "Compare the alcohol of Barolo and Barbera",
        lambda d: [
            d.loc[d["cultivar"] == "Barolo", "alcohol"].mean(),
            d.loc[d["cultivar"] == "Barbera", "alcohol"].mean(),
            abs(
                scipy.stats.ttest_ind(
                    d.loc[d["cultivar"] == "Barolo", "alcohol"],
                    d.loc[d["cultivar"] == "Barbera", "alcohol"],
                    equal_var=False,
                ).statistic
            ),
            "Welch",
        ],
    ),
    (
        "cancer",
        "Is there a significant difference in mean smoothness between malignant and benign?",
        lambda d: [*d.groupby("diagnosis")["mean smoothness"].mean().tolist(), "Welch", "p < 0.001"],
    ),
    (
        "iris",
        "how does sepal width differ between species?",
        lambda d: [
            scipy.stats.f_oneway(*[g for _, g in d.groupby("species")["sepal width (cm)"]]).statistic,
            "analysis of variance",
        ],
    ),
    (
        "travel",
        "compare household income between chosen yes and no",
        lambda d: d.groupby("chosen")["household_income"].mean().tolist(),
    ),
    (
        "orders",
        "Do returned orders have a higher unit price?",
        lambda d: d.groupby("returned")["unit_price"].mean().tolist(),
    ),
    # relations
    (
        "iris",
        "correlation between petal length and petal width",
        lambda d: [d["petal length (cm)"].corr(d["petal width (cm)"])],
    ),
    ("crime", "How is poverty related to murder?", lambda d: [d["poverty"].corr(d["murder"])]),
    ("diabetes", "does bmi affect progression?", lambda d: [d["bmi"].corr(d["progression"])]),
    ("diabetes", "what correlates most with progression?", lambda d: ["bmi", d["bmi"].corr(d["progression"])]),
    ("exercise", "correlation matrix", lambda d: [d["Weight"].corr(d["Waist"]), "Waist"]),
    ("macro", "plot realgdp against realcons", lambda d: [d["realgdp"].corr(d["realcons"])]),
    (
        "orders",
        "is there an association between region and product category?",
        lambda d: [scipy.stats.chi2_contingency(pd.crosstab(d["Region"], d["product_category"])).statistic, "Cramér"],
    ),
    # time
    (
        "nile",
        "How did the volume develop over the years?",
        lambda d: [np.polyfit(d["year"], d["volume"], 1)[0], "downward"],
    ),
    (
        "co2",
        "yearly trend of co2",
        lambda d: [
            d.groupby(d["date"].dt.year)["co2"].mean().iloc[-1],
            d.groupby(d["date"].dt.year)["co2"].mean().iloc[0],
            "upward",
        ],
    ),
    (
        "orders",
        "total revenue by month",
        lambda d: [d.groupby(d["order_date"].dt.to_period("M"))["revenue"].sum().max()],
    ),
    (
        "grunfeld",
        "trend of invest over time for each firm",
        lambda d: [d.loc[(d["firm"] == "General Motors") & (d["year"] == 1954), "invest"].iloc[0], "General Motors"],
    ),
    ("macro", "average infl per year", lambda d: [d.groupby("year")["infl"].mean().max()]),
    (
        "orders",
        "average revenue by weekday",
        lambda d: d.groupby(d["order_date"].dt.day_name())["revenue"].mean().tolist(),
    ),
    # shapes
    ("diabetes", "distribution of bmi", lambda d: [d["bmi"].mean(), d["bmi"].median(), d["bmi"].skew()]),
    ("wine", "distribution of malic acid by cultivar", lambda d: d.groupby("cultivar")["malic_acid"].median().tolist()),
    ("wine", "are there outliers in magnesium?", lambda d: [float(outliers(d["magnesium"]))]),
    ("flowers", "Which values are missing?", lambda _: [18, 15, 3, "PetalWidth"]),
    ("wine", "missing values", lambda _: [13, 6, "magnesium"]),
    ("iris", "What columns does the table have?", lambda _: [150, 5, "petal width (cm)"]),
    # the whole, and models
    ("wine", "Describe this data set", lambda _: [178, 14, "flavanoids", "cultivar"]),
    ("crime", "Analyse this please", lambda d: [51, 8, d["murder"].mean()]),
    ("wine", "predict cultivar", lambda _: ["accuracy", "most frequent class", 45]),
    ("diabetes", "Predict progression from bmi and blood pressure", lambda _: ["R²", "held-out", "bmi"]),
    ("iris", "train a model for petal width", lambda _: ["R²", 112, 38]),
]


def outliers(values: pd.Series) -> int:
    quarter, three_quarters = values.quantile(0.25), values.quantile(0.75)
    reach = 1.5 * (three_quarters - quarter)
    return int(((values < quarter - reach) | (values > three_quarters + reach)).sum())


@pytest.mark.parametrize(("name", "question", "expected"), QUESTIONS, ids=[f"{n}: {q}" for n, q, _ in QUESTIONS])
def test_answer_holds_the_numbers(
    name: str, question: str, expected: Expected, interpreter: Interpreter, workspaces: dict[str, Workspace]
) -> None:
    workspace = workspaces[name]
    told = interpreter.ask(question, workspace.path)
    assert told.errors == [] or name in ("firmen", "crime"), told.errors
    check(told, expected(workspace.frame))
    assert all(status == "done" for _, status in told.plan), told.plan
