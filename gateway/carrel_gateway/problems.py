"""Turns every exception that reaches the edge into `application/problem+json`: the only place that knows both."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from carrel_gateway.errors import CarrelError
from carrel_gateway.web.problem import MEDIA_TYPE, headers_of, problem_body

_log = structlog.get_logger(__name__)

_HTTP_CODES: Final = {
    400: ("invalid_body", "the body cannot be read; send JSON in UTF-8"),
    404: ("route_not_found", "there is nothing under this path; /docs lists what there is"),
    405: ("method_not_allowed", "this path does not take this method; the header Allow names those it takes"),
}
_MAX_ERRORS: Final = 10


def install(app: FastAPI) -> None:
    """Register the handlers."""
    app.add_exception_handler(CarrelError, _carrel_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(HTTPException, _http_exception)


def problem_response(
    request: Request,
    status: int,
    code: str,
    message: str,
    *,
    extra: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Return the answer of one problem."""
    request_id = getattr(request.state, "request_id", None)
    body = problem_body(status, code, message, request_id=request_id, extra=extra)
    return Response(body, status, dict(headers or {}), MEDIA_TYPE)


async def _carrel_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, CarrelError)  # noqa: S101 - the registration says so; this tells the type checker
    if error.status < 400:  # no problem, and an answer all the same
        body = {"status": error.code, "message": error.message, **error.detail}
        return JSONResponse(body, error.status, headers_of(error))
    if error.status >= 500:
        _log.warning("request failed", code=error.code, error=error.message, exc_info=error.__cause__)
    return problem_response(
        request, error.status, error.code, error.message, extra=error.detail, headers=headers_of(error)
    )


async def _validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - as above
    found = error.errors()
    if any(item["type"] == "json_invalid" for item in found):
        reason = next((str(item.get("ctx", {}).get("error", "")) for item in found), "")
        return problem_response(request, 400, "invalid_json", f"the body is not JSON: {reason}".rstrip(": "))
    errors = [
        {"field": ".".join(str(part) for part in item["loc"][1:]) or str(item["loc"][0]), "message": _say(item)}
        for item in found[:_MAX_ERRORS]
    ]
    message = "; ".join(f"{item['field']}: {item['message']}" for item in errors)
    return problem_response(request, 422, "validation_failed", message, extra={"errors": errors})


def _say(item: Mapping[str, Any]) -> str:
    if item["type"] == "extra_forbidden":
        return "there is no such field"
    if item["type"] == "missing":
        return "this is required"
    if item["type"].startswith("uuid"):
        return "this must be a UUID"
    if item["type"] in {"model_attributes_type", "model_type"} and len(item["loc"]) == 1:
        return "this must be a JSON object, sent with the header Content-Type: application/json"
    return str(item["msg"]).removeprefix("Value error, ")


async def _http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - as above
    code, message = _HTTP_CODES.get(error.status_code, ("http_error", str(error.detail)))
    return problem_response(request, error.status_code, code, message, headers=error.headers)
