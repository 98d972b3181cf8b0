"""One connection of the gateway's listener: uvicorn's protocol, with limits and with nothing left to interpretation.

What two servers could read differently is refused: several Host headers, none, one that is not the address's; an
encoding of the body beside `chunked`; trailers that would pass for headers. A head has a largest size and a deadline,
a body must go on arriving. Who may do what is not decided here (see `dependencies`). Source: RFC 9112.
"""

from __future__ import annotations

import asyncio
from typing import ClassVar, Final, cast
from urllib.parse import urlsplit

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from carrel_gateway.web.outgoing import Outgoing
from carrel_gateway.web.problem import MEDIA_TYPE, problem_body

MAX_HEAD_BYTES: Final = 32 * 1024
"""Request line and headers. Tokens and cookies are a few KiB; other servers allow 8 to 64 KiB."""
MAX_HEADERS: Final = 100
MAX_PIPELINED: Final = 16
"""Requests that wait behind one that is being answered; the SDK and browsers send none."""
_SINGLE: Final = frozenset(
    {b"host", b"content-length", b"transfer-encoding", b"content-type", b"authorization", b"origin"}
)
_OVERHEAD: Final = 8
"""Bytes of framing for one of content: chunks of a single byte have five."""
_MALFORMED: Final = (400, "malformed_request", "the request is not well-formed HTTP/1.1")


class _Refused(Exception):
    """The request is not taken; `_refusal` says why."""


