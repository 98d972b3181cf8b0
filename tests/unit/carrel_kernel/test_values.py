"""Values are described without asking them anything: whatever their classes define is never called.

Plan
- Traps: objects, containers, strings, numbers, arrays and classes of which every method, property and metaclass method
  records that it was called and raises what is no Exception. They are described, and nothing is recorded.
- What is seen of ordinary values: scalars, containers, arrays, frames, objects with attributes, and odd ones.
- JSON: what `plain` returns can be written as JSON, whatever comes in (Hypothesis).
- The listing: which variables are in it, and that it is honest about what is missing.
"""

from __future__ import annotations

import collections
import datetime as dt
import decimal
import enum
import json
import math
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from carrel_kernel.inside import tables, values, variables


class Sprung(BaseException):
    """A trap was sprung; no `Exception`, so that nothing but the worst handler catches it."""


touched: list[str] = []
armed = False
HOSTILE = """
    __repr__ __str__ __len__ __iter__ __getattr__ __getattribute__ __eq__ __bool__ __format__ __sizeof__ __index__
    __float__ __int__ __getitem__ __contains__ __dir__ __reduce_ex__ __instancecheck__ __subclasscheck__ __call__
    _repr_html_ _repr_mimebundle_ isoformat items keys bit_length tolist to_json utcoffset tzname
"""
PROPERTIES = "__class__ __name__ __module__ shape dtype dtypes nbytes columns index schema tzinfo"


def trap(name: str) -> Any:
    def sprung(*arguments: Any, **_: Any) -> Any:
        if armed:
            touched.append(name)
            raise Sprung(name)
        if hasattr(object, name):
            return getattr(object, name)(*arguments)
        raise AttributeError(name)

    return sprung


@pytest.fixture
def springs() -> Iterator[None]:
    """Traps are harmless until this: libraries look at objects when they are put into frames."""
    global armed  # noqa: PLW0603
    touched.clear()
    armed = True
    yield
    armed = False
    assert touched == []


METHODS = {name: trap(name) for name in HOSTILE.split()} | {name: property(trap(name)) for name in PROPERTIES.split()}
NOT_FOR_CLASSES = {"__class__", "__call__", "__module__", "__name__"}
META = type("Meta", (type,), {name: value for name, value in METHODS.items() if name not in NOT_FOR_CLASSES})


def of(base: type, *arguments: Any) -> Any:
    """Return an instance of a class full of traps below a base."""
    members = {name: value for name, value in METHODS.items() if name != "__module__"}
    made = type("Trap", (base,), members | {"__hash__": base.__hash__})
    return base.__new__(made, *arguments)


def traps() -> dict[str, Any]:
    class WithSlots:
        __slots__ = ("dtype", "nbytes", "shape")

    slots = WithSlots()
    for name in WithSlots.__slots__:
        setattr(slots, name, of(object))

    class WithDict:
        __dict__ = property(trap("__dict__"))  # type: ignore[assignment]

    class Evil(dt.tzinfo):
        utcoffset = tzname = dst = __repr__ = trap("tzinfo")

    class FalseFrame:
        __module__ = "pandas.core.frame"
        shape = property(trap("shape"))

    FalseFrame.__name__ = "DataFrame"
    holder = type("Holder", (), {})()
    holder.held, holder.shape, holder.dtype, holder.nbytes = of(object), of(tuple), of(str), of(int)
    return {
        "object": of(object),
        "list": of(list, [1]),
        "dict": of(dict),
        "tuple": of(tuple, [1]),
        "set": of(set),
        "str": of(str, "text"),
        "bytes": of(bytes, b"x"),
        "int": of(int, 5),
        "float": of(float, 5.0),
        "datetime": of(dt.datetime, 2026, 1, 1),
        "array": np.zeros(3).view(type("Sub", (np.ndarray,), METHODS)),
        "objects": np.array([of(object)], dtype=object),
        "slots": slots,
        "with dict": WithDict(),
        "false frame": FalseFrame(),
        "holder": holder,
        "zone": dt.datetime(2026, 1, 1, tzinfo=Evil()),
        "in containers": [{"a": of(object), of(object): 1}, (of(object),)],
        "of a metaclass": META("C", (), {})(),
        "in a frame": pd.DataFrame({"a": pd.Series([of(object)], dtype=object)}),
        "in an index": pd.DataFrame({"a": [1]}, index=pd.Index([of(object)], dtype=object)),
        "in columns": pd.DataFrame([[1]], columns=pd.Index([of(object)], dtype=object)),
        "in polars": pl.DataFrame({"a": pl.Series([of(object)], dtype=pl.Object)}),
    }


