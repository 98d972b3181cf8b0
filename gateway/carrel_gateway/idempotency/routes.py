"""`IdempotentRoute`: the class of every route that writes, so that each takes `Idempotency-Key` in the same way.

Its reads are conditional where `web.conditional` says so, and of its writes those that compare `If-Match` take it.

It claims the key before the route's function runs and settles it with the answer. Routes whose effect is named by the
key itself (`NAMED`) need no claim: the run or execution that they start is there or not.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any, Final

import structlog
from fastapi import Depends, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.responses import StreamingResponse

from carrel_gateway.dependencies import Caller, Gateway, GatewayOf, IdempotencyKey
from carrel_gateway.errors import CarrelError, NotFound
from carrel_gateway.idempotency.service import LEASE_SECONDS, Answer, Claim, Effect, IdempotencyService, fingerprint_of
from carrel_gateway.identity.presented import bearer
from carrel_gateway.web import conditional
from carrel_gateway.web.multipart import boundary_of, read_parts
from carrel_gateway.web.prepared import prepared
from carrel_gateway.web.sse import EventStream

WRITES: Final = frozenset({"POST", "PUT", "PATCH", "DELETE"})
REPLAYED: Final = "Idempotent-Replayed"
"""Header of an answer that was given before."""
NAMED: Final = frozenset(
    {
        "/api/sessions/{session_id}/chat",
        "/api/sessions/{session_id}/chat/stream",
        "/api/sessions/{session_id}/kernel/execute",
    }
)
"""The key names the run or execution."""
REPEATABLE: Final = frozenset(
    {
        "/api/sessions",
        "/api/sessions/{session_id}/archive",
        "/api/sessions/{session_id}/suspend",
        "/api/sessions/{session_id}/resume",
        "/api/sessions/{session_id}/reload",
        "/api/sessions/{session_id}/files",
        "/api/sessions/{session_id}/kernel/complete",
        "/api/sessions/{session_id}/notebook/sync",
    }
)
"""POSTs that may be done again after a crash: what they make has the claim's id, or is the same the second time.

So are PUT and DELETE, by their definition (RFC 9110, 9.2.2)."""
ONCE: Final = frozenset({"/api/sessions/{session_id}/messages/{message_id}"})
"""PUTs that are no such: an answer that is made anew twice is two answers."""
SECRET: Final = frozenset({"/api/keys", "/api/tickets"})
"""POSTs whose answer holds a secret that is shown once; it is not kept."""
_DESCRIBING: Final = ("upload-length", "upload-metadata")
_KEPT_HEADERS: Final = frozenset({"content-type", "content-disposition", "etag", "location"})

_log = structlog.get_logger(__name__)


class Replayed(Exception):
    """The request was answered before; `IdempotentRoute` gives that answer again."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.status)
        self.answer = answer


async def claim_key(
    request: Request, gateway: GatewayOf, caller: Caller, idempotency_key: IdempotencyKey = None
) -> None:
    """Claim the request's key, if it has one, in `request.state`; or end the request with the answer of then."""
    if idempotency_key is None:
        return
    path = request.scope["route"].path
    multipart = request.headers.get("content-type", "").lower().startswith("multipart/")
    fingerprint = None if multipart else await _fingerprint(request)
    service = IdempotencyService(gateway.context, caller)
    found = await service.begin(
        idempotency_key,
        _operation(request),
        fingerprint,
        repeatable=_is_repeatable(request.method, path),
    )
    if isinstance(found, Answer):
        if fingerprint is None:
            found.require_same(await _fingerprint_of_parts(request))
        raise Replayed(found)
    request.state.claim, request.state.idempotency = found, service
    request.state.effect = Effect(found.effect_id, again=found.generation > 1)


