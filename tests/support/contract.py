"""Holds every answer of a gateway under test to its OpenAPI document: status, code, and what must come with them."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Any

import httpx

from carrel_gateway.main import create_app
from carrel_gateway.settings import Settings
from carrel_gateway.web import contract, openapi

_MAKING = Lock()
_WIDE = {"name": r".+", "path": r".+", "token": r"(?s:.+)"}
"""Parameters of paths that may hold slashes; a name with a line end finds no route."""


def document() -> dict[str, Any]:
    """Return the OpenAPI document, which is made once, whoever asks."""
    with _MAKING:
        return _made()


@cache
def _made() -> dict[str, Any]:
    return create_app(Settings(_env_file=None, data_dir=Path("/nonexistent"))).openapi()


@cache
def _templates() -> list[tuple[re.Pattern[str], str]]:
    found: list[tuple[re.Pattern[str], str]] = []
    # The narrower ones first: those with fewer characters that stand for anything.
    for path in sorted(document()["paths"], key=lambda path: (path.count("{"), -len(path))):
        pattern = "".join(
            _WIDE.get(part[1:-1], r"[^/]+") if part.startswith("{") else re.escape(part)
            for part in re.split(r"(\{\w+\})", path)
        )
        found.append((re.compile(pattern), path))
    return found


def operation_of(method: str, path: str) -> tuple[str, dict[str, Any]] | None:
    """Return the operation that answers a request, with its template; none where there is none."""
    for pattern, template in _templates():
        operation = document()["paths"][template].get(method.lower())
        if operation is not None and pattern.fullmatch(path):
            return template, operation
    return None


def check(response: httpx.Response) -> None:
    """Fail when an answer is not declared: for use as a hook of httpx."""
    if response.request.method == "HEAD":
        return  # the document is silent about it, and no problem is told without a body
    found = operation_of(response.request.method, response.request.url.path)
    if response.status_code >= 400:
        response.read()
        _check_problem(response, found)
    elif found is not None:
        template, operation = found
        declared = operation["responses"]
        assert str(response.status_code) in declared, f"{template} does not declare {response.status_code}"


def _check_problem(response: httpx.Response, found: tuple[str, dict[str, Any]] | None) -> None:
    status, said = response.status_code, f"{response.request.method} {response.request.url.path}"
    if response.headers.get("content-type") != "application/problem+json":
        assert found is not None, f"{said}: no problem"
        assert "application/json" in found[1]["responses"][str(status)]["content"], f"{said}: no problem"
        return
    problem = response.json()
    assert problem["status"] == status, said
    codes = openapi.codes_of(found[1], status) if found else frozenset()
    elsewhere = {*contract.OFF_THE_TABLE.get(status, ()), *contract.EVERYWHERE.get(status, ())}
    assert problem["code"] in codes | (set() if found else elsewhere), (
        f"{said} answered {status} {problem['code']}, which the table in carrel_gateway/web/contract.py does not "
        f"declare for {found[0] if found else 'it'}"
    )
    if status in {429, 503}:
        assert response.headers["retry-after"].isdigit(), f"{said}: {status} without Retry-After"
