"""Multipart bodies (RFC 7578) as a stream: no part is held in memory or in a file here, whatever its size.

Only the shape is judged: names and contents of files are the business of whoever stores them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header

from carrel_gateway.errors import InvalidInput

MAX_PARTS: Final = 100
"""Parts of one request; a person uploads a handful."""

_Event: TypeAlias = tuple[Literal["begin"], dict[str, bytes]] | tuple[Literal["data", "end", "close"], bytes]


@dataclass(slots=True)
class Part:
    """One part; `chunks` must be read to its end, or dropped, before the next part is asked for."""

    name: str
    filename: str | None
    content_type: str | None
    _reader: _Reader = field(repr=False)

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the content as it arrives."""
        while True:
            event = await self._reader.next_event()
            if event[0] != "data":
                return
            yield event[1]


class _Reader:
    """Turns the parser's callbacks into events that are pulled: `begin` with headers, `data`, `end`, `close`."""

    def __init__(self, body: AsyncIterator[bytes], boundary: bytes) -> None:
        self._body = body
        self._events: deque[_Event] = deque()
        self._headers: dict[str, bytes] = {}
        self._name = b""
        self._value = b""
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._part_begin,
                "on_header_field": self._header_field,
                "on_header_value": self._header_value,
                "on_header_end": self._header_end,
                "on_headers_finished": lambda: self._events.append(("begin", self._headers)),
                "on_part_data": lambda data, start, end: self._events.append(("data", data[start:end])),
                "on_part_end": lambda: self._events.append(("end", b"")),
                "on_end": lambda: self._events.append(("close", b"")),
            },
        )

    def _part_begin(self) -> None:
        self._headers = {}

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        self._headers[self._name.decode("latin-1").lower()] = self._value
        self._name = self._value = b""

    async def next_event(self) -> _Event:
        while not self._events:
            chunk = await anext(self._body, None)
            if chunk is None:
                raise InvalidInput("the multipart body ends before its last boundary; send it whole", code="cut_body")
            try:
                self._parser.write(chunk)
            except MultipartParseError as error:
                raise InvalidInput(
                    "the body is not well-formed multipart/form-data", code="invalid_multipart"
                ) from error
        return self._events.popleft()


def boundary_of(content_type: str | None) -> bytes:
    """Return the boundary of a multipart/form-data request.

    Raises
    ------
    InvalidInput
        The request has another content type, or no boundary.
    """
    kind, options = parse_options_header(content_type)
    boundary = options.get(b"boundary")
    if kind.lower() != b"multipart/form-data" or not boundary:
        raise InvalidInput(
            "send files as multipart/form-data, each as a part with a file name", code="multipart_expected"
        )
    return boundary


async def read_parts(body: AsyncIterator[bytes], boundary: bytes) -> AsyncIterator[Part]:
    """Yield the parts of a body in order, each while it arrives.

    Raises
    ------
    InvalidInput
        The body is malformed, cut, or has more than `MAX_PARTS` parts.
    """
    reader = _Reader(body, boundary)
    count = 0
    while True:
        event = await reader.next_event()
        if event[0] == "close":
            return
        if event[0] != "begin":  # the rest of a part that nobody read
            continue
        count += 1
        if count > MAX_PARTS:
            raise InvalidInput(f"a request may hold at most {MAX_PARTS} parts; send several", code="too_many_parts")
        _, options = parse_options_header(event[1].get("content-disposition", b""))
        filename = options.get(b"filename")
        content_type = event[1].get("content-type")
        yield Part(
            name=options.get(b"name", b"").decode("utf-8", "replace"),
            filename=None if filename is None else _text(filename),
            content_type=None if content_type is None else content_type.decode("latin-1"),
            _reader=reader,
        )


def _text(filename: bytes) -> str:
    try:
        return filename.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidInput("a file name must be UTF-8", code="invalid_name") from error
