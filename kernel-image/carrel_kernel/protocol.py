"""Jupyter's messages on the wire: signed frames to and from a kernel (messaging specification 5.4).

What a kernel sends is not trusted: signatures are checked, and a message of any other shape than the specification's is
`MalformedError`, never something else. Pure functions; sockets are in `connection`.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from datetime import UTC, datetime
from typing import Any, Final, cast

import msgspec

DELIMITER: Final = b"<IDS|MSG>"
VERSION: Final = "5.4"
_MAX_DEPTH: Final = 100
_INT64: Final = 2**63
_INT31: Final = 2**31


class MalformedError(Exception):
    """A kernel sent what is no message, or is not signed with its key."""


class Header(msgspec.Struct, frozen=True):
    """The part of a header that is looked at."""

    msg_id: str = ""
    msg_type: str = ""
    session: str = ""


class Message(msgspec.Struct, frozen=True):
    """One message of a kernel, its content not yet decoded."""

    header: Header
    parent: Header
    raw_content: bytes

    def content(self) -> dict[str, Any]:
        """Return the content.

        Raises
        ------
        MalformedError
            It is no JSON object.
        """
        value = loads(self.raw_content)
        if not isinstance(value, dict):
            raise MalformedError("content is not an object")
        return cast("dict[str, Any]", value)


_encoder = msgspec.json.Encoder()
_header_decoder = msgspec.json.Decoder(Header)
_any_decoder = msgspec.json.Decoder()


def loads(data: bytes) -> Any:
    """Return JSON data; invalid UTF-8 and lone surrogates become replacement characters.

    Raises
    ------
    MalformedError
        It is not JSON, or nested too deeply.
    """
    try:
        return _any_decoder.decode(data)
    except RecursionError as error:
        raise MalformedError("nested too deeply") from error
    except (msgspec.DecodeError, UnicodeDecodeError):
        try:
            return clean(json.loads(data.decode("utf-8", "replace")))
        except (ValueError, RecursionError) as error:
            raise MalformedError("not JSON") from error


def clean(value: Any, depth: int = 0) -> Any:
    """Return the value with everything replaced that JSON in UTF-8 cannot carry.

    Raises
    ------
    MalformedError
        It is nested too deeply.
    """
    if depth > _MAX_DEPTH:
        raise MalformedError("nested too deeply")
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        items = cast("dict[Any, Any]", value)
        return {clean(str(key), depth + 1): clean(item, depth + 1) for key, item in items.items()}
    if isinstance(value, list):
        return [clean(item, depth + 1) for item in cast("list[Any]", value)]
    if isinstance(value, int) and not isinstance(value, bool) and not -_INT64 <= value < _INT64:
        return float(value) if abs(value) < 10**300 else "a very large integer"
    return value


def object_of(value: Any) -> dict[str, Any]:
    """Return the value when it is a JSON object, else an empty one."""
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def count_of(value: Any) -> int | None:
    """Return the value when it can be an execution count: what stores it has 31 bits for it."""
    return value if type(value) is int and 0 <= value < _INT31 else None  # and so no bool


def signature(key: bytes, parts: list[bytes]) -> bytes:
    """Return the hexadecimal HMAC-SHA256 over the four parts of a message."""
    digest = hmac.new(key, digestmod=hashlib.sha256)
    for part in parts:
        digest.update(part)
    return digest.hexdigest().encode()


def header(msg_type: str, msg_id: str, session: str) -> dict[str, Any]:
    """Return the header of a message of the host's own."""
    return {
        "msg_id": msg_id,
        "msg_type": msg_type,
        "session": session,
        "username": "carrel",
        "date": datetime.now(UTC).isoformat(),
        "version": VERSION,
    }


def pack(key: bytes, header_: dict[str, Any], content: dict[str, Any]) -> list[bytes]:
    """Return the frames of a message of the host's own."""
    parts = [_encoder.encode(header_), b"{}", b"{}", _encoder.encode(content)]
    return [DELIMITER, signature(key, parts), *parts]


def sign(key: bytes, parts: list[bytes]) -> list[bytes]:
    """Return the frames for header, parent header, metadata, content and buffers that a client sent."""
    return [DELIMITER, signature(key, parts[:4]), *parts]


def verify(key: bytes, frames: list[bytes]) -> list[bytes]:
    """Return header, parent header, metadata, content and buffers of signed frames.

    Raises
    ------
    MalformedError
        Frames are missing or the signature is not the key's.
    """
    try:
        start = frames.index(DELIMITER)
    except ValueError as error:
        raise MalformedError("no delimiter") from error
    parts = frames[start + 2 :]
    if len(parts) < 4:
        raise MalformedError("frames are missing")
    if not hmac.compare_digest(frames[start + 1], signature(key, parts[:4])):
        raise MalformedError("wrong signature")
    return parts


def unpack(parts: list[bytes]) -> Message:
    """Return the message of verified parts.

    Raises
    ------
    MalformedError
        A header is not of the specification.
    """
    try:
        return Message(_header_decoder.decode(parts[0]), _header_decoder.decode(parts[1]), parts[3])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedError("a header is malformed") from error
