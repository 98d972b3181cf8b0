"""Completes the OpenAPI document: every operation's problems with their codes, and what all answers have in common.

It works on the document as plain data, so that no route has to repeat it.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, Final

from carrel_gateway.web.conditional import is_conditional
from carrel_gateway.web.contract import Problems, problems_of
from carrel_gateway.web.descriptions import describe
from carrel_gateway.web.problem import MEDIA_TYPE

_METHODS: Final = frozenset({"get", "put", "post", "patch", "delete"})
_SAY_WHEN: Final = frozenset({429, 503})
_WAKING: Final = ("/kernel/execute", "/kernel/restart", "/kernel/complete", "/kernel/reset", "/resume")
_RETRY_AFTER: Final = {
    "Retry-After": {"description": "Seconds to wait before asking again.", "schema": {"type": "integer", "minimum": 0}}
}
_ETAG: Final = {"ETag": {"description": "Tag of what was answered.", "schema": {"type": "string"}}}
_IF_NONE_MATCH: Final = {
    "name": "if-none-match",
    "in": "header",
    "required": False,
    "schema": {"type": "string"},
    "description": "An `ETag` that was answered before; 304 when it is the same still.",
}
PROBLEM: Final[dict[str, Any]] = {
    "title": "Problem",
    "description": "An error (RFC 9457). Programs decide by `code`; `detail` tells people what to do.",
    "type": "object",
    "required": ["type", "title", "status", "detail", "code"],
    "properties": {
        "type": {"type": "string", "description": "`urn:carrel:problem:` and the code."},
        "title": {"type": "string", "description": "The status in words."},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "code": {"type": "string", "description": "Stable name of the problem."},
        "request_id": {"type": "string", "description": "Id under which the server's log has the request."},
    },
}
NOT_YET: Final[dict[str, Any]] = {
    "title": "NotYet",
    "description": "Nothing is wrong: it takes longer than a request waits. Send again, unless `send_again` is false.",
    "type": "object",
    "required": ["status", "message"],
    "properties": {"status": {"type": "string"}, "message": {"type": "string"}, "send_again": {"type": "boolean"}},
}


def complete(document: dict[str, Any]) -> dict[str, Any]:
    """Add to a document, in place, what its operations do not say themselves; return it."""
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)  # the framework's own form, which nobody gets here
    describe(schemas)
    schemas |= {"Problem": PROBLEM, "NotYet": NOT_YET}
    for path, operations in document["paths"].items():
        for method in _METHODS.intersection(operations):
            _complete(method.upper(), path, operations[method])
    return document


def _complete(method: str, path: str, operation: dict[str, Any]) -> None:
    parameters = operation.get("parameters", [])
    names = {parameter["name"].lower() for parameter in parameters}
    problems = problems_of(
        method,
        path,
        secured=bool(operation.get("security")),
        parameters=bool(parameters),
        body="application/json" in operation.get("requestBody", {}).get("content", {}),
        keyed="idempotency-key" in names,
    )
    responses = operation.setdefault("responses", {})
    responses.pop("422", None)
    for status, codes in problems.items():
        _declare(responses, status, codes)
    if (path.rpartition("/")[2] in _WAKING and "/kernel/" in path) or path.endswith("/resume"):
        schema = {"$ref": "#/components/schemas/NotYet"}
        waking = {"description": "The kernel is being made ready; send it again.", "headers": _RETRY_AFTER}
        responses["202"] = {**waking, "content": {"application/json": {"schema": schema}}}
    if is_conditional(method, path):
        operation["parameters"] = [*parameters, _IF_NONE_MATCH]
        responses["304"] = {"description": "It is as the caller has it.", "headers": _ETAG}
        responses["200"]["headers"] = {**responses["200"].get("headers", {}), **_ETAG}


def _declare(responses: dict[str, Any], status: int, codes: tuple[str, ...]) -> None:
    own = {"properties": {"code": {"enum": list(codes)}}}
    content = {MEDIA_TYPE: {"schema": {"allOf": [{"$ref": "#/components/schemas/Problem"}, own]}}}
    said = responses.setdefault(str(status), {"description": HTTPStatus(status).phrase})
    said.setdefault("content", {}).update(content)
    if status in _SAY_WHEN:
        said["headers"] = {**said.get("headers", {}), **_RETRY_AFTER}


def codes_of(operation: dict[str, Any], status: int) -> frozenset[str]:
    """Return the codes that an operation of a completed document declares for a status."""
    content = operation["responses"].get(str(status), {}).get("content", {})
    parts = content.get(MEDIA_TYPE, {}).get("schema", {}).get("allOf", [])
    return frozenset(code for part in parts for code in part.get("properties", {}).get("code", {}).get("enum", []))


__all__ = ["NOT_YET", "PROBLEM", "Problems", "codes_of", "complete"]
