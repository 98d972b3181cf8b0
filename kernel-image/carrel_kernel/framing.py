"""How Jupyter messages travel over a WebSocket: the `v1.kernel.websocket.jupyter.org` form and the legacy one. Pure.

Source: jupyter_server, "WebSocket kernel wire protocols". A message is a channel and its parts: header, parent header,
metadata, content and buffers. What a client sends is checked; anything else than the forms is `FramingError`.
"""

from __future__ import annotations

import re
import struct
from itertools import pairwise
from typing import Final, cast

import msgspec

from carrel_kernel import protocol

V1: Final = "v1.kernel.websocket.jupyter.org"
_NAMES: Final = ("header", "parent_header", "metadata", "content")
_MAX_PARTS: Final = 1000
_OBJECT: Final = re.compile(rb"\s*{")
_EMPTY: Final = msgspec.Raw(b"{}")
_NULL: Final = msgspec.Raw(b"null")


class _Named(msgspec.Struct):
    """What the legacy framing repeats of a header."""

    msg_id: msgspec.Raw = _NULL
    msg_type: msgspec.Raw = _NULL


class _Document(msgspec.Struct):
    """A message in the legacy framing; older clients leave fields out."""

    channel: str | None = None
    header: msgspec.Raw = _EMPTY
    parent_header: msgspec.Raw = _EMPTY
    metadata: msgspec.Raw = _EMPTY
    content: msgspec.Raw = _EMPTY


_raw_decoder: Final = msgspec.json.Decoder(msgspec.Raw)
_named_decoder: Final = msgspec.json.Decoder(_Named)
_document_decoder: Final = msgspec.json.Decoder(_Document)


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
    """Return a JSON text, or a binary frame where there are buffers.

    Raises
    ------
    FramingError
        A kernel's part is no object in JSON, and cannot be made one.
    """
    objects = [_repaired(part) for part in parts[:4]]
    fields = {name: msgspec.Raw(part) for name, part in zip(_NAMES, objects, strict=True)}
    named = _named_decoder.decode(objects[0])
    document = {**fields, "msg_id": named.msg_id, "msg_type": named.msg_type, "channel": channel}
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
    try:
        document = _document_decoder.decode(_object(data))
    except msgspec.ValidationError as error:
        raise FramingError("`channel` is not a string") from error
    raw = (document.header, document.parent_header, document.metadata, document.content)
    parts = [b"{}" if part == _NULL else bytes(part) for part in raw]
    _check(parts)
    return document.channel or "shell", [*parts, *buffers]


def _check(parts: list[bytes]) -> None:
    for part in parts[:4]:
        _object(part)


def _object(data: bytes) -> bytes:
    """Return an object in JSON as it is, when it is one; nothing is made of its values, which may be very many."""
    try:
        _raw_decoder.decode(data.decode())
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise FramingError("a part is not JSON") from error
    if not _OBJECT.match(data):
        raise FramingError("a part is not an object")
    return data


def _repaired(data: bytes) -> bytes:
    """Return an object of a kernel's in JSON, with what is no Unicode in it replaced."""
    try:
        return _object(data)
    except FramingError:
        try:
            return _object(msgspec.json.encode(protocol.loads(data)))
        except protocol.MalformedError as error:
            raise FramingError("a part is no object in JSON") from error