class Connection(HttpToolsProtocol):
    """One connection of a client, over which it sends requests one after the other."""

    head_seconds: ClassVar[float] = 10.0
    """A head that is not whole by then is not waited for; neither is a connection on which nothing comes."""
    body_seconds: ClassVar[float] = 30.0
    body_bytes: ClassVar[int] = 4096
    """A body of which less than this arrives in `body_seconds`, twice in a row, is not waited for."""

    _refusal: tuple[int, str, str] | None = None
    _deadline: asyncio.TimerHandle | None = None
    _upgraded = False
    _in_head = True
    _begun = False
    """Something of the next head has come."""
    _head_bytes = 0
    """Read so far while a head was not whole."""
    _taken = 0
    """Of these, what the parser has made names and values of."""
    _raw_bytes = 0
    """Read since the head was whole."""
    _body_bytes = 0
    """Of these, what is the body's content."""
    _looked_at_bytes = 0
    _grace = True
    """One look at the body may find too little: this process itself may have been late."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]  as uvicorn's
        super().connection_made(cast("asyncio.Transport", Outgoing(transport, self.loop)))
        self._wait_for_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._refusal or self.transport.is_closing():
            return
        if self._in_head:
            self._head_bytes += len(data)
        else:
            self._raw_bytes += len(data)
        super().data_received(data)
        if not (self._refusal or self._upgraded or self.transport.is_closing()):
            self._bound()

    def handle_websocket_upgrade(self) -> None:
        self._stop_waiting()
        self._upgraded = True
        super().handle_websocket_upgrade()

    # ------------------------------------------------------------------ parser callbacks

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._begun = True
        self._taken = 0

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        self._take(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._in_head:
            return  # a trailer: whoever reads the headers later would take it for one
        self._take(len(name) + len(value))
        if len(self.headers) >= MAX_HEADERS:
            self._raise(431, "too_many_headers", f"a request may have at most {MAX_HEADERS} headers")
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._check_head()
        if len(self.pipeline) >= MAX_PIPELINED:
            self._raise(400, "too_many_requests_at_once", "wait for answers before sending further requests")
        self._in_head = self._begun = False
        self._head_bytes = self._raw_bytes = self._body_bytes = self._looked_at_bytes = 0
        self._grace = True
        self._stop_waiting()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._stop_waiting()
        self._in_head = True
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002  uvicorn's words are for nobody
        self._refuse(*(self._refusal or _MALFORMED))

    # ------------------------------------------------------------------ limits

    def _bound(self) -> None:
        """See to it that what is not whole yet is small, and has a deadline."""
        if self._in_head:
            idle = not self._answering()
            if self._head_bytes > MAX_HEAD_BYTES:
                self._refuse(*_too_long())
            elif self._deadline is None and (self._begun or idle):
                self._wait_for_head()
        elif self._raw_bytes - self._body_bytes > MAX_HEAD_BYTES + _OVERHEAD * self._body_bytes:
            self._refuse(400, "too_much_around_the_body", "the chunks of the body are almost nothing but framing")
        elif self._deadline is None:
            self._wait_for_body()

    def _answering(self) -> bool:
        return bool(self.cycle) and not self.cycle.response_complete

    def _take(self, size: int) -> None:
        self._taken += size
        if self._taken > MAX_HEAD_BYTES:
            self._raise(*_too_long())

    def _check_head(self) -> None:
        named = [name for name, _ in self.headers if name in _SINGLE]
        if len(named) != len(set(named)):
            self._raise(400, "ambiguous_headers", "a header that may be there once is there several times")
        headers = dict(self.headers)
        host, version = headers.get(b"host"), self.parser.get_http_version() if self.parser else ""
        if host is None and version != "1.0":
            self._raise(400, "host_missing", "a request must have a Host header")
        if not self.url.startswith(b"/") and self.url != b"*" and _authority(self.url) != (host or b"").lower():
            self._raise(400, "ambiguous_headers", "the address and the Host header name different hosts")
        encoding = headers.get(b"transfer-encoding")
        if encoding is not None and (
            encoding.lower() != b"chunked" or version == "1.0" or b"content-length" in headers
        ):
            self._raise(400, "transfer_encoding_refused", "only `chunked` is understood, without a Content-Length")

    def _wait_for_head(self) -> None:
        self._deadline = self.loop.call_later(self.head_seconds, self._late_head)

    def _wait_for_body(self) -> None:
        self._looked_at_bytes = self._body_bytes
        self._deadline = self.loop.call_later(self.body_seconds, self._look_at_body)

    def _stop_waiting(self) -> None:
        if self._deadline:
            self._deadline.cancel()
            self._deadline = None

    def _late_head(self) -> None:
        if self._begun and not self.transport.is_closing():
            self._refuse(408, "head_timeout", f"the request's headers were not whole within {self.head_seconds:g} s")
        else:
            self.transport.close()

    def _look_at_body(self) -> None:
        waited_for = self.flow.read_paused or self.cycle.waiting_for_100_continue  # this side takes its time
        enough = waited_for or self._body_bytes - self._looked_at_bytes >= self.body_bytes
        if enough or self._grace:
            self._grace = enough
            self._wait_for_body()
            return
        text = f"less than {self.body_bytes} bytes of the body came within {self.body_seconds:g} s"
        self._refuse(408, "body_timeout", text)

    def _raise(self, status: int, code: str, text: str) -> None:
        self._refusal = (status, code, text)
        raise _Refused  # the parser stops, and uvicorn calls `send_400_response`

    def _refuse(self, status: int, code: str, text: str) -> None:
        """Answer and hang up; only hang up where the answer would stand within, or in the place of, another one."""
        self._stop_waiting()
        self._refusal = (status, code, text)
        answering = self._answering()
        own = not self._in_head  # it is about the request that is being answered
        if not answering or (own and not self.cycle.response_started and not self.pipeline):
            body = problem_body(status, code, text)
            head = [
                b"content-type: " + MEDIA_TYPE.encode(),
                b"content-length: " + str(len(body)).encode(),
                b"connection: close",
            ]
            self.transport.write(STATUS_LINE[status] + b"\r\n".join(head) + b"\r\n\r\n" + body)
        self.transport.close()


def _too_long() -> tuple[int, str, str]:
    return 431, "headers_too_large", f"the request line and headers may have at most {MAX_HEAD_BYTES} bytes"


def _authority(url: bytes) -> bytes:
    """Return the authority of an address in absolute form, in lower case."""
    try:
        return urlsplit(url).netloc.lower()
    except ValueError:
        return b""
