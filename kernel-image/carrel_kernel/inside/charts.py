"""The data of a matplotlib figure: its axes with their lines, bars and points, for whoever wants more than a picture.

Off unless `CARREL_CHART_DATA` is `1` in the kernel's environment, which a session decides at bind and a cell with
`%env CARREL_CHART_DATA=1`. Other kinds of artists, such as images and pies, are in the picture alone.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterable
from typing import Any, Final

SWITCH: Final = "CARREL_CHART_DATA"
_MAX_AXES: Final = 16
_MAX_SERIES: Final = 32
_MAX_POINTS: Final = 2000
_ENOUGH: Final = _MAX_POINTS + 1
"""One more, to see that there are more."""
_NAMING: Final = ("FixedFormatter", "FuncFormatter")
"""They give texts to places; others write numbers as numbers."""


def is_figure(value: Any) -> bool:
    """Whether it is a figure of matplotlib, which is imported then."""
    module = sys.modules.get("matplotlib.figure")
    return module is not None and issubclass(type(value), module.Figure)


def chart(figure: Any) -> dict[str, Any] | None:
    """Return the figure's data; none when they are not asked for, there are none, or they cannot be read."""
    if os.environ.get(SWITCH) != "1":
        return None
    try:
        axes = [_axes(one) for one in figure.axes[:_MAX_AXES]]
    except Exception:  # noqa: BLE001  figures hold user objects, which raise anything; the cell shows the picture anyway
        return None
    cut = any([len(figure.axes) > _MAX_AXES, *(one.pop("truncated") for one in axes)])
    shown = [one for one in axes if one["series"]]
    return {"axes": shown, "truncated": cut} if shown else None


def _axes(axes: Any) -> dict[str, Any]:
    series = [*_lines(axes), *_bars(axes), *_points(axes)]
    shown = [_cut(one) for one in series[:_MAX_SERIES]]
    return {
        "title": axes.get_title(),
        "x_label": axes.get_xlabel(),
        "y_label": axes.get_ylabel(),
        "x_scale": axes.get_xscale(),
        "y_scale": axes.get_yscale(),
        "series": [one for one in shown if any(value is not None for value in one["y"])],
        "truncated": len(series) > _MAX_SERIES or any(len(one["x"]) > _MAX_POINTS for one in series),
    }


def _cut(series: dict[str, Any]) -> dict[str, Any]:
    """Return the series with values of JSON, as many as there may be."""
    return {
        **series,
        "x": [_value(value) for value in series["x"][:_MAX_POINTS]],
        "y": [_value(value) for value in series["y"][:_MAX_POINTS]],
    }


def _lines(axes: Any) -> Iterable[dict[str, Any]]:
    for line in axes.get_lines():
        x, y = line.get_xdata(orig=True)[:_ENOUGH], line.get_ydata(orig=True)[:_ENOUGH]
        yield _series("line", line, _periods(axes, x), y)


def _periods(axes: Any, x: Any) -> Any:
    """Return places on an axis as the times that they are: pandas numbers the periods of a regular time series."""
    frequency = getattr(axes, "freq", None)
    if frequency is None or "pandas" not in sys.modules:
        return x
    return [str(sys.modules["pandas"].Period(ordinal=int(place), freq=frequency)) for place in x]


def _bars(axes: Any) -> Iterable[dict[str, Any]]:
    for bars in axes.containers:
        if type(bars).__name__ != "BarContainer":
            continue
        upright = bars.orientation != "horizontal"
        names = _names(axes.xaxis if upright else axes.yaxis)
        boxes = [(bar.get_x(), bar.get_width(), bar.get_y(), bar.get_height()) for bar in bars.patches[:_ENOUGH]]
        middles = [x + width / 2 if upright else y + height / 2 for x, width, y, height in boxes]
        places = [_named(names, middle) for middle in middles]
        sizes = [height if upright else width for _, width, _, height in boxes]
        yield _series("bar", bars, places if upright else sizes, sizes if upright else places)


def _points(axes: Any) -> Iterable[dict[str, Any]]:
    for points in axes.collections:
        if type(points).__name__ != "PathCollection":
            continue
        x_names, y_names = _names(axes.xaxis), _names(axes.yaxis)
        offsets = points.get_offsets()[:_ENOUGH].tolist()
        x = [_named(x_names, place) for place, _ in offsets]
        yield _series("scatter", points, x, [_named(y_names, place) for _, place in offsets])


def _series(kind: str, artist: Any, x: Any, y: Any) -> dict[str, Any]:
    label = artist.get_label()
    named = isinstance(label, str) and not label.startswith("_")  # matplotlib's own names begin so
    return {"kind": kind, "label": label if named else None, "x": list(x), "y": list(y)}


def _names(axis: Any) -> dict[float, str]:
    """Return what places on an axis are called, where they have names: categories, or ticks with fixed texts."""
    mapping = getattr(axis.get_units(), "_mapping", None)
    if mapping:
        return {float(place): str(name) for name, place in mapping.items()}
    locator, formatter = axis.get_major_locator(), axis.get_major_formatter()
    if type(locator).__name__ != "FixedLocator" or type(formatter).__name__ not in _NAMING:
        return {}
    return {round(float(place), 6): str(formatter(place, at)) for at, place in enumerate(locator.locs)}


def _named(names: dict[float, str], place: float | None) -> float | str | None:
    """Return the name of a place where it has one; matplotlib masks what is not finite."""
    return None if place is None else names.get(round(place, 6), place)


def _value(value: Any) -> Any:
    """Return a number that JSON has, or the text of anything else."""
    if isinstance(value, bool | int | str) or value is None:
        return value
    number = getattr(value, "item", lambda: value)()  # of numpy
    if isinstance(number, int | float):
        return number if math.isfinite(number) else None
    return value.isoformat() if hasattr(value, "isoformat") else str(value)
