"""How Jupyter messages travel over a WebSocket: the `v1.kernel.websocket.jupyter.org` form and the legacy one. Pure.

Source: jupyter_server, "WebSocket kernel wire protocols". A message is a channel and its parts: header, parent header,
metadata, content and buffers. What a client sends is checked; anything else than the forms is `FramingError`.
"""

from __future__ import annotations

import struct
from itertools import pairwise
from typing import Any, Final, cast

import msgspec

V1: Final = "v1.kernel.websocket.jupyter.org"
_NAMES: Final = ("header", "parent_header", "metadata", "content")
_MAX_PARTS: Final = 1000


class FramingError(Exception):
    """A client sent what is no message of the protocol."""


def pack_v1(channel: str, parts: list[bytes]) -> bytes:
    """Return a binary frame: number of offsets, offsets, channel and parts; integers are 64 bits, little-endian."""
    name = channel.encode()
    offsets = [8 * (len(parts) + 3)]
    for part in (name, *parts):
        offsets.append(offsets[-1] + len(part))
    return b"".join([struct.pack(f"<{len(offsets) + 1}Q", len(offsets), *offsets), name, *parts])


def unpack_v1(frame: bytes) -> tuple[str, list[bytes]]:
    """Return channel and parts of a binary frame.

    Raises
    ------
    FramingError
    """
    try:
        (count,) = struct.unpack_from("<Q", frame)
        if not 6 <= count <= _MAX_PARTS:
            raise FramingError("the number of parts is wrong")
        offsets = cast("tuple[int, ...]", struct.unpack_from(f"<{count}Q", frame, 8))
        channel = frame[offsets[0] : offsets[1]].decode()
    except (struct.error, UnicodeDecodeError) as error:
        raise FramingError("the frame is malformed") from error
    if list(offsets) != sorted(offsets) or offsets[-1] > len(frame):
        raise FramingError("the offsets are wrong")
    parts = [frame[start:end] for start, end in pairwise(offsets[1:])]
    _check(parts)
    return channel, parts


def pack_legacy(channel: str, parts: list[bytes]) -> str | bytes:
    """Return a JSON text, or a binary frame where there are buffers."""
    fields = {name: msgspec.Raw(part) for name, part in zip(_NAMES, parts, strict=False)}
    header = _object(parts[0])
    document = {**fields, "msg_id": header.get("msg_id"), "msg_type": header.get("msg_type"), "channel": channel}
    buffers = parts[4:]
    if not buffers:
        return msgspec.json.encode({**document, "buffers": []}).decode()
    pieces = [msgspec.json.encode(document), *buffers]
    offsets = [4 * (len(pieces) + 1)]
    for piece in pieces[:-1]:
        offsets.append(offsets[-1] + len(piece))
    return b"".join([struct.pack(f"!{len(offsets) + 1}I", len(offsets), *offsets), *pieces])


def unpack_legacy(frame: str | bytes) -> tuple[str, list[bytes]]:
    """Return channel and parts of a JSON text or a binary frame.

    Raises
    ------
    FramingError
    """
    if isinstance(frame, str):
        return _document(frame.encode("utf-8", "replace"), [])
    try:
        (count,) = struct.unpack_from("!I", frame)
        if not 1 <= count <= _MAX_PARTS:
            raise FramingError("the number of parts is wrong")
        offsets = [*cast("tuple[int, ...]", struct.unpack_from(f"!{count}I", frame, 4)), len(frame)]
    except struct.error as error:
        raise FramingError("the frame is malformed") from error
    if offsets != sorted(offsets):
        raise FramingError("the offsets are wrong")
    pieces = [frame[start:end] for start, end in pairwise(offsets)]
    return _document(pieces[0], pieces[1:])


def _document(data: bytes, buffers: list[bytes]) -> tuple[str, list[bytes]]:
    document = _object(data)
    channel = document.get("channel", "shell")
    if not isinstance(channel, str):
        raise FramingError("`channel` is not a string")
    values = (document.get(name) for name in _NAMES)
    parts = [msgspec.json.encode({} if value is None else value) for value in values]
    _check(parts)
    return channel, [*parts, *buffers]


def _check(parts: list[bytes]) -> None:
    for part in parts[:4]:
        _object(part)


def _object(data: bytes) -> dict[str, Any]:
    try:
        value = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise FramingError("a part is not JSON") from error
    if not isinstance(value, dict):
        raise FramingError("a part is not an object")
    return cast("dict[str, Any]", value)