def listed(namespace: dict[Any, Any], hidden: dict[Any, Any] | None = None) -> dict[str, Any]:
    listing: dict[str, Any] = {"variables": [], "truncated": True}
    variables.add_to(listing, namespace, hidden or {})
    return listing


def one(value: Any) -> dict[str, Any]:
    (found,) = listed({"value": value})["variables"]
    json.dumps(found, allow_nan=False)
    return found


TRAPS = traps()


@pytest.mark.usefixtures("springs")
@pytest.mark.parametrize("name", list(TRAPS))
def test_nothing_of_an_object_is_called(name: str) -> None:
    found = one(TRAPS[name])
    values.plain(TRAPS[name])
    assert found["summary"]


@pytest.mark.usefixtures("springs")
def test_classes_and_functions_are_not_listed_whatever_their_metaclass() -> None:
    found = listed({"a": META("C", (), {}), "b": len, "c": sys, "d": trap("d"), "e": 1, "_f": 2, "g": 3}, {"g": 3})
    assert [item["name"] for item in found["variables"]] == ["e"]


@pytest.mark.usefixtures("springs")
def test_odd_names_are_left_out() -> None:
    assert listed({of(str, "odd"): 1, 5: 2, "x": 3, None: 4})["variables"][0]["name"] == "x"


@dataclass(frozen=True)
class Point:
    x: int
    y: str
    child: Any = None
    _hidden: int = 0


class Colour(enum.Enum):
    RED = 1


@pytest.mark.parametrize(
    ("value", "summary"),
    [
        (5, "5"),
        (2**4096, "int of 4097 bits"),
        (1.5, "1.5"),
        (math.nan, "nan"),
        (None, "None"),
        (True, "True"),
        ("text", "'text'"),
        (b"x", "b'x'"),
        (decimal.Decimal("1.50"), "Decimal('1.50')"),
        (dt.date(2026, 1, 2), "datetime.date(2026, 1, 2)"),
        (pd.Timestamp("2026-01-02"), "Timestamp('2026-01-02 00:00:00')"),
        (pd.NaT, "NaT"),
        (np.float64(1.5), "np.float64(1.5)"),
        (np.datetime64("2026-01-02"), "np.datetime64('2026-01-02')"),
        (Path("/a/b"), "PosixPath('/a/b')"),
        (uuid.UUID(int=1), "UUID('00000000-0000-0000-0000-000000000001')"),
        ([1, 2], "list of 2 items"),
        ({"a": 1}, "dict of 1 items"),
        (collections.OrderedDict(a=1), "OrderedDict of 1 items"),
        (collections.deque([1]), "deque of 1 items"),
        (range(10), "range of 10 items"),
        (np.zeros((2, 3)), "ndarray of shape (2, 3)"),
        (Point(1, "a"), "Point(x=1, y='a', child=None)"),
        (Point(1, "b" * 100, Point(2, "c")), f"Point(x=1, y={'b' * 40!r}, child=Point)"),
        (Fraction(1, 2), "Fraction"),
        (Colour.RED, "Colour"),
        (object(), "object"),
        (pd.DataFrame({"a": [1, 2]}), "DataFrame of shape (2, 1)"),
        (pd.Series([1, 2]), "Series of shape (2,)"),
        (pl.DataFrame({"a": [1, 2]}), "DataFrame of shape (2, 1)"),
        (pl.Series([1, 2]), "Series of shape (2,)"),
    ],
)
def test_summaries(value: Any, summary: str) -> None:
    assert one(value)["summary"] == summary


def test_an_object_with_many_attributes_is_cut() -> None:
    value = type("Many", (), {})()
    for number in range(30):
        setattr(value, f"a{number}", "x" * 1000)
    assert len(one(value)["summary"]) == values.MAX_TEXT
    for number in range(30):
        setattr(value, f"a{number}", 1)
    assert one(value)["summary"].endswith("a9=1, …)")


def test_arrays_tell_shape_type_and_size() -> None:
    found = one(np.zeros((3, 4), dtype="float32"))
    assert (found["shape"], found["dtypes"], found["memory_bytes"]) == ([3, 4], {"": "float32"}, 48)
    assert one(np.zeros(3).view(type("Sub", (np.ndarray,), {})))["shape"] == [3]
    assert one([1, 2, 3])["memory_bytes"] == [1, 2, 3].__sizeof__()


