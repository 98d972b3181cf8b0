"""How questions are read: columns, values, conditions, groups, periods and intents, on profiles without any file.

Pure: what the code then works out is checked on real tables in `tests/integration/agents`.
"""

from __future__ import annotations

import math
from typing import Any

import pytest

from carrel_gateway.agents.models.analyst.columns import mask, match_name
from carrel_gateway.agents.models.analyst.filters import Filter
from carrel_gateway.agents.models.analyst.intents import understand
from carrel_gateway.agents.models.analyst.request import Request, Unanswerable
from carrel_gateway.agents.models.analyst.table import FACTS, Column, Table, facts_of
from carrel_gateway.agents.models.analyst.words import name_words, singular
from carrel_gateway.agents.models.analyst.writing import markdown_table, number

PENGUINS = Table(
    file="data/penguins.csv",
    rows=344,
    columns=[
        Column("species", "text", distinct=3, values=["Adelie", "Gentoo", "Chinstrap"]),
        Column("island", "text", distinct=3, values=["Biscoe", "Dream", "Torgersen"]),
        Column("bill_length_mm", "number", missing=2, distinct=164, min=32.1, max=59.6),
        Column("bill_depth_mm", "number", missing=2, distinct=80, min=13.1, max=21.5),
        Column("body_mass_g", "number", missing=2, distinct=94, min=2700, max=6300),
        Column("sex", "text", missing=11, distinct=2, values=["male", "female"]),
        Column("year", "number", distinct=3, min=2007, max=2009, values=["2007", "2008", "2009"]),
        Column("tagged", "text", distinct=2, values=["no", "yes"]),
    ],
)


def named(**values: list[str]) -> Table:
    """The table with the values that the question names, as the profile reports them."""
    columns = [
        Column(c.name, c.kind, c.missing, c.distinct, c.min, c.max, c.values, values.get(c.name, []))
        for c in PENGUINS.columns
    ]
    return Table(PENGUINS.file, PENGUINS.rows, columns)


def reads(question: str, table: Table = PENGUINS, earlier: Request | None = None) -> Request:
    request = understand(question, table, earlier)
    assert isinstance(request, Request), request
    return request


@pytest.mark.parametrize(
    ("said", "column", "least"),
    [
        ("body mass", "body_mass_g", 0.95),
        ("Body_Mass_G", "body_mass_g", 1.0),
        ("bodymass", "body_mass_g", 0.95),
        ("bill lengths", "bill_length_mm", 0.95),
        ("boddy mass", "body_mass_g", 0.7),
        ("mass", "body_mass_g", 0.5),
        ("weight", "body_mass_g", 0.3),
        ("gender", "sex", 0.3),
        ("PetalWidth", "petal width (cm)", 0.97),
    ],
)
def test_names_are_matched_tolerantly(said: str, column: str, least: float) -> None:
    assert match_name(name_words(said), Column(column, "number")) >= least


@pytest.mark.parametrize(
    ("said", "column"), [("depth", "bill_length_mm"), ("sepal", "petal"), ("sales 2012", "sales_2011")]
)
def test_other_names_are_not_matched(said: str, column: str) -> None:
    assert match_name(name_words(said), Column(column, "number")) == 0


