"""The route that is found by the form of a path is the one that the framework would have found by trying all.

Plan: for the paths of every route of the application, and for odd ones, the table finds what a walk through all routes
finds, parameters included; it finds nothing where the method is another, for a socket, and where no route is. Routes of
which several take a path are found in their order. What is to be done before a route is done before it, once.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from fastapi import APIRouter
from fastapi.routing import APIRoute
from starlette.routing import Match

from carrel_gateway.main import create_app
from carrel_gateway.settings import Settings
from carrel_gateway.web.routing import RouteTable

ODD = (
    *("", "/", "//", "/api", "/api/", "/api/sessions/", "/api//x", "/api/sessions/x/messages/", "/api/sessions/x/y/z"),
    *("/api/sessions/x/files/a/b/c", "/api/sessions/{session_id}", "/api/keys/x/y", "/nothing/at/all", "/api/me/%2F"),
)


def scope_of(path: str, method: str = "GET", **more: Any) -> dict[str, Any]:
    return {"type": "http", "path": path, "method": method, "root_path": "", "headers": [], **more}


def walk(routes: list[APIRoute], scope: dict[str, Any]) -> Any:
    for route in routes:
        match, child = route.matches(scope)
        if match is Match.FULL:
            return child["route"], child["path_params"]
    return None


def look_up(table: RouteTable, scope: dict[str, Any]) -> Any:
    match, child = table.matches(scope)
    return (child["route"], child["path_params"]) if match is Match.FULL else None


async def nothing(_scope: Any) -> None:
    pass


@pytest.fixture(scope="module")
def routes() -> list[APIRoute]:
    app = create_app(Settings(_env_file=None, data_dir=Path("/nonexistent")))  # pyright: ignore[reportCallIssue]
    assert any(isinstance(route, RouteTable) for route in app.routes)
    return [route for route in app.routes if isinstance(route, APIRoute)]


def test_it_finds_what_a_walk_through_all_routes_finds(routes: list[APIRoute]):
    table = RouteTable(routes, nothing)
    paths = {re.sub(r"\{\w+(:path)?\}", value, route.path) for route in routes for value in ("me", "a/b")}
    found = 0
    for path in sorted({*paths, *ODD}):
        for method, root in (("GET", ""), ("POST", ""), ("DELETE", ""), ("get", ""), ("GET", "/api")):
            scope = scope_of(path, method, root_path=root)
            assert look_up(table, scope) == walk(routes, scope), (method, path)
            found += look_up(table, scope) is not None
    assert found > len(routes) / 2


def test_a_socket_is_not_its_business(routes: list[APIRoute]):
    assert look_up(RouteTable(routes, nothing), {**scope_of("/api/sessions"), "type": "websocket"}) is None


async def test_the_first_of_several_answers_after_what_comes_before():
    router, told = APIRouter(), list[Any]()

    async def first() -> None: ...

    async def second() -> None: ...

    for path in ("/a/{name}", "/{rest:path}", "/a/b"):
        router.add_api_route(path, first if path == "/a/{name}" else second)
    routes = [route for route in router.routes if isinstance(route, APIRoute)]

    async def before(scope: Any) -> None:
        told.append(scope["route"])
        raise LookupError  # nothing of the route is done then

    table = RouteTable(routes, before)
    scope = scope_of("/a/b")
    assert look_up(table, scope) == (routes[0], {"name": "b"})
    assert look_up(table, scope_of("/a/b/c")) == (routes[1], {"rest": "a/b/c"})
    scope.update(table.matches(scope)[1])
    with pytest.raises(LookupError):
        await table.handle(scope, None, None)
    assert told == [routes[0]]
