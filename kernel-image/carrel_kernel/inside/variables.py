"""The variables of a kernel as the host asks for them: no code of the user's runs for it."""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any, Final

from carrel_kernel.inside import tables, values

_MAX_VARIABLES: Final = 500
_MAX_NAME: Final = 200
_CODE: Final = (types.ModuleType, types.FunctionType, types.BuiltinFunctionType, type)


def add_to(listing: dict[str, Any], namespace: dict[str, Any], hidden: dict[str, Any]) -> None:
    """Add what is known of each variable, by name: no modules, functions, classes, and names with underscores.

    The listing is complete to begin with, and says that it is cut until all of it is there: it may be interrupted.
    """
    not_shown = {name for name in list(hidden) if type(name) is str}
    shown: list[tuple[str, Any]] = [
        (name, value)
        for name, value in list(namespace.items())
        if type(name) is str and not name.startswith("_") and name not in not_shown and not values.is_a(value, *_CODE)
    ]
    shown.sort(key=lambda item: item[0])
    for name, value in shown[:_MAX_VARIABLES]:
        listing["variables"].append(_described(name, value))
    listing["truncated"] = len(shown) > _MAX_VARIABLES


def _described(name: str, value: Any) -> dict[str, Any]:
    is_frame = tables.is_pandas_frame(value) or tables.is_polars_frame(value)
    is_table = is_frame or tables.is_column(value)
    shape = _tried(tables.shape_of if is_table else values.shape, value)
    summary = f"{values.type_name(value)} of shape {tuple(shape)}" if is_table and shape else None
    return {
        "name": name[:_MAX_NAME],
        "type": values.type_name(value),
        "summary": summary or _tried(values.summary, value) or values.type_name(value),
        "shape": shape,
        "dtypes": _tried(tables.types_of if is_table else _element_types, value),
        "memory_bytes": _tried(tables.size_of if is_table else values.size_bytes, value),
        "preview": _tried(tables.preview_of, value) if is_frame else None,
    }


def _element_types(value: Any) -> dict[str, str] | None:
    kind = values.element_type(value)
    return None if kind is None else {"": kind}


def _tried(read: Callable[[Any], Any], value: Any) -> Any:
    try:
        return read(value)
    except Exception:  # noqa: BLE001  libraries fail over what is in their objects: one property less
        return None
