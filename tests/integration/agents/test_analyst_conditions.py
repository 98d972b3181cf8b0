"""Conditions of questions: each is met by the rows that pandas selects here, or the question is refused.

* dates to the day, months, quarters, half-years; exclusions; missing values; rankings by numbered things
* what is not understood is named in a refusal, and nothing is worked out
* figures written with thousands points, and in parentheses as negatives
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from tests.integration.agents.conftest import Interpreter, Told
from tests.integration.agents.test_analyst_questions import shows

from carrel_gateway.agents.protocols import Turn

Ask = Callable[..., Told]
Frame = pd.DataFrame

SALES = pd.DataFrame({"Datum": pd.date_range("2023-01-01", periods=300, freq="3D")})
SALES["Region"] = [["Nord", "Süd", "Ost", None][n * 7 % 11 % 4] for n in range(300)]
SALES["Produkt"] = [["Wein", "Brot", "Käse"][n % 3] for n in range(300)]
SALES["Umsatz (€)"] = [round(20 + n * 7.13 % 991, 2) for n in range(300)]
SALES["Kunde"] = [1 + n * 37 % 41 for n in range(300)]
DAY, AMOUNT = SALES["Datum"], SALES["Umsatz (€)"]
REGION = SALES["Region"]


@pytest.fixture
def ask(interpreter: Interpreter, tmp_path: Path) -> Ask:
    """Ask about a table of sales, or another text as `data/t.csv`."""

    def asked(question: str, turns: tuple[str, ...] = (), text: str | None = None) -> Told:
        data = tmp_path / "data"
        data.mkdir(exist_ok=True)
        (data / "t.csv").write_text(text or SALES.to_csv(index=False))
        return interpreter.ask(question, tmp_path, tuple(Turn(turn, "…") for turn in turns))

    return asked


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("average Umsatz after 1 June 2024", AMOUNT[DAY > "2024-06-01"].mean()),
        ("average Umsatz after 01.06.2024", AMOUNT[DAY > "2024-06-01"].mean()),
        ("average Umsatz where Datum is before 2024-06-01", AMOUNT[DAY < "2024-06-01"].mean()),
        ("average Umsatz before march 2023", AMOUNT[DAY < "2023-03-01"].mean()),
        ("average Umsatz since May 5, 2024", AMOUNT[DAY >= "2024-05-05"].mean()),
        ("average Umsatz until 2023-03-05", AMOUNT[DAY <= "2023-03-05"].mean()),
        ("total Umsatz on 2023-01-04", AMOUNT[DAY == "2023-01-04"].sum()),
        ("total Umsatz between 2023-03-01 and 2023-05-31", AMOUNT[DAY.between("2023-03-01", "2023-05-31")].sum()),
        ("total Umsatz from March 2023 to May 2023", AMOUNT[DAY.between("2023-03-01", "2023-05-31")].sum()),
        ("total Umsatz in Q3 2024", AMOUNT[DAY.dt.to_period("Q") == "2024Q3"].sum()),
        ("total Umsatz in the fourth quarter of 2023", AMOUNT[DAY.dt.to_period("Q") == "2023Q4"].sum()),
        ("total Umsatz in 2024-03", AMOUNT[DAY.dt.to_period("M") == "2024-03"].sum()),
        ("total Umsatz in December 2023", AMOUNT[DAY.dt.to_period("M") == "2023-12"].sum()),
        ("total Umsatz in the first half of 2024", AMOUNT[(DAY.dt.year == 2024) & (DAY.dt.month <= 6)].sum()),
        ("average Umsatz not in Nord", AMOUNT[REGION != "Nord"].mean()),
        ("average Umsatz not in Nord or Süd", AMOUNT[~REGION.isin(["Nord", "Süd"])].mean()),
        ("average Umsatz in Nord or Süd", AMOUNT[REGION.isin(["Nord", "Süd"])].mean()),
        ("how many rows have no Region?", REGION.isna().sum()),
        ("top 5 Kunde by total Umsatz", SALES.groupby("Kunde")["Umsatz (€)"].sum().nlargest(5).iloc[-1]),
    ],
)
def test_condition_is_met(question: str, expected: float, ask: Ask) -> None:
    told = ask(question)
    assert told.errors == []
    assert shows(told.answer, float(expected)), f"{expected} is not in: {told.answer}"


@pytest.mark.parametrize(
    ("question", "named"),
    [
        ("average Umsatz on weekends", "on weekends"),
        ("total Umsatz in March", "in march"),
        ("total Umsatz in the last 30 days", "last 30 days"),
        ("average Umsatz after 06/01/2024", "after 06/01/2024"),
        ("average Umsatz on 2024-02-31", "on 2024-02-31"),
        ("average Umsatz in Berlin", "in berlin"),
        ("average Umsatz by Produkt for Berlin", "for berlin"),
        ("average Umsatz in Nord and Berlin", "berlin"),
        ("average Umsatz in Nord or Wein", "“or”"),
        ("average Umsatz where Region is Nord or Kunde above 10", "“or”"),
        ("average Umsatz where Kunde is above 30 or below 5", "below 5"),
        ("share of total Umsatz by Region", "shares of rows"),
        ("average Kunde of the 10 products with the highest Umsatz", "by which of"),
        ("how many rows with Umsatz above average", "above average"),
        ("average Umsatz Berlin", "berlin"),
        ("average Umsatz excluding outliers", "excluding outliers"),
        ("median Umsatz with 30 in it", "30"),
    ],
)
def test_what_is_not_understood_is_named(question: str, named: str, ask: Ask) -> None:
    told = ask(question)
    assert told.answer.startswith("I cannot answer this.")
    assert named in told.answer
    assert len(told.codes) == 1, "only the file was read"


def test_the_lowest_after_the_highest(ask: Ask) -> None:
    told = ask("and the lowest?", ("which Produkt has the highest total Umsatz?",))
    totals = SALES.groupby("Produkt")["Umsatz (€)"].sum()
    assert f"**{totals.idxmin()}**" in told.answer
    assert shows(told.answer, totals.min())


def test_continuation_that_changes_nothing_is_refused(ask: Ask) -> None:
    assert "I did not understand" in ask("what about Berlin?", ("average Umsatz where Region is Nord",)).answer


def test_thousands_with_points_where_the_decimal_mark_is_a_comma(ask: Ask) -> None:
    counts = [137 * n for n in range(1, 30)]
    rows = [f"S{n};{f'{count:,}'.replace(',', '.')};{n},5" for n, count in enumerate(counts)]
    told = ask("total Einwohner", text="\n".join(["Stadt;Einwohner;Preis", *rows]))
    assert shows(told.answer, sum(counts))


def test_points_with_three_digits_stay_decimal_where_the_file_shows_decimal_points(ask: Ask) -> None:
    rows = [f"S{n};{1 + n / 1000:.3f};{n}.5" for n in range(1, 30)]
    told = ask("total Quote", text="\n".join(["Stadt;Quote;Preis", *rows]))
    assert shows(told.answer, sum(1 + n / 1000 for n in range(1, 30)))


def test_parentheses_are_negatives(ask: Ask) -> None:
    amounts = [-1000.0 - n if n % 3 == 0 else 2000.0 + n for n in range(30)]
    rows = [f'A{n},"{f"({-a:,.2f})" if a < 0 else f"{a:,.2f}"}"' for n, a in enumerate(amounts)]
    assert shows(ask("total amount", text="\n".join(["acct,amount", *rows])).answer, sum(amounts))


def test_year_of_a_table_without_times_is_refused(ask: Ask) -> None:
    told = ask("total amount in 2023", text="acct,amount\na,1\nb,2\n")
    assert told.answer.startswith("I cannot answer this. I did not understand “in 2023”")


def test_first_line_with_a_field_too_many_is_refused(ask: Ask) -> None:
    told = ask("total b", text="a,b,c\n1,2,3,4\n" + "1,2,3\n" * 9)
    assert "has more fields than its header" in told.answer


def test_names_of_rows_before_the_first_column_are_read(ask: Ask) -> None:
    assert shows(ask("total b", text="a,b\n" + "".join(f"x{n},{n},{n + 5}\n" for n in range(9))).answer, 81)
