"""The synchronous face of the SDK."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx

from carrel_client import _calls as calls
from carrel_client._errors import CarrelClientError
from carrel_client._login import InMemory, LoginAuth, LoginStore
from carrel_client._models import Artifact, ChatResult, Event, Execution, Key, Login, Session, build
from carrel_client._resume import RunStream
from carrel_client._sse import EventParser

T = TypeVar("T")


class Client:
    """A connection to one server, under one API key or one login.

    Parameters
    ----------
    base_url
        Such as `http://localhost:8000`.
    api_key
        The key; not needed for `health` and `info`.
    login
        Instead of a key: where a login is kept, such as one that `log_in` gave (`InMemory(login)`).
    transport
        Where requests go, for tests.

    All methods raise `ApiProblem` when the server refuses and `ConnectionFailed` when it cannot be reached.
    """

    def __init__(
        self,
        base_url: str,
        api_key: str | None = None,
        *,
        login: LoginStore | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        headers = {"User-Agent": calls.USER_AGENT, **({"Authorization": f"Bearer {api_key}"} if api_key else {})}
        self._http = httpx.Client(
            base_url=base_url,
            headers=headers,
            timeout=calls.TIMEOUT,
            transport=transport,
            auth=LoginAuth(base_url, login) if login else None,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    # the server

    def health(self) -> dict[str, Any]:
        """Return how the server's parts are."""
        return calls.json_of(self._send(calls.Call("GET", "/health/ready")))

    def info(self) -> dict[str, Any]:
        """Return what the server is."""
        return calls.json_of(self._send(calls.Call("GET", "/info")))

    def models(self) -> list[dict[str, Any]]:
        """Return the models that sessions may choose."""
        return calls.json_of(self._send(calls.Call("GET", "/api/models")))["items"]

    # people

    def log_in(self, email: str, password: str, *, tenant_id: str | None = None) -> Login:
        """Log in, and go on under that login; without a tenant it is the account's first."""
        login = calls.login_of(calls.check(self._send(calls.log_in(email, password, tenant_id))))
        self._http.headers.pop("Authorization", None)
        self._http.auth = LoginAuth(str(self._http.base_url), InMemory(login))
        return login

    def log_out(self) -> None:
        """End the login; its tokens are good for nothing any more."""
        calls.check(self._send(calls.Call("POST", "/api/auth/logout")))

    def me(self) -> dict[str, Any]:
        """Return who calls, their tenants, and what they may."""
        return calls.json_of(self._send(calls.Call("GET", "/api/me")))

    def keys(self, *, service: bool = False) -> list[Key]:
        """Return one's API keys or, as an administrator, those of all service accounts."""
        return self._all(Key, calls.Call("GET", "/api/keys", params={"kind": "service"} if service else {}))

    def create_key(
        self, name: str, *, scopes: Iterable[str] | None = None, expires_at: datetime | None = None
    ) -> tuple[Key, str]:
        """Make an API key, cut to some rights where they are named; return it, and what to present: shown once."""
        made = calls.json_of(self._send(calls.create_key(name, scopes, expires_at)))
        return build(Key, made), str(made["key"])

    def revoke_key(self, key_id: str) -> None:
        """Make a key good for nothing."""
        calls.check(self._send(calls.Call("DELETE", f"/api/keys/{calls.quoted(key_id)}")))

    def revoke_keys(self, user_id: str | None = None) -> int:
        """Make all keys of one's own, or of a user, good for nothing, but the one in use; return how many."""
        params = {"user_id": user_id} if user_id else {}
        return int(calls.json_of(self._send(calls.Call("DELETE", "/api/keys", params=params)))["revoked"])

    # sessions

    def create_session(
        self, *, title: str | None = None, model: str | None = None, config: Mapping[str, Any] | None = None
    ) -> Session:
        """Open a session."""
        return calls.model_of(Session, self._send(calls.create_session(title, model, config)))

    def sessions(self, *, status: str | None = None, limit: int = 50) -> list[Session]:
        """Return the newest sessions."""
        params = {"limit": limit, **({"status": status} if status else {})}
        return calls.models_of(Session, self._send(calls.Call("GET", "/api/sessions", params=params)))

    def session(self, session_id: str) -> Session:
        """Return one session."""
        return calls.model_of(Session, self._send(calls.Call("GET", calls.session_path(session_id))))

    def update_session(self, session_id: str, **changes: Any) -> Session:
        """Change title, model or config."""
        return calls.model_of(Session, self._send(calls.Call("PUT", calls.session_path(session_id), changes)))

    def archive_session(self, session_id: str) -> Session:
        """Put a session away."""
        call = calls.Call("POST", calls.session_path(session_id, "archive"))
        return calls.model_of(Session, self._send(call))

    def suspend_session(self, session_id: str) -> dict[str, Any]:
        """Save its variables and files, and give its kernel back; return the session and its snapshot."""
        return calls.json_of(self._send(calls.Call("POST", calls.session_path(session_id, "suspend"))))

    def resume_session(self, session_id: str) -> dict[str, Any]:
        """Give it a kernel with its state; return the session and what could not be brought back."""
        return calls.json_of(self._send(calls.Call("POST", calls.session_path(session_id, "resume"))))

    def fork_session(self, session_id: str, *, title: str | None = None) -> dict[str, Any]:
        """Open a session with its history, files and state; return that session and its snapshot."""
        body = {"title": title} if title else {}
        return calls.json_of(self._send(calls.Call("POST", calls.session_path(session_id, "fork"), body)))

    def delete_session(self, session_id: str) -> dict[str, Any]:
        """Delete a session with all that is in it, and return what was removed, in numbers."""
        return calls.json_of(self._send(calls.Call("DELETE", calls.session_path(session_id))))

    def search(
        self, words: str, *, session_id: str | None = None, kind: str | None = None, limit: int = 20
    ) -> list[dict[str, Any]]:
        """Return messages and code that have all words, each at the beginning of one, the newest first."""
        params = {"q": words, "session_id": session_id, "kind": kind, "limit": limit}
        known = {name: value for name, value in params.items() if value is not None}
        return calls.json_of(self._send(calls.Call("GET", "/api/search", params=known)))["items"]

    # the tenant

    def verify_audit(self, *, seq: int | None = None, digest: str | None = None) -> dict[str, Any]:
        """Have the audit log looked along, and compared with a head that was noted earlier; return what was found."""
        params = {"seq": seq, "digest": digest} if seq is not None and digest is not None else {}
        return calls.json_of(self._send(calls.Call("GET", "/api/audit/verify", params=params)))

    # chat

    def chat(self, session_id: str, message: str, *, queue: bool = False) -> ChatResult:
        """Send a message and wait for the end of its run; with `queue` it may wait for the end of another one first."""
        return calls.model_of(ChatResult, self._send(calls.chat(session_id, message, queue=queue)))

    def stream_chat(self, session_id: str, message: str, *, queue: bool = False) -> Iterator[Event]:
        """Send a message and yield its run's events to `run.finished`.

        A cut stream is taken up where it was, until nothing came for a minute; the message is sent only once.
        With `queue` it may wait for the end of another run, and that one's events come before its own.
        """
        stream = RunStream(session_id, message, self.session(session_id).last_seq, queue=queue)
        while True:
            failure: CarrelClientError | None = None
            try:
                with self._stream(stream.call()) as response:
                    stream.opened(response.headers)
                    for event in _events(response):
                        last = stream.took(event)
                        yield event
                        if last:
                            return
            except CarrelClientError as error:
                failure = error
            time.sleep(stream.pause(failure))

    def events(self, session_id: str, *, after: int = 0, wait: float = 0) -> list[Event]:
        """Return the events after one, waiting some seconds for news when there are none."""
        call = calls.Call("GET", calls.session_path(session_id, "events"), params={"after": after, "wait": wait})
        return calls.models_of(Event, self._send(call))

    def cancel(self, session_id: str, *, run_id: str | None = None) -> str | None:
        """Ask the run that is going on, or that one alone, to stop; return its id."""
        params = {} if run_id is None else {"run": run_id}
        call = calls.Call("POST", calls.session_path(session_id, "cancel"), params=params)
        return calls.json_of(self._send(call))["run_id"]

    def withdraw_message(self, session_id: str, message_id: str) -> None:
        """Withdraw a message that waits for its turn."""
        self._send(calls.Call("DELETE", calls.session_path(session_id, "messages", calls.quoted(message_id))))

    def queued_messages(self, session_id: str) -> list[dict[str, Any]]:
        """Return the messages that wait for the end of the run that is going on, in the order of their turn."""
        return calls.json_of(self._send(calls.Call("GET", calls.session_path(session_id, "messages"))))["queued"]

    def replace_message(self, session_id: str, message_id: str, content: str | None = None) -> ChatResult:
        """Edit a question and have it answered; without `content` have the answer to it made anew."""
        body = {} if content is None else {"content": content}
        call = calls.Call("PUT", calls.session_path(session_id, "messages", message_id), body)
        return calls.model_of(ChatResult, self._send(call))

    def messages(self, session_id: str) -> list[dict[str, Any]]:
        """Return the conversation."""
        return calls.json_of(self._send(calls.Call("GET", calls.session_path(session_id, "messages"))))["items"]

    # kernel

    def execute(
        self,
        session_id: str,
        code: str,
        *,
        timeout_seconds: float | None = None,
        execution_id: str | None = None,
        silent: bool = False,
    ) -> Execution:
        """Run code and wait for its end; within so many seconds."""
        call = calls.execute(
            session_id, code, timeout_seconds=timeout_seconds, execution_id=execution_id, silent=silent
        )
        return calls.model_of(Execution, self._send(call))

    def variables(self, session_id: str) -> list[dict[str, Any]]:
        """Return the kernel's variables."""
        call = calls.Call("GET", calls.session_path(session_id, "kernel", "variables"))
        return calls.json_of(self._send(call))["variables"]

    def kernel(self, session_id: str, action: str | None = None) -> dict[str, Any]:
        """Return the kernel's state; or `interrupt`, `restart` or `reset` it."""
        call = (
            calls.Call("POST", calls.session_path(session_id, "kernel", action))
            if action
            else calls.Call("GET", calls.session_path(session_id, "kernel"))
        )
        return calls.json_of(self._send(call))

    # files

    def upload(self, session_id: str, paths: Iterable[str | os.PathLike[str]]) -> list[Artifact]:
        """Upload files; code finds each at `data/<name>`."""
        parts = calls.opened_files(paths)
        try:
            response = self._guarded(lambda: self._http.post(calls.session_path(session_id, "files"), files=parts))
        finally:
            calls.close_files(parts)
        return calls.models_of(Artifact, response)

    def files(self, session_id: str) -> list[Artifact]:
        """Return the uploaded files."""
        return self._all(Artifact, calls.Call("GET", calls.session_path(session_id, "files")))

    def artifacts(self, session_id: str) -> list[Artifact]:
        """Return the files that code made."""
        return self._all(Artifact, calls.Call("GET", calls.session_path(session_id, "artifacts")))

    def download(self, artifact_id: str, target: str | os.PathLike[str]) -> Path:
        """Write one version of a file to a path, whole or not at all."""
        return self._save(calls.Call("GET", f"/api/artifacts/{artifact_id}"), target)

    def export(self, session_id: str, target: str | os.PathLike[str], *, form: str = "jsonl") -> Path:
        """Write the history to a path, whole or not at all: the log as lines (`jsonl`), or the notebook (`ipynb`)."""
        path = calls.session_path(session_id, "export")
        return self._save(calls.Call("GET", path, params={"format": form}), target)

    def notebook(self, session_id: str) -> dict[str, Any]:
        """Return the session as a notebook (nbformat 4.5)."""
        return calls.json_of(self._send(calls.Call("GET", calls.session_path(session_id, "notebook"))))

    # below

    def _save(self, call: calls.Call, target: str | os.PathLike[str]) -> Path:
        path = Path(target)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(path.name + ".part")
        try:
            with self._stream(call) as response, partial.open("wb") as file:
                for chunk in response.iter_bytes():
                    file.write(chunk)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
        return path

    def _send(self, call: calls.Call) -> httpx.Response:
        while True:
            response = self._guarded(
                lambda: self._http.request(
                    call.method, call.path, json=call.json, params=dict(call.params), headers=dict(call.headers)
                )
            )
            pause = calls.wait_before_again(response)
            if pause is None:
                return response
            time.sleep(pause)  # the session's kernel is not there yet, and nothing has been done

    def _all(self, kind: type[T], call: calls.Call) -> list[T]:
        found: list[T] = []
        following: calls.Call | None = call
        while following is not None:
            response = self._send(following)
            found += calls.models_of(kind, response)
            following = calls.next_page(following, response)
        return found

    def _guarded(self, send: Callable[[], httpx.Response]) -> httpx.Response:
        try:
            return send()
        except httpx.TransportError as error:
            raise calls.connection_failed(error, self._http.base_url) from error

    @contextmanager
    def _stream(self, call: calls.Call) -> Generator[httpx.Response]:
        try:
            with self._http.stream(
                call.method,
                call.path,
                json=call.json,
                params=dict(call.params),
                headers=dict(call.headers),
                timeout=calls.STREAM_TIMEOUT,
            ) as response:
                if not response.is_success:
                    response.read()
                yield calls.check(response)
        except httpx.TransportError as error:
            raise calls.connection_failed(error, self._http.base_url) from error


def _events(response: httpx.Response) -> Iterator[Event]:
    parser = EventParser()
    for chunk in response.iter_bytes():
        for event in parser.feed(chunk):
            yield calls.event_of(event)
