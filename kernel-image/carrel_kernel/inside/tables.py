"""DataFrames of pandas and polars as data: schema, shape, and the first rows as JSON.

Objects in their cells are described and never asked: see `values`.
"""

from __future__ import annotations

import json
from typing import Any, Final

from carrel_kernel.inside.values import is_of, label, plain, summary

_ROWS: Final = 50
_COLUMNS: Final = 100
_PREVIEW_ROWS: Final = 5
_PREVIEW_COLUMNS: Final = 20
_POLARS_SERIES: Final = ("polars.series.series", "Series")
_MAX_COUNTED_COLUMNS: Final = 10_000
"""The memory of a frame is counted column by column."""


def pandas_table(frame: Any) -> dict[str, Any] | None:
    """Return schema, first rows and shape of a DataFrame; none when it does not let itself be read."""
    try:
        return {**_pandas_head(frame, _ROWS, _COLUMNS), "shape": [int(size) for size in frame.shape]}
    except Exception:  # noqa: BLE001  user objects raise anything; the cell shows the table's text and HTML anyway
        return None


def polars_table(frame: Any) -> dict[str, Any] | None:
    """Return the same of a polars DataFrame."""
    try:
        return {**_polars_head(frame, _ROWS, _COLUMNS), "shape": list(frame.shape)}
    except Exception:  # noqa: BLE001  as above
        return None


def is_pandas_frame(value: Any) -> bool:
    """Whether it is a DataFrame of pandas itself, and of no class made from it."""
    return is_of(value, "pandas.core.frame", "DataFrame")


def is_polars_frame(value: Any) -> bool:
    """Whether it is a DataFrame of polars itself."""
    return is_of(value, "polars.dataframe.frame", "DataFrame")


def is_column(value: Any) -> bool:
    """Whether it is a Series of pandas or polars itself."""
    return is_of(value, "pandas.core.series", "Series") or is_of(value, *_POLARS_SERIES)


def shape_of(table: Any) -> list[int]:
    """Return the shape of a frame or column."""
    return [int(size) for size in table.shape]


def types_of(table: Any) -> dict[str, str]:
    """Return the type of each column of a frame, or of a single column under an empty name."""
    if is_pandas_frame(table):
        return {label(name): str(kind) for name, kind in table.dtypes.iloc[:_COLUMNS].items()}
    if is_polars_frame(table):
        return {name: str(kind) for name, kind in list(table.schema.items())[:_COLUMNS]}
    return {"": str(table.dtype)}


def size_of(table: Any) -> int | None:
    """Return the bytes that a frame or column takes, without objects in its cells."""
    if is_polars_frame(table) or is_of(table, *_POLARS_SERIES):
        return int(table.estimated_size())
    if not is_pandas_frame(table):
        return int(table.memory_usage(index=True))
    return int(table.memory_usage(index=True).sum()) if table.shape[1] <= _MAX_COUNTED_COLUMNS else None


def preview_of(frame: Any) -> dict[str, Any]:
    """Return names and first rows of a frame."""
    head = (_pandas_head if is_pandas_frame(frame) else _polars_head)(frame, _PREVIEW_ROWS, _PREVIEW_COLUMNS)
    return {"columns": [item["name"] for item in head["schema"]["fields"]], "rows": head["rows"]}


def _pandas_head(frame: Any, rows: int, columns: int) -> dict[str, Any]:
    part = frame.iloc[:rows, :columns]
    fields = [{"name": label(name), "type": str(kind)} for name, kind in zip(part.columns, part.dtypes, strict=True)]
    index = _written(part.iloc[:, :0])["index"] if str(part.index.dtype) != "object" else _plain(part.index)
    part = part.set_axis(range(part.shape[1]), axis=1).reset_index(drop=True)
    for at, field in enumerate(fields):
        if field["type"] == "object":
            part.isetitem(at, _objects(_plain(part.iloc[:, at])))
    return {"schema": {"fields": fields}, "index": index, "rows": _written(part)["data"]}


def _plain(column: Any) -> list[Any]:
    return [plain(value) for value in column.tolist()]


def _objects(values: list[Any]) -> Any:
    import pandas as pd  # noqa: PLC0415  it is there when there is a frame

    return pd.Series(values, dtype=object)


def _written(part: Any) -> dict[str, Any]:
    return json.loads(part.to_json(orient="split", date_format="iso", default_handler=summary))


def _polars_head(frame: Any, rows: int, columns: int) -> dict[str, Any]:
    part = frame[:rows, :columns]
    fields = [{"name": name, "type": str(kind)} for name, kind in part.schema.items()]
    cells = [[plain(value) for value in row] for row in part.rows()]
    return {"schema": {"fields": fields}, "index": list(range(len(cells))), "rows": cells}
