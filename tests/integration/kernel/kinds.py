"""The table of kinds of values: how each is made, and how its copy in another process is compared.

A value is made by evaluating `code` after `PREPARED` has run. Where it is restored, `value` is what came back and
`again` is the same code evaluated anew there.
"""

from __future__ import annotations

from dataclasses import dataclass

PREPARED = """
import abc, asyncio, collections, contextvars, dataclasses, datetime as dt, decimal, enum, fractions, functools
import io, os, pathlib, queue, re, socket, sqlite3, subprocess, sys, threading, types, uuid, weakref, zoneinfo
from concurrent.futures import ThreadPoolExecutor
import duckdb, matplotlib.pyplot as plt, numpy as np, pandas as pd, polars as pl, pyarrow as pa
import scipy.sparse, xgboost
from sklearn.linear_model import LinearRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

offset = 10

def function(x):
    return x + offset

def fibonacci(n):
    return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)

def counter():
    count = 0
    def increment():
        nonlocal count
        count += 1
        return count
    return increment

def decorated_by(factor):
    def decorate(inner):
        @functools.wraps(inner)
        def outer(*args):
            return factor * inner(*args)
        return outer
    return decorate

@decorated_by(3)
def decorated(x):
    "Documented."
    return x

def numbers():
    yield 1

async def later():
    return 1

async def stream():
    yield 1

class Base(abc.ABC):
    @abc.abstractmethod
    def size(self): ...

class Derived(Base):
    kind = "derived"
    def __init__(self, n): self.n = n
    def size(self): return super().__init__.__qualname__ and self.n
    @property
    def double(self): return 2 * self.n
    @classmethod
    def of(cls, n): return cls(n)
    @staticmethod
    def name(): return "static"
    def __eq__(self, other): return type(other) is Derived and other.n == self.n
    __hash__ = None

@dataclasses.dataclass(frozen=True)
class Point:
    x: int
    tags: tuple = ()

class Color(enum.Enum):
    RED = 1
    BLUE = "blue"

Pair = collections.namedtuple("Pair", "left right")

class Slotted:
    __slots__ = ("a",)

class Table(pd.DataFrame):
    pass

class Refuses:
    def __reduce__(self): raise ValueError("I refuse")

class Hangs:
    def __reduce__(self):
        while True:
            try:
                while True: pass
            except Exception: pass

class Spoilt:
    def __setstate__(self, state): raise RuntimeError("spoilt")
    def __init__(self): self.own = [1]

X = np.arange(40.0).reshape(20, 2)
Y = X @ [1.0, 2.0] + 1

def large(kind="f8"):
    return np.arange(20_000).astype(kind)

def figure():
    made, axes = plt.subplots()
    axes.plot([1, 2, 3], [4, 5, 6])
    axes.set_title("lines")
    plt.close(made)
    return made

def slotted():
    made = Slotted()
    made.a = 5
    return made

def with_attributes():
    made = pd.DataFrame({"a": range(20_000)})
    made.attrs["source"] = "here"
    return made
"""


@dataclass(frozen=True)
class Kind:
    """One that is restored."""

    name: str
    code: str
    same: str = "assert type(value) is type(again) and value == again"


FRAMES = "pd.testing.assert_frame_equal(value, again); assert value.attrs == again.attrs"
ARRAYS = "np.testing.assert_array_equal(value, again, strict=True); assert value.flags.writeable"
PREDICTS = "np.testing.assert_array_equal(value.predict(X), again.predict(X))"

