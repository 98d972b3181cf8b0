"""Messages as JSON, whatever user code put into them: a display must not fail for what one of its objects holds."""

from __future__ import annotations

import json
import math
from typing import Any, Final, cast

from jupyter_client.jsonutil import json_default

_MAX_DEPTH: Final = 100
_MAX_BITS: Final = 8192
"""Python refuses to write much longer integers, for that takes long."""
_SEPARATORS: Final = (",", ":")


def pack(message: Any) -> bytes:
    """Return JSON in ASCII; lone surrogates are escaped, and what JSON does not have is replaced."""
    try:
        return json.dumps(message, default=default, allow_nan=False, separators=_SEPARATORS).encode()
    except (TypeError, ValueError, RecursionError):  # odd keys and numbers, cycles, depth
        return json.dumps(plain(message), allow_nan=False, separators=_SEPARATORS).encode()


def default(value: Any) -> Any:
    """Return what stands for an object: bytes as base64, times in ISO 8601, anything else as text."""
    try:
        return json_default(value)
    except Exception:  # noqa: BLE001  user objects raise anything
        return text(value)


def text(value: Any) -> str:
    """Return the object's text, or its type's name where it has none."""
    try:
        return str(value)
    except Exception:  # noqa: BLE001  as above
        return f"({type(value).__name__})"


def plain(value: Any, depth: int = 0) -> Any:
    """Return the value in types and bounds of JSON."""
    match value:
        case None | bool() | str():
            return value
        case int():
            return int(value) if value.bit_length() <= _MAX_BITS else "(a very large integer)"
        case float():
            return float(value) if math.isfinite(value) else repr(float(value))
        case _:
            return _composed(value, depth + 1) if depth < _MAX_DEPTH else "(nested too deeply)"


def _composed(value: Any, depth: int) -> Any:
    if isinstance(value, dict):
        return {text(key): plain(item, depth) for key, item in cast("dict[Any, Any]", value).items()}
    if isinstance(value, list | tuple):
        return [plain(item, depth) for item in cast("list[Any]", value)]
    return plain(default(value), depth)
