"""Jupyter's messages on the wire: signed frames to and from a kernel (messaging specification 5.4).

What a kernel sends is not trusted: signatures are checked, and a message of any other shape than the specification's is
`MalformedError`, never something else. Pure functions; sockets are in `connection`.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections import OrderedDict
from contextlib import suppress
from datetime import UTC, datetime
from functools import cache
from typing import Annotated, Any, Final, TypeAlias, cast

import msgspec

DELIMITER: Final = b"<IDS|MSG>"
VERSION: Final = "5.4"
MAX_VALUES: Final = 200_000
"""In one JSON document. Each takes up to a hundred times the bytes that it has as text, and the collector's time."""
_MAX_REPAIRED_VALUES: Final = 20_000
"""In one that is not quite JSON, and is taken apart value by value."""
_UNCOUNTED_BYTES: Final = 64 * 1024
_COUNTED_BYTES: Final = 16 * 1024 * 1024
"""More is not looked at closely, for that would take too long: it must have few commas even within strings."""
_PASSED_OVER_BYTES: Final = 96 * 1024 * 1024
"""More than kernels send of themselves (`inside.packing`) is not even passed over."""
_MAX_DEPTH: Final = 100
_JOINED_BYTES: Final = 64 * 1024
"""Parts of a message that are together no longer than this are joined to be signed, which saves most of the time."""
_INT64: Final = 2**63
_INT31: Final = 2**31


class MalformedError(Exception):
    """A kernel sent what is no message, or is not signed with its key."""


class TooComplexError(MalformedError):
    """A kernel sent more values in one message than anything is made of."""


_Name: TypeAlias = Annotated[str, msgspec.Meta(max_length=1000)]  # what is kept of messages must not be large


class Header(msgspec.Struct, frozen=True):
    """The part of a header that is looked at."""

    msg_id: _Name = ""
    msg_type: _Name = ""
    session: _Name = ""


_NOTHING: Final = msgspec.Raw(b"")


class _Forms(msgspec.Struct, frozen=True):
    """The usual forms of data, not yet decoded. Others are passed over: there may be millions of them."""

    plain: msgspec.Raw = msgspec.field(default=_NOTHING, name="text/plain")
    markdown: msgspec.Raw = msgspec.field(default=_NOTHING, name="text/markdown")
    latex: msgspec.Raw = msgspec.field(default=_NOTHING, name="text/latex")
    html: msgspec.Raw = msgspec.field(default=_NOTHING, name="text/html")
    png: msgspec.Raw = msgspec.field(default=_NOTHING, name="image/png")
    jpeg: msgspec.Raw = msgspec.field(default=_NOTHING, name="image/jpeg")
    svg: msgspec.Raw = msgspec.field(default=_NOTHING, name="image/svg+xml")
    json: msgspec.Raw = msgspec.field(default=_NOTHING, name="application/json")
    table: msgspec.Raw = msgspec.field(default=_NOTHING, name="application/vnd.carrel.table+json")
    chart: msgspec.Raw = msgspec.field(default=_NOTHING, name="application/vnd.carrel.chart+json")


class _Display(msgspec.Struct, frozen=True):
    """Content of a display or result, not yet decoded."""

    data: _Forms = _Forms()
    metadata: msgspec.Raw = _NOTHING
    transient: msgspec.Raw = _NOTHING
    execution_count: msgspec.Raw = _NOTHING


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
        return content_of(self.raw_content)


_encoder = msgspec.json.Encoder()
_header_decoder = msgspec.json.Decoder(Header)
_any_decoder = msgspec.json.Decoder()
_display_decoder = msgspec.json.Decoder(_Display)


def loads(data: bytes) -> Any:
    """Return JSON data; invalid UTF-8 and lone surrogates become replacement characters.

    Raises
    ------
    TooComplexError
        It has very many values.
    MalformedError
        It is not JSON, or nested too deeply.
    """
    check_values(data, MAX_VALUES)
    try:
        return _any_decoder.decode(data)
    except RecursionError as error:
        raise MalformedError("nested too deeply") from error
    except (msgspec.DecodeError, UnicodeDecodeError):
        check_values(data, _MAX_REPAIRED_VALUES)
        try:
            return clean(json.loads(data.decode("utf-8", "replace")))
        except (ValueError, RecursionError) as error:
            raise MalformedError("not JSON") from error


def check_values(data: bytes, limit: int) -> None:
    """Refuse JSON that has more values than a limit, about, before any of them is made.

    Raises
    ------
    TooComplexError
    """
    if len(data) <= _UNCOUNTED_BYTES or sum(map(data.count, (b",", b"[", b"{"))) < limit:
        return
    if len(data) > _COUNTED_BYTES or _many(limit).match(data):
        raise TooComplexError(f"more than {limit} values")


@cache
def _many(count: int) -> re.Pattern[bytes]:
    """Return a pattern for so many brackets, braces and commas outside of strings, whose last one may have no end.

    All of it is possessive: it never looks back, and takes a time that is linear in the length whatever the text is.
    """
    string = rb'"(?:[^"\\]++|\\.)*+"?'
    return re.compile(rb'(?:(?:[^"\[{,]++|%b)*+[\[{,]){%d}+' % (string, count), re.DOTALL)


def content_of(raw: bytes) -> dict[str, Any]:
    """Return the content of a message.

    Raises
    ------
    MalformedError
        It is no JSON object.
    """
    value = loads(raw)
    if not isinstance(value, dict):
        raise MalformedError("content is not an object")
    return cast("dict[str, Any]", value)


def light_content(raw: bytes, limit_bytes: int) -> dict[str, Any]:
    """Return the content of a large display, with those of the usual forms of data that are below a limit together.

    What is large is passed over without being decoded.

    Raises
    ------
    MalformedError
        It is no JSON object.
    """
    try:
        display = _display_decoder.decode(raw) if len(raw) <= _PASSED_OVER_BYTES else _Display()
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedError("a large display is malformed") from error
    parts = {form.encode_name: bytes(getattr(display.data, form.name)) for form in msgspec.structs.fields(_Forms)}
    data: dict[str, Any] = {}
    for mime, part in sorted(parts.items(), key=lambda item: len(item[1])):
        limit_bytes -= len(part)
        if part and limit_bytes >= 0:
            with suppress(TooComplexError):
                data[mime] = loads(part)
    rest = {"metadata": display.metadata, "transient": display.transient, "execution_count": display.execution_count}
    small = {name: bytes(part) for name, part in rest.items() if 0 < len(bytes(part)) <= _UNCOUNTED_BYTES}
    return {"data": data, **{name: loads(part) for name, part in small.items()}}


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
    if sum(map(len, parts)) <= _JOINED_BYTES:
        return hmac.digest(key, b"".join(parts), "sha256").hex().encode()
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


class Signatures:
    """The latest signatures that have come: no message has the one of another, for each has an id of its own."""

    def __init__(self, kept: int = 8192) -> None:
        self._kept = kept
        self._seen: OrderedDict[bytes, None] = OrderedDict()

    def is_new(self, signature: bytes) -> bool:
        """Take note of a signature; whether it has not come before."""
        if signature in self._seen:
            return False
        self._seen[signature] = None
        if len(self._seen) > self._kept:
            self._seen.popitem(last=False)
        return True


def verify(key: bytes, frames: list[bytes], seen: Signatures) -> list[bytes]:
    """Return header, parent header, metadata, content and buffers of signed frames.

    Raises
    ------
    MalformedError
        Frames are missing, the signature is not the key's, or the same message has come before.
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
    if not seen.is_new(frames[start + 1]):
        raise MalformedError("sent before")
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
