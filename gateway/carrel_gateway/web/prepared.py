"""Answers requests to routes that ask for little, with all that can be found out about them found out once.

FastAPI looks up for each request again what a function asks for, through all of its dependencies, and holds stacks
open for those that have something to close: more than a quarter of the cost of a read. Of a route whose dependencies
ask for the connection alone, whose parameters are single values, and which makes its answer itself, the questions are
always the same. FastAPI's own way is gone whenever something is not as it should be: it says what is wrong.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from inspect import iscoroutinefunction
from types import UnionType
from typing import Any, Final, Literal, TypeAlias, Union, get_args, get_origin
from uuid import UUID

from fastapi import params
from fastapi.dependencies.models import Dependant
from fastapi.dependencies.utils import get_typed_return_annotation
from starlette.requests import Request
from starlette.responses import Response

Handler: TypeAlias = Callable[[Request], Coroutine[Any, Any, Response]]
App: TypeAlias = Callable[[Any, Any, Any], Awaitable[None]]
Wrap: TypeAlias = Callable[[Handler], Handler]

_JSON: Final = frozenset({"application/json", "application/json; charset=utf-8", "application/json;charset=utf-8"})
_SINGLE: Final = (type(None), bool, int, float, str, UUID, datetime, Enum)


class _NotAsItShouldBe(Exception):
    """A parameter or the body; FastAPI says which, and how it should be."""


class _AsksForMoreError(Exception):
    """It cannot be prepared."""


@dataclass(frozen=True, slots=True)
class _Parameter:
    name: str
    alias: str
    validate: Callable[..., tuple[Any, list[Any]]]
    is_required: bool
    default: Any

    def of(self, given: Mapping[str, Any]) -> Any:
        text = given.get(self.alias)
        if text is None:
            if self.is_required:
                raise _NotAsItShouldBe
            return self.default
        value, errors = self.validate(text, {}, loc=())
        if errors:
            raise _NotAsItShouldBe
        return value


@dataclass(frozen=True, slots=True)
class _Questions:
    """What a function asks for."""

    call: Callable[..., Coroutine[Any, Any, Response]]
    dependencies: tuple[tuple[str | None, Callable[[Any], Coroutine[Any, Any, Any]]], ...]
    path: tuple[_Parameter, ...]
    query: tuple[_Parameter, ...]
    header: tuple[_Parameter, ...]
    body: _Parameter | None

    async def answer(self, request: Request) -> Response:
        body = await _json_of(request) if self.body else None  # before the dependencies, as FastAPI does it
        values: dict[str, Any] = {}
        for name, call in self.dependencies:
            value = await call(request)
            if name is not None:
                values[name] = value
        for parameter in self.path:
            values[parameter.name] = parameter.of(request.path_params)
        for parameter in self.header:
            values[parameter.name] = parameter.of(request.headers)
        if self.query:
            given: Mapping[str, str] = request.query_params if request.scope["query_string"] else {}
            for parameter in self.query:
                values[parameter.name] = parameter.of(given)
        if self.body:
            values[self.body.name] = self.body.of({self.body.alias: body})
        return await self.call(**values)


def prepared(dependant: Dependant, wrap: Wrap, otherwise: App) -> App | None:
    """Return what answers requests to a route; none when it asks for more than can be prepared.

    Parameters
    ----------
    wrap
        Puts around a handler what the route has around it.
    otherwise
        FastAPI's way to answer, for requests that are not as they should be.
    """
    questions = _questions_of(dependant)
    if questions is None:
        return None
    handle = wrap(questions.answer)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        request = Request(scope, receive, send)
        try:
            response = await handle(request)
        except _NotAsItShouldBe:
            await otherwise(scope, _from_the_beginning(request, receive), send)
            return
        await response(scope, receive, send)

    return app


def _from_the_beginning(request: Request, receive: Any) -> Any:
    """Return a way to receive in which the body comes first, if it was read already."""
    body: bytes | None = getattr(request, "_body", None)
    if body is None:
        return receive
    messages = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> Any:
        return messages.pop() if messages else await receive()

    return again


async def _json_of(request: Request) -> Any:
    body = await request.body()
    if request.headers.get("content-type", "").lower() not in _JSON:
        raise _NotAsItShouldBe
    try:
        return json.loads(body)
    except ValueError as error:
        raise _NotAsItShouldBe from error


def _questions_of(dependant: Dependant) -> _Questions | None:
    call = dependant.call
    if call is None or not iscoroutinefunction(call) or _has_more(dependant) or _connection_of(dependant):
        return None
    returned = get_typed_return_annotation(call)
    if not (isinstance(returned, type) and issubclass(returned, Response)):
        return None
    try:
        return _Questions(
            call,
            tuple((each.name, _leaf(each)) for each in dependant.dependencies),
            tuple(map(_parameter, dependant.path_params)),
            tuple(map(_parameter, dependant.query_params)),
            tuple(map(_parameter, dependant.header_params)),
            _body(dependant.body_params),
        )
    except _AsksForMoreError:
        return None


def _leaf(dependant: Dependant) -> Callable[[Any], Coroutine[Any, Any, Any]]:
    """Return a dependency that asks for nothing but the connection."""
    call: Any = dependant.call
    given = (dependant.path_params, dependant.query_params, dependant.header_params, dependant.body_params)
    is_coroutine = iscoroutinefunction(call) or iscoroutinefunction(getattr(call, "__call__", None))  # noqa: B004  its function is looked at
    if dependant.dependencies or any(given) or _has_more(dependant) or not (_connection_of(dependant) and is_coroutine):
        raise _AsksForMoreError
    return call


def _connection_of(dependant: Dependant) -> bool:
    return bool(dependant.http_connection_param_name or dependant.request_param_name)


def _has_more(dependant: Dependant) -> bool:
    return bool(
        dependant.cookie_params
        or dependant.websocket_param_name
        or dependant.response_param_name
        or dependant.background_tasks_param_name
        or dependant.security_scopes_param_name
        or dependant.concurrency
    )


def _parameter(field: Any) -> _Parameter:
    info: params.Param = field.field_info
    if not _is_single(info.annotation) or not isinstance(info.validation_alias, str | None):
        raise _AsksForMoreError
    default = None if info.is_required() else field.default
    if info.validate_default or not isinstance(default, _SINGLE):
        raise _AsksForMoreError
    return _Parameter(field.name, field.validation_alias or field.alias, field.validate, info.is_required(), default)


def _body(fields: list[Any]) -> _Parameter | None:
    if not fields:
        return None
    field, *others = fields
    info: params.Body = field.field_info
    if others or type(info) is not params.Body or info.embed or not info.is_required():
        raise _AsksForMoreError
    return _Parameter(field.name, field.name, field.validate, is_required=True, default=None)


def _is_single(annotation: Any) -> bool:
    kind = get_origin(annotation)
    if kind in (Union, UnionType):
        return all(map(_is_single, get_args(annotation)))
    return kind is Literal or (isinstance(annotation, type) and issubclass(annotation, _SINGLE))
