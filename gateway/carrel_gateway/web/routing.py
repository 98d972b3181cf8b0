"""Finds the route of a request by the form of its path, instead of trying one route after the other.

It decides nothing: what it finds is the first route that takes the path and the method, as the framework would have
found it. What it does not find (a path that no route has, another method, a socket) is left to the framework.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any, Final, TypeAlias

from fastapi.routing import APIRoute
from starlette.routing import BaseRoute, Match

Scope: TypeAlias = MutableMapping[str, Any]
Before: TypeAlias = Callable[[Scope], Awaitable[None]]
_Form: TypeAlias = tuple[str | None, ...]
"""The parts of a path, `None` for a parameter."""

_PARAMETER: Final = re.compile(r"\{[a-zA-Z_][a-zA-Z0-9_]*\}")


class RouteTable(BaseRoute):
    """All routes of an application as one; it stands before them."""

    def __init__(self, routes: Sequence[APIRoute], before: Before) -> None:
        """Take the routes in their order.

        Parameters
        ----------
        before
            Done with the scope of a request for which a route was found, before the route has it.
        """
        self._routes = tuple(routes)
        self._before = before
        self._places: dict[tuple[str, _Form], int] = {}
        self._forms: dict[int, list[tuple[int, ...]]] = {}
        """By number of parts: the places of parameters."""
        self._others: list[int] = []
        """Places of routes with a parameter that may have any number of parts."""
        for place, route in enumerate(self._routes):
            self._add(place, route)

    def matches(self, scope: Any) -> tuple[Match, Any]:
        """Return the match of the first route that takes the path and the method."""
        if scope["type"] == "http":
            for place in self._candidates(scope):
                match, child = self._routes[place].matches(scope)
                if match is Match.FULL:
                    return match, child
        return Match.NONE, {}

    async def handle(self, scope: Any, receive: Any, send: Any) -> None:
        """Have the route that was found answer."""
        await self._before(scope)
        await scope["route"].handle(scope, receive, send)

    def _add(self, place: int, route: APIRoute) -> None:
        form = tuple(None if _PARAMETER.fullmatch(part) else part for part in route.path.split("/"))
        if any(part and "{" in part for part in form):
            self._others.append(place)
            return
        holes = tuple(at for at, part in enumerate(form) if part is None)
        known = self._forms.setdefault(len(form), [])
        if holes not in known:
            known.append(holes)
        for method in route.methods or ():
            self._places.setdefault((method, form), place)

    def _candidates(self, scope: Scope) -> Sequence[int]:
        """Return the places of the routes that may take the request, in the order of the routes."""
        if scope.get("root_path"):
            return range(len(self._routes))
        parts: list[str | None] = scope["path"].split("/")
        found = list(self._others)
        for holes in self._forms.get(len(parts), ()):
            form = parts.copy()
            for at in holes:
                form[at] = None
            place = self._places.get((scope["method"], tuple(form)))
            if place is not None:
                found.append(place)
        found.sort()
        return found