@pytest.mark.parametrize("library", [pd, pl])
def test_frames_tell_columns_and_first_rows(library: Any) -> None:
    frame = library.DataFrame({"n": range(100), "s": ["x"] * 100})
    found = one(frame)
    assert found["shape"] == [100, 2]
    assert list(found["dtypes"]) == ["n", "s"]
    assert found["preview"] == {"columns": ["n", "s"], "rows": [[number, "x"] for number in range(5)]}
    assert found["memory_bytes"] >= 800
    column = one(frame["n"])
    assert (column["shape"], list(column["dtypes"]), column["preview"]) == ([100], [""], None)
    assert column["memory_bytes"] >= 800


def test_very_wide_frames_are_not_counted() -> None:
    found = one(pd.DataFrame(np.zeros((1, 20_000))))
    assert (found["shape"], found["memory_bytes"], len(found["dtypes"])) == ([1, 20_000], None, 100)


def test_tables_hold_what_json_can_say() -> None:
    frame = pd.DataFrame(
        {
            "o": [{"a": [1, Point(1, "a")]}, "x", None],
            "t": pd.to_datetime(["2026-01-02", None, "2026-01-03"]),
            "f": [1.5, math.nan, math.inf],
            "c": pd.Categorical(["a", "b", "a"]),
        },
        index=pd.MultiIndex.from_tuples([("a", 1), ("b", 2), ("c", Point(1, "x"))]),
    )
    table = tables.pandas_table(frame)
    assert table
    assert table["index"] == [["a", 1], ["b", 2], ["c", "Point(x=1, y='x', child=None)"]]
    assert table["rows"][0] == [{"a": [1, "Point(x=1, y='a', child=None)"]}, "2026-01-02T00:00:00.000", 1.5, "a"]
    assert table["rows"][1] == ["x", None, None, "b"]
    assert table["shape"] == [3, 4]
    repeated = tables.pandas_table(pd.DataFrame([[1, 2]], columns=["a", "a"]))
    assert repeated
    assert repeated["rows"] == [[1, 2]]
    table = tables.polars_table(
        pl.DataFrame({"l": [[1, 2]], "s": [{"a": 1}], "d": [dt.date(2026, 1, 2)], "x": [decimal.Decimal("1.5")]})
    )
    assert table
    assert table["rows"] == [[[1, 2], {"a": 1}, "2026-01-02", "Decimal('1.5')"]]
    assert [field["type"] for field in table["schema"]["fields"]] == [
        "List(Int64)",
        "Struct({'a': Int64})",
        "Date",
        "Decimal(precision=38, scale=1)",
    ]


def test_a_frame_that_cannot_be_read_is_no_table() -> None:
    class Broken(pd.DataFrame):
        @property
        def iloc(self) -> Any:
            raise RuntimeError

    assert tables.pandas_table(Broken({"a": [1]})) is None
    assert tables.polars_table(object()) is None


ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.binary(max_size=5)
    | st.dates()
    | st.datetimes(timezones=st.none() | st.just(dt.UTC))
    | st.decimals()
    | st.complex_numbers()
    | st.builds(object),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(max_size=3) | st.integers() | st.floats(), inner, max_size=3)
        | st.builds(Point, inner, inner)
    ),
    max_leaves=10,
)


@given(ANYTHING)
def test_whatever_comes_can_be_written_as_json(value: Any) -> None:
    json.dumps(values.plain(value), allow_nan=False)
    assert len(one(value)["summary"]) <= values.MAX_TEXT


def test_depth_and_length_are_bounded() -> None:
    deep: list[Any] = []
    deep.append(deep)
    assert json.dumps(values.plain(deep)) == '[[[["list of 1 items"]]]]'
    assert len(values.plain(list(range(100)))) == 20
    assert len(values.plain(dict.fromkeys(range(100)))) == 20


def test_a_listing_that_is_cut_says_so() -> None:
    listing: dict[str, Any] = {"variables": [], "truncated": True}
    names = {f"v{number:03}": number for number in range(600)}
    variables.add_to(listing, names, {})
    assert (len(listing["variables"]), listing["truncated"]) == (500, True)
    assert listed({"a": 1})["truncated"] is False