RESTORED = (
    # of the language
    Kind("integer", "-3"),
    Kind("large_integer", "7 ** 2000"),
    Kind("not_a_number", "float('nan')", "assert value != value"),
    Kind("complex_number", "1 - 2j"),
    Kind("text", "'ä\\x00\\U0001f600'"),
    Kind("binary", "bytes(range(256))"),
    Kind("large_binary", "bytearray(b'x' * 200_000)"),
    Kind("nothing", "None"),
    Kind("nested", "[1, (2, {3: [4, {5}]}), frozenset({6})]"),
    Kind("decimal_number", "decimal.Decimal('1.10')"),
    Kind("fraction", "fractions.Fraction(1, 3)"),
    Kind("path", "pathlib.Path('data') / 'a.csv'"),
    Kind("moment", "dt.datetime(2026, 3, 29, 1, 30, tzinfo=zoneinfo.ZoneInfo('Europe/Berlin'))"),
    Kind("duration", "dt.timedelta(days=1, microseconds=5)"),
    Kind("unique_id", "uuid.UUID(int=5)"),
    Kind("default_dict", "collections.defaultdict(list, a=[1])", "assert value == again and value['new'] == []"),
    Kind("counted", "collections.Counter('abca')"),
    Kind("ordered", "collections.OrderedDict(b=1, a=2)", "assert list(value.items()) == list(again.items())"),
    Kind("double_ended", "collections.deque([1, 2], maxlen=3)", "assert value == again and value.maxlen == 3"),
    Kind("pattern", "re.compile(r'a+', re.I)"),
    Kind("span", "slice(1, 10, 2)"),
    Kind("numbers_in_between", "range(0, 10, 3)"),
    Kind("error", "ValueError('wrong', 3)", "assert type(value) is ValueError and value.args == again.args"),
    Kind("in_memory_file", "io.BytesIO(b'abc')", "assert value.getvalue() == b'abc'"),
    Kind("place_in_a_list", "iter([1, 2, 3])", "assert list(value) == [1, 2, 3]"),
    # code of the session
    Kind("plain_function", "function", "assert value is function and value(1) == 11"),
    Kind("recursive_function", "fibonacci", "assert value is fibonacci and value(10) == 55"),
    Kind("closure", "counter()", "assert [value(), value()] == [1, 2]"),
    Kind("unnamed_function", "lambda x, y=2: x * y + offset", "assert value(3) == 16"),
    Kind("unnamed_functions", "[lambda x, i=i: x * i for i in range(3)]", "assert [f(2) for f in value] == [0, 2, 4]"),
    Kind("partly_applied", "functools.partial(function, 5)", "assert value() == 15"),
    Kind("decorated_function", "decorated", "assert value(2) == 6 and value.__doc__ == 'Documented.'"),
    Kind("method", "Derived(4).size", "assert value() == 4"),
    Kind("abstract_class", "Base", "assert value is Base and value.__abstractmethods__ == {'size'}"),
    Kind("a_class", "Derived", "assert value is Derived and Derived.of(2).double == 4 and Derived.name() == 'static'"),
    Kind("object_of_a_class", "Derived(3)", "assert value == again and isinstance(value, Base) and value.size() == 3"),
    Kind("object_with_slots", "slotted()", "assert type(value) is Slotted and value.a == 5"),
    Kind("data_class", "Point(1, ('a',))", "assert value == again and hash(value) == hash(again)"),
    Kind("enumeration", "Color.RED", "assert value is Color.RED and Color(1) is value and len(Color) == 2"),
    Kind("named_tuple", "Pair(1, right=2)", "assert value == again and value.right == 2"),
    Kind("coroutine_function", "later", "assert asyncio.iscoroutinefunction(value)"),
    Kind("generator_function", "numbers", "assert list(value()) == [1]"),
    # arrays
    Kind("array", "large()", ARRAYS),
    Kind("small_array", "np.arange(6).reshape(2, 3)", ARRAYS),
    Kind(
        "array_by_columns", "np.asfortranarray(large().reshape(100, 200))", ARRAYS + "; assert value.flags.f_contiguous"
    ),
    Kind("empty_array", "np.zeros((0, 3))", ARRAYS),
    Kind("array_without_axes", "np.array(5.0)", ARRAYS),
    Kind("view_of_an_array", "large()[5_000:]", ARRAYS),
    Kind("strided_view", "large()[::2]", ARRAYS),
    Kind("array_of_objects", "np.array([1, 'a', None, [2]], dtype=object)", "assert value.tolist() == again.tolist()"),
    Kind("array_of_records", "np.zeros(9_000, dtype=[('a', 'i4'), ('b', 'U3')])", ARRAYS),
    Kind("array_of_dates", "large('M8[s]')", ARRAYS),
    Kind("array_of_text", "np.array(['a', 'bcd'])", ARRAYS),
    Kind(
        "masked_array", "np.ma.masked_greater(np.arange(5), 2)", "assert value.filled(-1).tolist() == [0, 1, 2, -1, -1]"
    ),
    Kind("number_of_numpy", "np.float32(1.5)"),
    Kind("random_generator", "np.random.default_rng(3)", "assert value.random(5).tolist() == again.random(5).tolist()"),
    Kind("sparse_matrix", "scipy.sparse.random(300, 300, 0.2, 'csr', rng=1)", "assert (value != again).nnz == 0"),
    # tables
    Kind("frame", "pd.DataFrame({'n': large(), 's': 'a', 't': pd.Timestamp('2026-01-01')})", FRAMES),
    Kind("small_frame", "pd.DataFrame({'n': [1, None], 's': ['a', None]})", FRAMES),
    Kind("frame_of_categories", "pd.DataFrame({'c': pd.Categorical(['x', 'y', 'x'] * 30_000, ordered=True)})", FRAMES),
    Kind("frame_in_time_zones", "pd.DataFrame({'t': pd.date_range('2026', periods=9_000, tz='Asia/Tokyo')})", FRAMES),
    Kind(
        "frame_by_days", "pd.DataFrame({'n': large()}, index=pd.date_range('1990', periods=20_000, name='day'))", FRAMES
    ),
    Kind("frame_of_two_levels", "pd.DataFrame({'n': large()}).groupby([large() // 10, large() % 10]).sum()", FRAMES),
    Kind("frame_of_objects", "pd.DataFrame({'o': [[1], {'a': 2}, None] * 9_000})", FRAMES),
    Kind("frame_of_nullables", "pd.DataFrame({'i': pd.array([1, None] * 9_000, dtype='Int64')})", FRAMES),
    Kind("frame_of_intervals", "pd.DataFrame({'i': pd.interval_range(0, 9_000), 'p': pd.Period('2026-01')})", FRAMES),
    Kind("frame_with_attributes", "with_attributes()", FRAMES),
    Kind("frame_of_a_subclass", "Table({'a': large()})", "assert type(value) is Table; " + FRAMES),
    Kind("frame_with_a_name_twice", "pd.DataFrame(large().reshape(-1, 2), columns=['a', 'a'])", FRAMES),
    Kind("series", "pd.Series(large(), name='s')", "pd.testing.assert_series_equal(value, again)"),
    Kind("index", "pd.Index(['a', 'b'], name='i')", "pd.testing.assert_index_equal(value, again)"),
    Kind("polars_frame", "pl.DataFrame({'a': large(), 'b': ['x'] * 20_000})", "assert value.equals(again)"),
    Kind("polars_series", "pl.Series('s', [1, None, 3])", "assert value.equals(again, null_equal=True)"),
    Kind(
        "polars_query",
        "pl.LazyFrame({'a': [1, 2]}).filter(pl.col('a') > 1)",
        "assert value.collect()['a'].to_list() == [2]",
    ),
    Kind("arrow_table", "pa.table({'a': large(), 'b': pa.array(['x', None] * 10_000)})", "assert value.equals(again)"),
    # models and figures
    Kind("linear_model", "LinearRegression().fit(X, Y)", PREDICTS),
    Kind("pipeline", "make_pipeline(StandardScaler(), Ridge()).fit(X, Y)", PREDICTS),
    Kind("boosted_trees", "xgboost.XGBRegressor(n_estimators=3, n_jobs=1).fit(X, Y)", PREDICTS),
    Kind("figure_of_matplotlib", "figure()", "assert value.axes[0].get_lines()[0].get_ydata().tolist() == [4, 5, 6]"),
)

