"""Tables as data, and a view of the variables: what a kernel does for the host beyond IPython.

Runs beside user code and its arbitrary objects: every object may raise, lie or be huge, so everything is guarded, cut
and counted, and a failure means less information, never an error in the user's cell.
"""

from __future__ import annotations

import json
import sys
import types
from typing import Any, Final

from IPython.core.formatters import BaseFormatter
from traitlets import Unicode

TABLE_MIME: Final = "application/vnd.carrel.table+json"
VARIABLES_MIME: Final = "application/vnd.carrel.variables+json"
_TABLE_ROWS: Final = 50
_TABLE_COLUMNS: Final = 100
_PREVIEW_ROWS: Final = 5
_PREVIEW_COLUMNS: Final = 20
_MAX_VARIABLES: Final = 500
_MAX_TEXT: Final = 200
_SCALARS: Final = (bool, int, float, complex, type(None))


class TableFormatter(BaseFormatter):
    """Formats DataFrames as JSON data, beside their text and HTML."""

    format_type = Unicode(TABLE_MIME)
    print_method = Unicode("_repr_carrel_table_")
    _return_type = dict


def install(shell: Any) -> None:
    """Add the formatter to the shell."""
    formatter = TableFormatter(parent=shell.display_formatter)
    for module in ("pandas", "pandas.core.frame"):  # the name of its module changed with pandas 3
        formatter.for_type_by_name(module, "DataFrame", table)
    shell.display_formatter.formatters[TABLE_MIME] = formatter


def table(frame: Any) -> dict[str, Any] | None:
    """Return schema, first rows and shape of a DataFrame; none when it does not let itself be read."""
    try:
        return {**_head(frame, _TABLE_ROWS, _TABLE_COLUMNS), "shape": [int(size) for size in frame.shape]}
    except Exception:  # noqa: BLE001  user objects raise anything; the cell shows the table's text and HTML anyway
        return None


def _head(frame: Any, rows: int, columns: int) -> dict[str, Any]:
    part = frame.iloc[:rows, :columns]
    data = json.loads(part.to_json(orient="split", date_format="iso", default_handler=str))
    kinds = [str(kind) for kind in part.dtypes]
    names = [str(name) for name in part.columns]
    fields = [{"name": name, "type": kind} for name, kind in zip(names, kinds, strict=True)]
    return {"schema": {"fields": fields}, "index": data["index"], "rows": data["data"]}


class Variables:
    """What the host asks for as a user expression: the variables as JSON, without a trace in the user's namespace."""

    def __init__(self, namespace: dict[str, Any], hidden: dict[str, Any]) -> None:
        self._namespace = namespace
        self._hidden = hidden

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        names = sorted(
            name
            for name, value in list(self._namespace.items())
            if not name.startswith("_") and name not in self._hidden and not isinstance(value, _CODE)
        )
        return {
            "text/plain": "variables",
            VARIABLES_MIME: {
                "variables": [_variable(name, self._namespace[name]) for name in names[:_MAX_VARIABLES]],
                "truncated": len(names) > _MAX_VARIABLES,
            },
        }


_CODE: Final = (types.ModuleType, types.FunctionType, types.BuiltinFunctionType, type)


def variables() -> Variables:
    """Return the variables of the running shell."""
    from IPython.core.getipython import get_ipython  # noqa: PLC0415  there is a shell only when it is called

    shell: Any = get_ipython()
    return Variables(shell.user_ns, shell.user_ns_hidden)


def _variable(name: str, value: Any) -> dict[str, Any]:
    result: dict[str, Any] = {"name": name, "type": type(value).__name__[:_MAX_TEXT], "summary": _summary(value)}
    for key, read in (("shape", _shape), ("dtypes", _dtypes), ("memory_bytes", _memory), ("preview", _preview)):
        try:
            result[key] = read(value)
        except Exception:  # noqa: BLE001  as above: one property less
            result[key] = None
    return result


def _summary(value: Any) -> str:
    kind = type(value).__name__
    try:
        if isinstance(value, _SCALARS):
            return repr(value)[:_MAX_TEXT]
        if isinstance(value, str | bytes | bytearray):
            return repr(value[:_MAX_TEXT])[:_MAX_TEXT]
        if (shape := _shape(value)) is not None:
            return f"{kind} of shape {tuple(shape)}"[:_MAX_TEXT]
        if isinstance(value, list | tuple | set | frozenset | dict):
            return f"{kind} of {len(value)} items"  # pyright: ignore[reportUnknownArgumentType]
        return repr(value)[:_MAX_TEXT]
    except Exception:  # noqa: BLE001  as above
        return kind[:_MAX_TEXT]


def _shape(value: Any) -> list[int] | None:
    shape = getattr(value, "shape", None)
    return [int(size) for size in shape] if isinstance(shape, tuple) else None  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]


def _is_frame(value: Any) -> bool:
    return type(value).__name__ == "DataFrame" and type(value).__module__.partition(".")[0] == "pandas"


def _dtypes(value: Any) -> dict[str, str] | None:
    if _is_frame(value):
        kinds = value.dtypes.iloc[:_TABLE_COLUMNS]
        return {str(name): str(kind) for name, kind in kinds.items()}
    kind = getattr(value, "dtype", None)
    return None if kind is None else {"": str(kind)}


def _memory(value: Any) -> int:
    if _is_frame(value):
        return int(value.memory_usage(index=True, deep=False).sum())  # deep would walk every object of it
    size = getattr(value, "nbytes", None)
    return size if isinstance(size, int) else sys.getsizeof(value)


def _preview(value: Any) -> dict[str, Any] | None:
    if not _is_frame(value):
        return None
    head = _head(value, _PREVIEW_ROWS, _PREVIEW_COLUMNS)
    return {"columns": [item["name"] for item in head["schema"]["fields"]], "rows": head["rows"]}
