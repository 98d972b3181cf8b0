"""Real tables for the analyst, written as files of many kinds: what people upload.

Sources: scikit-learn and statsmodels as installed, and the bundled wine data. Each workspace is a folder with `data/`;
`frame` is the table as the test knows it, read by the test's own means and never by the analyst's code.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from statsmodels import datasets

BUNDLED = Path(__file__).parents[3] / "gateway" / "carrel_gateway" / "data" / "wine.csv"


@dataclass(frozen=True)
class Workspace:
    path: Path
    frame: pd.DataFrame


def make(root: Path) -> dict[str, Workspace]:
    """Write every table and return the workspaces by name."""
    frames = {name: build() for name, build in _FRAMES.items()}
    made: dict[str, Workspace] = {}
    for name, frame in frames.items():
        folder = root / name / "data"
        folder.mkdir(parents=True)
        _WRITERS.get(name, _plain)(frame, folder, name)
        made[name] = Workspace(root / name, frame)
    return made


def iris() -> pd.DataFrame:
    data = _sklearn().load_iris(as_frame=True)
    frame = data.frame
    frame["species"] = np.array(data.target_names)[frame.pop("target")]
    return frame


def flowers() -> pd.DataFrame:
    """The iris again, as a table with holes."""
    frame = iris()
    frame.columns = ["SepalLength", "SepalWidth", "PetalLength", "PetalWidth", "Species"]
    frame.loc[frame.index % 10 == 3, "PetalWidth"] = np.nan
    frame.loc[[5, 60, 110], "Species"] = np.nan
    return frame


def grunfeld() -> pd.DataFrame:
    return datasets.grunfeld.load_pandas().data.astype({"year": int})


def firmen() -> pd.DataFrame:
    """The same companies with German words."""
    frame = grunfeld().rename(columns={"firm": "Unternehmen", "invest": "Investition", "value": "Börsenwert"})
    return frame.rename(columns={"capital": "Kapital", "year": "Jahr"})


def co2() -> pd.DataFrame:
    frame = datasets.co2.load_pandas().data.rename_axis("date").reset_index()
    return frame[["date", "co2"]]


def macro() -> pd.DataFrame:
    frame = datasets.macrodata.load_pandas().data
    return frame.astype({"year": int, "quarter": int})


def nile() -> pd.DataFrame:
    return datasets.nile.load_pandas().data.astype({"year": int, "volume": int})


def crime() -> pd.DataFrame:
    return datasets.statecrime.load_pandas().data.rename_axis("state").reset_index()


def affairs() -> pd.DataFrame:
    return datasets.fair.load_pandas().data


def travel() -> pd.DataFrame:
    frame = datasets.modechoice.load_pandas().data
    frame["mode"] = frame["mode"].map({1: "air", 2: "train", 3: "bus", 4: "car"})
    frame["chosen"] = frame.pop("choice").map({1: "yes", 0: "no"})
    return frame.rename(columns={"hinc": "household_income", "psize": "party_size", "gc": "generalized_cost"})


def cancer() -> pd.DataFrame:
    data = _sklearn().load_breast_cancer(as_frame=True)
    frame = data.frame
    frame["diagnosis"] = np.array(data.target_names)[frame.pop("target")]
    return frame


def diabetes() -> pd.DataFrame:
    data = _sklearn().load_diabetes(as_frame=True, scaled=False)
    return data.frame.rename(columns={"bp": "blood_pressure", "target": "progression"})


def exercise() -> pd.DataFrame:
    return _sklearn().load_linnerud(as_frame=True).frame


def orders() -> pd.DataFrame:
    """Orders of a small shop, from a seeded generator: dates, prices with units, yes and no."""
    random = np.random.default_rng(11)
    count = 900
    days = pd.Timestamp("2022-01-01") + pd.to_timedelta(random.integers(0, 720, count), unit="D")
    frame = pd.DataFrame(
        {
            "order_id": np.arange(1000, 1000 + count),
            "order_date": days,
            "Region": random.choice(["North", "South", "East", "West"], count, p=[0.4, 0.3, 0.2, 0.1]),
            "product_category": random.choice(["Chairs", "Lamps", "Tables"], count),
            "quantity": random.integers(1, 9, count),
            "unit_price": np.round(random.gamma(4, 12, count), 2),
            "returned": random.choice(["Yes", "No"], count, p=[0.15, 0.85]),
        }
    )
    frame["revenue"] = np.round(frame["quantity"] * frame["unit_price"] * (1 + (days.year == 2023) * 0.2), 2)
    return frame.sort_values("order_date", ignore_index=True)


def _plain(frame: pd.DataFrame, folder: Path, name: str) -> None:
    frame.to_csv(folder / f"{name}.csv", index=False)


def _bundled(_: pd.DataFrame, folder: Path, name: str) -> None:
    shutil.copy(BUNDLED, folder / f"{name}.csv")


def _german(frame: pd.DataFrame, folder: Path, name: str) -> None:
    """Semicolons, decimal commas, and an encoding of the last century."""
    frame.to_csv(folder / f"{name}.csv", sep=";", decimal=",", index=False, encoding="cp1252")


def _tabs_and_german_dates(frame: pd.DataFrame, folder: Path, name: str) -> None:
    frame.to_csv(folder / f"{name}.tsv", sep="\t", index=False, date_format="%d.%m.%Y", na_rep="-")


def _question_marks(frame: pd.DataFrame, folder: Path, name: str) -> None:
    frame.to_csv(folder / f"{name}.csv", sep="|", index=False, na_rep="?")


def _with_title_and_row_numbers(frame: pd.DataFrame, folder: Path, name: str) -> None:
    """A title above the header, as spreadsheets export it."""
    text = frame.to_csv(index=False)
    (folder / f"{name}.csv").write_text("Crime in the states\n\n" + text, encoding="utf-8")


def _units(frame: pd.DataFrame, folder: Path, name: str) -> None:
    """American dates, dollar signs and thousands separators."""
    shown: dict[str, Any] = {
        "order_date": frame["order_date"].dt.strftime("%m/%d/%Y"),
        "revenue": frame["revenue"].map("${:,.2f}".format),
    }
    frame.assign(**shown).to_csv(folder / f"{name}.csv", index=True)


_FRAMES: dict[str, Any] = {
    "iris": iris,
    "flowers": flowers,
    "wine": lambda: pd.read_csv(BUNDLED),
    "grunfeld": grunfeld,
    "firmen": firmen,
    "co2": co2,
    "macro": macro,
    "nile": nile,
    "crime": crime,
    "affairs": affairs,
    "travel": travel,
    "cancer": cancer,
    "diabetes": diabetes,
    "exercise": exercise,
    "orders": orders,
}
_WRITERS: dict[str, Any] = {
    "wine": _bundled,
    "flowers": _question_marks,
    "firmen": _german,
    "co2": _tabs_and_german_dates,
    "crime": _with_title_and_row_numbers,
    "orders": _units,
    "nile": lambda frame, folder, name: frame.to_json(folder / f"{name}.json", orient="records"),
    "diabetes": lambda frame, folder, name: frame.to_parquet(folder / f"{name}.parquet"),
    "exercise": lambda frame, folder, name: frame.to_excel(folder / f"{name}.xlsx", index=False),
    "affairs": lambda frame, folder, name: frame.to_csv(folder / f"{name}.csv.gz", index=False),
}


def _sklearn() -> Any:
    from sklearn import datasets as found  # seconds, of every worker that only collects

    return found
