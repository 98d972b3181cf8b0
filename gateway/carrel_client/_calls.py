"""What both faces of the client share: requests as plain data, and answers turned into models or errors."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Final, TypeVar, cast
from urllib.parse import quote

import httpx

from carrel_client._errors import ApiProblem, ConnectionFailed, UnexpectedReply
from carrel_client._models import Event, Login, build
from carrel_client._sse import ServerEvent

T = TypeVar("T")

USER_AGENT: Final = "carrel-client"
TIMEOUT: Final = httpx.Timeout(30.0, read=None)
"""Runs take as long as they take; a connection that is gone is noticed by the server's pings and TCP."""
STREAM_TIMEOUT: Final = httpx.Timeout(30.0, read=60.0)
"""The server sends a comment every 15 s; four missing ones mean that the connection is gone."""
EVENT_STREAM: Final = "text/event-stream"
_ACCEPTED: Final = 202


@dataclass(frozen=True, slots=True)
class Call:
    """One request."""

    method: str
    path: str
    json: Any = None
    params: Mapping[str, Any] = field(default_factory=dict[str, Any])
    headers: Mapping[str, str] = field(default_factory=dict[str, str])


def session_path(session_id: str, *parts: str) -> str:
    """Return a path below a session; each part is escaped."""
    return "/".join(["/api/sessions", quoted(session_id), *parts])


def quoted(text: str) -> str:
    """Return an id as one part of a path."""
    return quote(str(text), safe="")


def create_session(title: str | None, model: str | None, config: Mapping[str, Any] | None) -> Call:
    """Return the request that opens a session."""
    body = {"title": title, "model": model, "config": dict(config) if config else None}
    return Call("POST", "/api/sessions", {name: value for name, value in body.items() if value is not None})


def log_in(email: str, password: str, tenant_id: str | None) -> Call:
    """Return the request that logs in."""
    body = {"email": email, "password": password, "tenant_id": tenant_id}
    return Call("POST", "/api/auth/login", {name: value for name, value in body.items() if value is not None})


def refresh(refresh_token: str) -> Call:
    """Return the request that exchanges a login's tokens for the next ones."""
    return Call("POST", "/api/auth/refresh", {"refresh_token": refresh_token})


def create_key(name: str, scopes: Iterable[str] | None, expires_at: datetime | None) -> Call:
    """Return the request that makes a key."""
    body: dict[str, Any] = {"name": name}
    if scopes is not None:
        body["scopes"] = list(scopes)
    if expires_at is not None:
        body["expires_at"] = expires_at.isoformat()
    return Call("POST", "/api/keys", body)


def execute(
    session_id: str, code: str, *, timeout_seconds: float | None, execution_id: str | None, silent: bool
) -> Call:
    """Return the request that runs code."""
    body = {"code": code, "timeout_seconds": timeout_seconds, "execution_id": execution_id, "silent": silent}
    return Call(
        "POST",
        session_path(session_id, "kernel", "execute"),
        {name: value for name, value in body.items() if value is not None},
    )


def chat(session_id: str, message: str, *, queue: bool) -> Call:
    """Return the request that sends a message and waits for the end of its run."""
    return Call("POST", session_path(session_id, "chat"), {"message": message}, params=_queued(queue))


def chat_stream(session_id: str, message: str, *, queue: bool) -> Call:
    """Return the request that sends a message and follows its run."""
    return Call(
        "POST",
        session_path(session_id, "chat", "stream"),
        {"message": message},
        params=_queued(queue),
        headers={"Accept": EVENT_STREAM},
    )


def _queued(queue: bool) -> dict[str, str]:
    return {"queue": "true"} if queue else {}


def resumed_stream(session_id: str, after: int, run_id: str) -> Call:
    """Return the request that goes on with a stream that was cut."""
    return Call(
        "GET",
        session_path(session_id, "events"),
        params={"run": run_id},
        headers={"Accept": EVENT_STREAM, "Last-Event-ID": str(after)},
    )


def name_path(name: str) -> str:
    """Return a file's name as a part of a path; `/` stays, as the server keeps it."""
    return quote(name, safe="/")


def opened_files(paths: Iterable[str | os.PathLike[str]]) -> list[tuple[str, tuple[str, Any]]]:
    """Return the parts of an upload; the caller closes the files."""
    parts: list[tuple[str, tuple[str, Any]]] = []
    try:
        for path in map(Path, paths):
            parts.append(("file", (path.name, path.open("rb"))))  # noqa: PERF401 - what is open must be known when one fails
    except OSError:
        close_files(parts)
        raise
    return parts


def close_files(parts: Iterable[tuple[str, tuple[str, Any]]]) -> None:
    """Close the files of an upload."""
    for _, (_, file) in parts:
        file.close()


def check(response: httpx.Response) -> httpx.Response:
    """Return the response, or raise what it says.

    Raises
    ------
    ApiProblem
        It is a problem of the API.
    UnexpectedReply
        It is an error of something else.
    """
    if response.is_success:
        return response
    try:
        document: Any = response.json()
    except ValueError:
        document = None
    if not isinstance(document, dict) or "code" not in document:
        raise UnexpectedReply(
            f"status {response.status_code} without a problem: is this address a Carrel server?",
            status=response.status_code,
        )
    problem = cast("dict[str, Any]", document)
    retry_after = response.headers.get("Retry-After", "")
    raise ApiProblem(
        response.status_code,
        str(problem["code"]),
        str(problem.get("detail", problem["code"])),
        retry_after=float(retry_after) if retry_after.isdigit() else None,
        document=problem,
    )


def wait_before_again(response: httpx.Response) -> float | None:
    """Return the seconds to wait before the request is sent again, where the answer says that nothing was done."""
    if response.status_code != _ACCEPTED:
        return None
    document: Any = response.json()
    if not (isinstance(document, dict) and cast("dict[str, Any]", document).get("send_again")):
        return None
    retry_after = response.headers.get("Retry-After", "")
    return float(retry_after) if retry_after.isdigit() else 1.0


def json_of(response: httpx.Response) -> Any:
    """Return the JSON of a checked response."""
    try:
        return check(response).json()
    except ValueError as error:
        raise UnexpectedReply("the answer is not JSON: is this address a Carrel server?") from error


def model_of(kind: type[T], response: httpx.Response) -> T:
    """Return the model in a response."""
    return build(kind, json_of(response))


def login_of(response: httpx.Response) -> Login:
    """Return the login in a checked response."""
    return build(Login, response.json())


def models_of(kind: type[T], response: httpx.Response) -> list[T]:
    """Return the models of a list."""
    return [build(kind, item) for item in json_of(response)["items"]]


def next_page(call: Call, response: httpx.Response) -> Call | None:
    """Return the request for the page after this answer; none after the last one."""
    cursor = json_of(response).get("next_cursor")
    return None if cursor is None else replace(call, params={**call.params, "cursor": cursor})


def event_of(event: ServerEvent) -> Event:
    """Return the session event in a server-sent event.

    Raises
    ------
    ApiProblem
        It says that the stream could not go on.
    """
    document = json.loads(event.data)
    if event.event == "problem":
        raise ApiProblem(
            int(document.get("status", 500)), document["code"], document.get("detail", ""), document=document
        )
    return build(Event, document)


def connection_failed(error: httpx.TransportError, base_url: httpx.URL) -> ConnectionFailed:
    """Return what to raise for a failure below HTTP."""
    return ConnectionFailed(f"cannot reach {base_url}: {error or type(error).__name__}")
