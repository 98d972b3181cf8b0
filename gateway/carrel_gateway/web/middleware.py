"""What every request goes through, as plain ASGI: id, guards, body limit, security headers, log line, metrics.

It knows no feature and no key; who may do what is decided by the dependencies of the routes. Before anything of a body
is read, `admit` looks at who calls.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from contextlib import suppress
from types import MappingProxyType
from typing import Any, Final, TypeAlias
from uuid import uuid4

import structlog

from carrel_gateway import metrics
from carrel_gateway.errors import CarrelError
from carrel_gateway.logs import RequestLog
from carrel_gateway.settings import Settings
from carrel_gateway.web import problem
from carrel_gateway.web.bodies import ANONYMOUS_MAX_BYTES, Admit, BodyMeter
from carrel_gateway.web.guards import host_allowed, origin_allowed

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
AsgiApp: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

JSON_MAX_BYTES: Final = 4 * 1024 * 1024
"""Largest body that is not an upload: room for a million characters of code, and parsed in less than 50 ms."""
_DRAIN_BYTES: Final = 64 * 1024 * 1024
_DRAIN_SECONDS: Final = 5.0
"""So much of an unwanted body is read away: a caller that is still sending would not see the answer otherwise."""
_REQUEST_ID: Final = re.compile(rb"[A-Za-z0-9._-]{1,64}")
_TRACE: Final = re.compile(rb"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")
"""Source: W3C, Trace Context, 3.2: version, trace, parent, flags."""
_SECURITY_HEADERS: Final = {
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"no-referrer",
    b"x-frame-options": b"DENY",
    b"cross-origin-resource-policy": b"same-origin",
    b"content-security-policy": b"default-src 'none'; frame-ancestors 'none'",
    b"cache-control": b"no-store",
}

_log = structlog.get_logger(__name__)


class _BodyRefused(Exception):
    """The body is not read on. No error of the tree, which the application would answer itself."""

    def __init__(self, error: CarrelError) -> None:
        super().__init__(error.code)
        self.error = error


class Envelope:
    """The outermost layer: nothing gets past it without an id, headers, a log line and an answer."""

    def __init__(self, app: AsgiApp, *, settings: Settings, admit: Admit) -> None:
        self._app = app
        self._admit = admit
        self._settings = settings
        self._origins = frozenset(settings.cors_origins)
        self._local = settings.executor_type == "local"
        self._log = RequestLog(settings, __name__)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in {"http", "websocket"}:
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        given = headers.get(b"x-request-id", b"")
        is_given = _REQUEST_ID.fullmatch(given) is not None
        request_id = given.decode() if is_given else _trace_of(headers) or uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id
        with structlog.contextvars.bound_contextvars(request_id=request_id):
            refused = self._refusal(scope, headers)
            if scope["type"] == "websocket":
                await self._websocket(scope, receive, send, refused)
            else:
                meter = BodyMeter(headers.get(b"content-type", b""), self._limit(scope))
                exchange = _Exchange(self._app, scope, receive, send, request_id, self._admit, meter, self._log)
                exchange.given_id = is_given
                exchange.reader = self._reader(headers)
                await exchange.run(refused)

    def _refusal(self, scope: Scope, headers: dict[bytes, bytes]) -> tuple[int, str, str] | None:
        host = headers.get(b"host", b"").decode("latin-1")
        if not host_allowed(host, allowed=self._settings.allowed_hosts, loopback_only=self._local):
            hint = "localhost or 127.0.0.1" if self._local else "one of CARREL_ALLOWED_HOSTS"
            return 400, "host_not_allowed", f"this gateway does not answer under that host name; use {hint}"
        origin = headers.get(b"origin")
        if not origin_allowed(None if origin is None else origin.decode("latin-1"), host, self._origins):
            return (
                403,
                "origin_not_allowed",
                "pages of that origin may not call; an administrator can allow it with CARREL_CORS_ORIGINS",
            )
        if b"%00" in scope.get("raw_path", b"") or b"%00" in scope.get("query_string", b""):
            return 400, "invalid_address", "an address must not hold the character NUL (%00)"
        length = headers.get(b"content-length", b"0")
        if scope["type"] == "http" and length.isdigit() and int(length) > self._limit(scope):
            return 413, "too_large", f"the body may have at most {self._limit(scope)} bytes"
        return None

    def _reader(self, headers: dict[bytes, bytes]) -> bytes | None:
        """Return the origin of settings whose page asks, and may read also what is answered here."""
        origin = headers.get(b"origin")
        return origin if origin is not None and origin.decode("latin-1") in self._origins else None

    def _limit(self, scope: Scope) -> int:
        # An upload of the largest file needs room for the lines around it; files are counted one by one when stored.
        if scope["type"] == "http" and scope["method"] == "POST" and scope["path"].endswith("/files"):
            return self._settings.upload_max_bytes + JSON_MAX_BYTES
        if scope["type"] == "http" and scope["method"] == "PATCH" and "/uploads/" in scope["path"]:
            return self._settings.upload_max_bytes
        return JSON_MAX_BYTES

    async def _websocket(
        self, scope: Scope, receive: Receive, send: Send, refused: tuple[int, str, str] | None
    ) -> None:
        if refused:
            _log.warning("websocket refused", code=refused[1])
            await receive()
            await send({"type": "websocket.close", "code": 1008, "reason": refused[1]})
            return
        with metrics.websockets.track_inprogress():
            await self._app(scope, receive, send)


def _trace_of(headers: Mapping[bytes, bytes]) -> str | None:
    """Return the trace that a request says to be part of; all zeros are none."""
    found = _TRACE.fullmatch(headers.get(b"traceparent", b""))
    return found[1].decode() if found and found[1].strip(b"0") else None


class _Exchange:
    """One request and its answer."""

    def __init__(
        self,
        app: AsgiApp,
        scope: Scope,
        receive: Receive,
        send: Send,
        request_id: str,
        admit: Admit,
        meter: BodyMeter,
        log: RequestLog,
    ) -> None:
        self._app = app
        self._scope = scope
        self._receive = receive
        self._send = send
        self._request_id = request_id
        self._admit = admit
        self._meter = meter
        self._log = log
        self._admitted = False
        self._body_is_read = False
        self._refusal: _BodyRefused | None = None
        self._status = 0
        self.reader: bytes | None = None
        self.given_id = False

    async def run(self, refused: tuple[int, str, str] | None) -> None:
        started = time.perf_counter()
        try:
            if refused:
                await self._problem(*refused)
            else:
                await self._app(self._scope, self._read, self._write)
        except _BodyRefused as refusal:
            error, self._refusal = refusal.error, None
            await self._problem(error.status, error.code, error.message, error.detail, problem.headers_of(error))
        except asyncio.CancelledError:
            _log.warning("request cut by the end of the process")
            await self._problem(
                503,
                "unavailable",
                "this gateway ended before the request did, and how far it came is not known; send it again with its "
                "Idempotency-Key, or look at what is there",
                more={"Retry-After": "1"},
            )
            raise
        except Exception:  # noqa: BLE001 - whatever it is, the caller gets an answer and the log the cause
            self._refusal = None
            _log.exception("request failed")
            await self._problem(
                500, "internal", "something went wrong here; the server's log has it under this request id"
            )
        finally:
            self._record(time.perf_counter() - started)

    async def _read(self) -> Message:
        try:
            if not self._admitted:
                self._admitted = True
                if not await self._admit(self._scope):
                    self._meter.limit = min(self._meter.limit, ANONYMOUS_MAX_BYTES)
            message = await self._receive()
            self._body_is_read = not message.get("more_body", False)
            self._meter.take(message.get("body", b""))
        except CarrelError as error:
            self._refusal = _BodyRefused(error)
            raise self._refusal from error
        return message

    async def _write(self, message: Message) -> None:
        if self._refusal and not self._status:
            raise self._refusal  # the framework has taken it for a broken body
        if message["type"] == "http.response.start":
            self._status = message["status"]
            if self._status >= 400:
                await self._drain()
            present = {name.lower() for name, _ in message["headers"]}
            message["headers"] = [
                *message["headers"],
                (b"x-request-id", self._request_id.encode()),
                *((name, value) for name, value in _SECURITY_HEADERS.items() if name not in present),
            ]
        await self._send(message)

    async def _drain(self) -> None:
        if not self._meter.bytes and _waits_to_be_asked(self._scope):
            return
        drained = 0
        with suppress(TimeoutError):
            async with asyncio.timeout(_DRAIN_SECONDS):
                while not self._body_is_read and drained < _DRAIN_BYTES:
                    message = await self._receive()
                    drained += len(message.get("body", b""))
                    self._body_is_read = not message.get("more_body", False)

    async def _problem(
        self,
        status: int,
        code: str,
        text: str,
        detail: Mapping[str, Any] = MappingProxyType({}),
        more: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        if self._status:  # the answer has begun; cutting it is the only way to say that it is not whole
            _log.error("answer cut", code=code)
            return
        body = problem.problem_body(status, code, text, request_id=self._request_id, extra=detail)
        headers = [
            (b"content-type", problem.MEDIA_TYPE.encode()),
            (b"content-length", str(len(body)).encode()),
            *((name.lower().encode(), value.encode()) for name, value in more.items()),
            *([(b"access-control-allow-origin", self.reader), (b"vary", b"Origin")] if self.reader else []),
        ]
        await self._write({"type": "http.response.start", "status": status, "headers": headers})
        await self._send({"type": "http.response.body", "body": body})

    def _record(self, seconds: float) -> None:
        route = self._scope.get("route")
        path = getattr(route, "path", None) or "unmatched"
        method = self._scope["method"] if self._scope["method"] in metrics.METHODS else "other"
        metrics.requests.labels(method, path, f"{self._status // 100}xx").inc()
        metrics.request_seconds.labels(method, path).observe(seconds)
        # The path itself may hold a signed token or a file's name, and the query is nobody's business either.
        self._log.write(
            self._request_id,
            given=self.given_id,
            method=method,
            route=path,
            status=self._status,
            milliseconds=round(seconds * 1000, 1),
        )


def _waits_to_be_asked(scope: Scope) -> bool:
    """Whether the caller sends its body only after an interim answer; without one, nothing needs to be read away."""
    return any(name == b"expect" and value.lower() == b"100-continue" for name, value in scope["headers"])
