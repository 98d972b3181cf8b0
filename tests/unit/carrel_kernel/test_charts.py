"""The data of figures, with matplotlib itself, as pandas and seaborn draw on it.

Plan
- Off without the switch. Lines, bars upright and lying, points; names of categories, dates, periods of pandas; what is
  not finite; labels, titles, scales; axes without any of these.
- Bounds of axes, series and points, and that they are told.
- What comes is JSON; a figure that cannot be read has no data.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

from carrel_kernel.inside import charts

mpl.use("agg")

import matplotlib.pyplot as plt


@pytest.fixture(autouse=True)
def asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv(charts.SWITCH, "1")
    yield
    plt.close("all")


def read(figure: Any) -> dict[str, Any]:
    found = charts.chart(figure)
    json.dumps(found, allow_nan=False)
    assert found is not None
    return found


def only(figure: Any) -> dict[str, Any]:
    (axes,) = read(figure)["axes"]
    (series,) = axes["series"]
    return series


@pytest.mark.parametrize("value", [None, "", "0", "yes"])
def test_nothing_is_told_unless_asked(monkeypatch: pytest.MonkeyPatch, value: str | None) -> None:
    figure, axes = plt.subplots()
    axes.plot([1, 2])
    assert charts.chart(figure)
    if value is None:
        monkeypatch.delenv(charts.SWITCH)
    else:
        monkeypatch.setenv(charts.SWITCH, value)
    assert charts.chart(figure) is None


def test_a_line_with_all_that_is_written_around_it() -> None:
    figure, axes = plt.subplots()
    axes.plot([1, 2, 3], [4.5, math.nan, math.inf], label="prices")
    axes.set(title="T", xlabel="X", ylabel="Y", yscale="log")
    assert read(figure) == {
        "axes": [
            {
                "title": "T",
                "x_label": "X",
                "y_label": "Y",
                "x_scale": "linear",
                "y_scale": "log",
                "series": [{"kind": "line", "label": "prices", "x": [1, 2, 3], "y": [4.5, None, None]}],
            }
        ],
        "truncated": False,
    }


def test_bars_have_the_names_of_their_categories() -> None:
    figure, axes = plt.subplots()
    axes.bar(["a", "b"], [1, 2])
    assert only(figure) == {"kind": "bar", "label": None, "x": ["a", "b"], "y": [1, 2]}
    figure, axes = plt.subplots()
    axes.barh(["a", "b"], [1, 2])
    assert only(figure) == {"kind": "bar", "label": None, "x": [1, 2], "y": ["a", "b"]}
    figure, axes = plt.subplots()
    axes.hist([1, 2, 2, 3], bins=2)
    assert only(figure)["x"] == [1.5, 2.5]


def test_points() -> None:
    figure, axes = plt.subplots()
    axes.scatter(np.array([1, 2]), np.array([3, math.nan]), label="s")
    assert only(figure) == {"kind": "scatter", "label": "s", "x": [1.0, None], "y": [3.0, None]}
    figure, axes = plt.subplots()
    axes.scatter(["u", "v"], [1, 2])
    assert only(figure)["x"] == ["u", "v"]


def test_times() -> None:
    figure, axes = plt.subplots()
    axes.plot(pd.date_range("2026-01-01", periods=2, tz="UTC"), [1, 2])
    assert [place[:10] for place in only(figure)["x"]] == ["2026-01-01", "2026-01-02"]
    figure, axes = plt.subplots()
    pd.Series([1, 2], index=pd.date_range("2026-01-01", periods=2)).plot(ax=axes)
    assert only(figure)["x"] == ["2026-01-01", "2026-01-02"]


def test_what_pandas_and_seaborn_draw() -> None:
    figure, axes = plt.subplots()
    pd.DataFrame({"n": [1, 2], "m": [3, 4]}, index=["p", "q"]).plot.bar(ax=axes)
    assert [series["label"] for series in read(figure)["axes"][0]["series"]] == ["n", "m"]
    seaborn = pytest.importorskip("seaborn")
    figure, axes = plt.subplots()
    seaborn.barplot(pd.DataFrame({"k": ["u", "v"], "n": [1, 2]}), x="k", y="n", ax=axes, errorbar=None)
    assert only(figure)["x"] == ["u", "v"]
    assert read(figure)["axes"][0]["x_label"] == "k"


def test_axes_without_series_are_left_out() -> None:
    figure, (_, right) = plt.subplots(1, 2)
    right.plot([1, 2])
    assert len(read(figure)["axes"]) == 1
    figure, axes = plt.subplots()
    axes.pie([1, 2])
    assert charts.chart(figure) is None


def test_what_there_may_be_is_bounded() -> None:
    figure, axes = plt.subplots()
    axes.plot(np.arange(10_000), np.arange(10_000))
    found = read(figure)
    assert found["truncated"] is True
    assert len(found["axes"][0]["series"][0]["x"]) == len(found["axes"][0]["series"][0]["y"]) == 2000
    figure, axes = plt.subplots()
    for number in range(40):
        axes.plot([number, number])
    found = read(figure)
    assert (len(found["axes"][0]["series"]), found["truncated"]) == (32, True)
    figure, many = plt.subplots(5, 4)
    for axes in many.flat:
        axes.plot([1, 2])
    found = read(figure)
    assert (len(found["axes"]), found["truncated"]) == (16, True)


def test_a_figure_that_cannot_be_read_has_no_data() -> None:
    class Broken:
        @property
        def axes(self) -> Any:
            raise RuntimeError

    assert charts.chart(Broken()) is None