def test_words_of_names_are_masked_before_anything_else_is_read() -> None:
    table = Table("t", 5, [Column("total_bill", "number"), Column("mean radius", "number"), Column("day", "text")])
    masked = mask("Average total bill and the mean of mean radius per day", table)
    assert masked.text == "average @c0 and the mean of @c1 per @c2"


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("average body mass by species", {"intent": "group", "targets": ("body_mass_g",), "by": ("species",)}),
        ("Which species is heaviest on average?", {"intent": "rank", "targets": ("body_mass_g",), "by": ("species",)}),
        ("mean bill depth per island and sex", {"intent": "group", "by": ("island", "sex")}),
        ("min and max of bill depth", {"intent": "statistic", "statistics": ("min", "max")}),
        ("95th percentile of body mass", {"intent": "statistic", "statistic": "quantile", "quantile": 0.95}),
        ("how many penguins per island", {"intent": "frequency", "targets": ("island",)}),
        ("how many species are there", {"intent": "statistic", "statistic": "nunique", "targets": ("species",)}),
        ("how many different islands", {"intent": "statistic", "statistic": "nunique", "targets": ("island",)}),
        ("correlation between bill length and bill depth", {"intent": "correlation"}),
        ("how is sex related to body mass", {"intent": "compare", "targets": ("body_mass_g",), "by": ("sex",)}),
        (
            "is there a relationship between island and species",
            {"intent": "correlation", "targets": ("island", "species")},
        ),
        ("body mass over the years", {"intent": "trend", "targets": ("body_mass_g",)}),
        ("average body mass by year for each species", {"intent": "trend", "by": ("species",)}),
        ("histogram of body mass", {"intent": "distribution", "targets": ("body_mass_g",)}),
        ("how does body mass differ between islands", {"intent": "compare", "by": ("island",)}),
        ("top 3 species by body mass", {"intent": "rank", "top": 3, "by": ("species",)}),
        ("lowest 5 body mass", {"intent": "statistic", "statistic": "min"}),
        ("5 lowest body mass", {"intent": "rank", "top": 5, "ascending": True}),
        (
            "predict species from bill length and bill depth",
            {"intent": "predict", "features": ("bill_length_mm", "bill_depth_mm")},
        ),
        ("train a model to predict body mass", {"intent": "predict", "targets": ("body_mass_g",)}),
        ("are there any outliers?", {"intent": "outliers", "targets": ()}),
        ("which columns have missing values?", {"intent": "missing"}),
        ("describe the data", {"intent": "overview"}),
        ("what columns are there", {"intent": "schema"}),
        ("most common island", {"intent": "frequency", "targets": ("island",)}),
        ("percentage of each species", {"intent": "frequency", "targets": ("species",)}),
    ],
)
def test_intents(question: str, expected: dict[str, Any]) -> None:
    request = reads(question)
    assert {name: getattr(request, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("question", "table", "filters"),
    [
        ("average body mass where bill depth is above 18", PENGUINS, [Filter("bill_depth_mm", ">", (18.0,))]),
        ("average body mass where bill depth >= 18.5", PENGUINS, [Filter("bill_depth_mm", ">=", (18.5,))]),
        (
            "mean bill depth with body mass between 3,000 and 4,000",
            PENGUINS,
            [Filter("body_mass_g", "between", (3000.0, 4000.0))],
        ),
        ("average body mass in 2008", PENGUINS, [Filter("year", "==", (2008.0,))]),
        ("average body mass after 2007", PENGUINS, [Filter("year", ">", (2007.0,))]),
        ("average body mass of Gentoo", named(species=["Gentoo"]), [Filter("species", "==", ("Gentoo",))]),
        ("mean bill depth excluding Gentoo", named(species=["Gentoo"]), [Filter("species", "!=", ("Gentoo",))]),
        ("average body mass where island is not Dream", named(island=["Dream"]), [Filter("island", "!=", ("Dream",))]),
        ("average body mass on Dream island", named(island=["Dream"]), [Filter("island", "==", ("Dream",))]),
        (
            "average body mass of Gentoo or Adelie",
            named(species=["Gentoo", "Adelie"]),
            [Filter("species", "in", ("Gentoo", "Adelie"))],
        ),
        ("mean bill depth where sex is missing", PENGUINS, [Filter("sex", "missing")]),
        ("average body mass where tagged is yes", PENGUINS, [Filter("tagged", "==", ("yes",))]),
    ],
)
def test_conditions(question: str, table: Table, filters: list[Filter]) -> None:
    request = reads(question, table)
    assert list(request.filters) == filters
    assert request.intent == "statistic"


def test_compared_values_do_not_filter() -> None:
    request = reads("compare body mass of Adelie and Gentoo", named(species=["Adelie", "Gentoo"]))
    assert (request.intent, request.by, request.compared, request.filters) == (
        "compare",
        ("species",),
        ("Adelie", "Gentoo"),
        (),
    )


def test_share_of_a_value_within_another() -> None:
    table = named(species=["Adelie"], sex=["female"])
    for question in ("what percentage of Adelie are female", "share of female among Adelie"):
        request = reads(question, table)
        assert request.part == Filter("sex", "==", ("female",))
        assert request.filters == (Filter("species", "==", ("Adelie",)),)


def test_choices_left_open_are_notes() -> None:
    request = reads("sales by region", Table("t", 9, [Column("sales", "number"), Column("region", "text", distinct=3)]))
    assert request.statistic == "sum"
    assert "totals are shown" in request.notes[0]


@pytest.mark.parametrize(
    ("question", "reason"),
    [
        ("average wingspan by species", "“wingspan”"),
        ("average body mass by colour", "“colour”"),
        ("mean of bill", "may mean several columns"),
        ("forecast the body mass of next year", "forecasting"),
        ("hello there", "could not make out"),
    ],
)
def test_unanswerable(question: str, reason: str) -> None:
    found = understand(question, PENGUINS)
    assert isinstance(found, Unanswerable)
    assert reason in found.reason


def test_follow_up_changes_only_what_it_names() -> None:
    first = reads("average body mass by species where bill depth is above 15")
    second = reads("and the median?", PENGUINS, first)
    assert (second.statistic, second.by, second.filters) == ("median", ("species",), first.filters)
    third = reads("what about by island?", PENGUINS, second)
    assert (third.statistic, third.by) == ("median", ("island",))


def test_long_question_is_no_follow_up() -> None:
    first = reads("average body mass by species")
    assert (
        reads("now describe everything that there is to know about the whole data set", PENGUINS, first).intent
        == "overview"
    )


@pytest.mark.parametrize(
    ("displays", "found"),
    [
        ([{FACTS: '{"a": 1}'}, {"text/plain": "x"}, {FACTS: '{"a": NaN}', "text/plain": ""}], True),
        ([{FACTS: "{broken"}], False),
        ([{FACTS: "[1]"}], False),
        ([{FACTS: {"a": 1}}], False),
        ([{"text/plain": '{"a": 1}'}], False),
        ([], False),
    ],
)
def test_facts_are_the_last_that_were_handed_over(displays: list[dict[str, Any]], found: bool) -> None:
    facts = facts_of(displays)
    assert (facts is not None and math.isnan(facts["a"])) is found


def test_plurals() -> None:
    words = ["species", "cities", "boxes", "Cars", "class", "classes", "gas", "houses", "prices", "analysis"]
    assert [singular(w) for w in words] == [
        "species",
        "city",
        "box",
        "car",
        "class",
        "class",
        "gas",
        "house",
        "price",
        "analysis",
    ]


def test_numbers_and_tables_are_written_for_people() -> None:
    values = [5076.0163, 0.000123456, 3.14159, 12, None, float("nan"), 2.0, 1234567.0, float("inf"), True]
    assert [number(value) for value in values] == [
        "5,076.02", "0.0001235", "3.142", "12", "not known", "not known", "2", "1,234,567", "infinite", "True",
    ]  # fmt: skip
    table = markdown_table([{"a": "x|y", "n": 1.5}] * 20, ["a", "n"])
    assert table.splitlines()[:3] == ["| a | n |", "| --- | ---: |", "| x/y | 1.500 |"]
    assert table.endswith("(5 more not shown)")