TOGETHER = """
alias = first = [1, 2]
holds = {"first": first, "frame": (whole := pd.DataFrame({"a": large()})), "array": (numbers_ := large())}
cycle = []
cycle.append(cycle)
pair = [first, first]
def outer(): return inner()
def inner(): return outer.__name__
"""
TOGETHER_SAME = """
assert alias is first and holds["first"] is first and pair[0] is pair[1] is first
assert holds["frame"] is whole and holds["array"] is numbers_
assert cycle[0] is cycle
assert outer() == "outer" and outer.__globals__ is globals()
first.append(3); assert pair[1] == [1, 2, 3]
offset = 100; assert function(1) == 101
"""

NOT_SAVED = {
    # name: (code, a part of the reason)
    "generator": ("numbers()", "a generator cannot be saved"),
    "generator_expression": ("(i for i in range(3))", "a generator cannot be saved"),
    "asynchronous_generator": ("stream()", "a generator cannot be saved"),
    "open_file": ("open('open.txt', 'w')", "an open file cannot be saved"),
    "open_binary_file": ("open('open.bin', 'wb')", "an open file cannot be saved"),
    "list_with_a_file": ("[open_file]", "an open file cannot be saved"),
    "network_socket": ("socket.socket()", "cannot pickle 'socket' object"),
    "lock": ("threading.Lock()", "cannot pickle '_thread.lock' object"),
    "reentrant_lock": ("threading.RLock()", "cannot pickle '_thread.RLock' object"),
    "holder_of_a_lock": ("{'lock': lock}", "cannot pickle '_thread.lock' object"),
    "thread": ("threading.Thread(target=function)", "cannot pickle '_thread.lock' object"),
    "waiting_line": ("queue.Queue()", "cannot pickle '_thread.lock' object"),
    "workers": ("ThreadPoolExecutor(1)", "cannot pickle"),
    "child_process": ("subprocess.Popen(['true'])", "cannot pickle '_thread.lock' object"),
    "database": ("sqlite3.connect(':memory:')", "cannot pickle 'sqlite3.Connection' object"),
    "duck_database": ("duckdb.connect()", "cannot pickle"),
    "context_variable": ("contextvars.ContextVar('v')", "cannot pickle '_contextvars.ContextVar' object"),
    "weak_reference": ("weakref.ref(Derived)", "cannot pickle 'weakref.ReferenceType' object"),
    "frame_of_a_function": ("sys._getframe()", "a frame of a running function cannot be saved"),
    "module_by_hand": ("types.ModuleType('by_hand')", "a module that cannot be imported by its name"),
    "window_on_memory": ("memoryview(b'abc')", "a view of memory cannot be saved"),
    "refuses": ("Refuses()", "ValueError: I refuse"),
    "hangs": ("Hangs()", "there was no time left for it"),
}
"""And a coroutine, which must not be left unawaited where the table is made."""

NOT_RESTORED = {
    "spoilt": ("Spoilt()", "RuntimeError: spoilt"),
    "shares_with_spoilt": ("[spoilt.own]", "it shares data with spoilt, which could not be restored"),
}