class IdempotentRoute(APIRoute):
    """A route; when it writes, one that takes `Idempotency-Key`."""

    def __init__(
        self,
        path: str,
        endpoint: Callable[..., Any],
        *,
        methods: set[str] | list[str] | None = None,
        dependencies: Sequence[Any] | None = None,
        **options: Any,
    ) -> None:
        # A PATCH is a part of an upload: its offset says whether it has come already, and it is not read twice.
        self._claims = bool((WRITES - {"PATCH"}).intersection(methods or ())) and path not in NAMED
        writes = WRITES.intersection(methods or ())
        self._compares = not writes or all(conditional.is_guarded(method, path) for method in writes)
        self._is_conditional = any(conditional.is_conditional(method, path) for method in methods or ())
        more = [Depends(claim_key)] if self._claims else []
        super().__init__(path, endpoint, methods=methods, dependencies=[*(dependencies or ()), *more], **options)
        self.app = prepared(self.dependant, self._around, self.app) or self.app

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return what answers a request."""
        return self._around(super().get_route_handler())

    def _around(
        self, handle: Callable[[Request], Coroutine[Any, Any, Response]]
    ) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        if not self._compares:
            handle = _without_tags(handle)
        if self._claims:
            return _claiming(handle)
        return _conditional(handle) if self._is_conditional else handle


def _without_tags(
    handle: Callable[[Request], Coroutine[Any, Any, Response]],
) -> Callable[[Request], Coroutine[Any, Any, Response]]:
    async def answer(request: Request) -> Response:
        conditional.refuse_tags(request.headers.get("if-match"))
        return await handle(request)

    return answer


def _conditional(
    handle: Callable[[Request], Coroutine[Any, Any, Response]],
) -> Callable[[Request], Coroutine[Any, Any, Response]]:
    async def answer(request: Request) -> Response:
        return await conditional.answer(request, await handle(request))

    return answer


def _claiming(
    handle: Callable[[Request], Coroutine[Any, Any, Response]],
) -> Callable[[Request], Coroutine[Any, Any, Response]]:
    async def answer(request: Request) -> Response:
        if "idempotency-key" not in request.headers:
            return await handle(request)
        renewing = asyncio.create_task(_renew(request))
        try:
            response = await handle(request)
        except Replayed as replayed:
            return _response(replayed.answer)
        except NotFound as error:  # perhaps because the first request with this key has deleted it
            await _undo(request, error)
            before = await _answer_before(request)
            if before is None:
                raise
            return _response(before)
        except Exception as error:
            await _undo(request, error)
            raise
        finally:
            renewing.cancel()
            with suppress(asyncio.CancelledError):
                await renewing
        await _settle(request, response)
        return response

    return answer


async def _answer_before(request: Request) -> Answer | None:
    """Return what the caller was answered under this key, where the route cannot be asked any more."""
    gateway: Gateway = request.app.state.gateway
    caller = await gateway.authenticator.authenticate(bearer(request.headers.get("authorization")))
    fingerprint = await _fingerprint(request)
    service = IdempotencyService(gateway.context, caller)
    return await service.answer(request.headers["idempotency-key"], _operation(request), fingerprint)


async def _fingerprint(request: Request) -> str:
    """Return what tells this request from another one under the same key; an upload is described by headers."""
    described = [value.encode() for name in _DESCRIBING if (value := request.headers.get(name))]
    return fingerprint_of(request.url.query.encode(), await request.body(), *described)


def _is_repeatable(method: str, path: str) -> bool:
    return path in REPEATABLE or (method != "POST" and path not in ONCE)


def _operation(request: Request) -> str:
    return f"{request.method} {request.url.path}"


async def _settle(request: Request, response: Response) -> None:
    claim, service = _held(request)
    if claim is None or service is None:
        return
    try:
        if response.status_code >= 400:
            await service.release(claim)
        elif isinstance(response, StreamingResponse | EventStream) or _is_secret(request, response):
            await service.finish_without_answer(claim, response.status_code)
        else:
            headers = {name: value for name, value in response.headers.items() if name in _KEPT_HEADERS}
            effect: Effect = request.state.effect
            await service.finish(claim, Answer(response.status_code, headers, bytes(response.body), effect.fingerprint))
    except CarrelError as error:
        # The effect is there, and the caller hears so; the claim runs out, and then says what is known.
        _log.warning("idempotency key not settled", code=error.code)


def _is_secret(request: Request, response: Response) -> bool:
    return request.scope["route"].path in SECRET or response.headers.get("cache-control") == "no-store"


async def _undo(request: Request, error: Exception) -> None:
    claim, service = _held(request)
    if claim is None or service is None:
        return
    refused = isinstance(error, RequestValidationError | HTTPException) or (
        isinstance(error, CarrelError) and error.status < 500
    )
    repeatable = _is_repeatable(request.method, request.scope["route"].path)
    try:
        await (service.release(claim) if refused or repeatable else service.doubt(claim))
    except CarrelError as away:
        _log.warning("idempotency key not settled", code=away.code)


async def _renew(request: Request) -> None:
    while True:
        await asyncio.sleep(LEASE_SECONDS / 3)
        claim, service = _held(request)
        if claim is None or service is None:
            continue
        try:
            await service.renew(claim)
        except CarrelError as error:
            _log.warning("idempotency key not renewed", code=error.code)


def _held(request: Request) -> tuple[Claim | None, IdempotencyService | None]:
    return getattr(request.state, "claim", None), getattr(request.state, "idempotency", None)


def _response(answer: Answer) -> Response:
    return Response(answer.body, answer.status, {**answer.headers, REPLAYED: "true"})


async def _fingerprint_of_parts(request: Request) -> str:
    """Return the digest of an upload as its route makes it: names and contents, whatever the boundary."""
    found: list[bytes] = []
    async for part in read_parts(request.stream(), boundary_of(request.headers.get("content-type"))):
        if part.filename is None:
            continue
        content = hashlib.sha256()
        async for chunk in part.chunks():
            content.update(chunk)
        found += [part.filename.encode(), content.hexdigest().encode()]
    return fingerprint_of(*found)
