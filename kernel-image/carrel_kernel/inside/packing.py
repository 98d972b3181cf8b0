"""Messages as JSON, whatever user code put into them: a display must not fail for what one of its objects holds."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any, Final, cast

from jupyter_client.jsonutil import json_default

_MAX_DEPTH: Final = 100
_MAX_BITS: Final = 8192
"""Python refuses to write much longer integers, for that takes long."""
_SEPARATORS: Final = (",", ":")
MAX_DISPLAY_BYTES: Final = 64 * 1024 * 1024
"""The host refuses messages of several times this, and what is around them is lost with them (see `connection`)."""
MAX_BYTES: Final = 16 * 1024 * 1024
"""Of any other message: the host looks at these more closely."""
_LARGE_PART_BYTES: Final = 1024 * 1024
_MAX_CHARACTERS: Final = 8 * 1024 * 1024
OMITTED: Final = "carrel_omitted_bytes"


def pack(message: Any) -> bytes:
    """Return JSON in ASCII; lone surrogates are escaped, and what JSON has not or is too large is replaced."""
    packed = _json(message)
    if len(packed) <= MAX_BYTES:
        return packed
    members = cast("dict[str, Any]", message) if isinstance(message, dict) else {}
    if not isinstance(members.get("data"), dict):
        return _json(_Cut(_MAX_CHARACTERS).cut(message))
    return packed if len(packed) <= MAX_DISPLAY_BYTES else _json(lightened(members, len(packed)))


def lightened(display: dict[str, Any], size: int) -> dict[str, Any]:
    """Return a display of so many bytes without its large forms."""
    kept = {mime: part for mime, part in display["data"].items() if len(_json(part)) <= _LARGE_PART_BYTES}
    rest = {key: display[key] for key in ("transient", "execution_count") if key in display}
    return {**rest, "data": kept, "metadata": {OMITTED: size - len(_json(kept))}}


class _Cut:
    """Shortens texts, lists and objects until so many characters are left."""

    def __init__(self, characters: int) -> None:
        self._left = characters

    def cut(self, value: Any) -> Any:
        if isinstance(value, str):
            kept = value[: max(0, self._left)]
            self._left -= len(kept)
            return kept if len(kept) == len(value) else f"{kept}… ({len(value) - len(kept)} characters were left out)"
        if isinstance(value, dict):
            items = cast("dict[Any, Any]", value).items()
            return {text(key): self.cut(item) for key, item in items if self._has_room()}
        if isinstance(value, list | tuple):
            return [self.cut(item) for item in cast("list[Any]", value) if self._has_room()]
        return value

    def _has_room(self) -> bool:
        self._left -= 1
        return self._left > 0


def _json(message: Any) -> bytes:
    try:
        return "".join(_encoder()(message, 0)).encode()
    except (TypeError, ValueError, RecursionError):  # odd keys and numbers, cycles, depth
        return json.dumps(plain(message), allow_nan=False, separators=_SEPARATORS).encode()


@cache
def _encoder() -> Callable[[Any, int], Iterable[str]]:
    """Return what `json.dumps` makes for each call, made once: it takes longer to make than most messages to pack.

    A cycle ends it by its depth.
    """
    encoder = json.JSONEncoder(default=default, allow_nan=False, separators=_SEPARATORS)
    parts: Any = json.encoder
    if parts.c_make_encoder is None:  # not CPython
        return lambda message, _: encoder.encode(message)
    escape = parts.encode_basestring_ascii
    return parts.c_make_encoder(None, default, escape, None, *reversed(_SEPARATORS), False, False, False)


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
