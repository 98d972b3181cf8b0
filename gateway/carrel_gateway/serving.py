"""Runs the application on its socket: listening, the file that says where, the link for people, and a quiet end.

`server.json` in the data folder lets `carrel run` find a server that is there already; it holds no key.
"""

from __future__ import annotations

import contextlib
import gc
import json
import logging
import os
import socket
import ssl
import sys
import threading
from collections.abc import Callable, Generator
from pathlib import Path
from typing import TYPE_CHECKING, Final

import structlog
import uvicorn
import uvloop
from pydantic import SecretStr

from carrel_gateway import logs
from carrel_gateway.errors import CarrelError
from carrel_gateway.hardening import forbid_memory_access
from carrel_gateway.identity.keys import installation_key, key_of_folder
from carrel_gateway.listener import Connection
from carrel_gateway.main import create_app, drain
from carrel_gateway.settings import Settings

if TYPE_CHECKING:
    from fastapi import FastAPI

_log = structlog.get_logger(__name__)

SERVER_FILE: Final = "server.json"
_GRACE_SECONDS: Final = 10
"""Streams of callers have this long to end; runs do not wait for that, they are handed over."""


class CannotListen(CarrelError):
    """The address is in use, or may not be used."""

    code = "cannot_listen"


class _Server(uvicorn.Server):
    """Tells when it answers, and lets go of streams and runs before it waits for requests."""

    def __init__(self, config: uvicorn.Config, app: FastAPI, ready: _Announcement) -> None:
        super().__init__(config)
        self._app = app
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            # A full collection stops the event loop for as long as it looks at what stays until the end anyway.
            gc.collect()
            gc.freeze()
            self._ready.say(getattr(self._app.state, "first_key", None))

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await drain(self._app)
        await super().shutdown(sockets)


class _Announcement:
    """Says where the server is: to people as a link, to a parent process as one line of JSON."""

    def __init__(self, settings: Settings, url: str, *, child: bool) -> None:
        self._settings = settings
        self._url = url
        self._child = child
        self._file = settings.data_dir / SERVER_FILE

    def say(self, first_key: str | None) -> None:
        _write_private(self._file, json.dumps({"url": self._url, "pid": os.getpid()}))  # before anybody is told
        key = installation_key(self._settings) or first_key
        if first_key:
            sys.stdout.write(
                f"\n  The administrator's key, shown this once: {first_key}\n"
                "  Keep it where secrets are kept. CARREL_API_KEY lets in who has lost it.\n"
            )
        if self._child:
            sys.stdout.write(json.dumps({"url": self._url, "key": key}) + "\n")
        elif self._settings.executor_type == "local":
            sys.stdout.write(
                f"\n  Carrel is ready:  {self._url}/{f'#key={key}' if key else ''}\n"
                f"  API documentation: {self._url}/docs\n"
                "  Code runs as you, on this machine, without isolation. Ctrl-C stops it.\n\n"
            )
        sys.stdout.flush()

    def withdraw(self) -> None:
        with contextlib.suppress(OSError, ValueError, KeyError):
            if json.loads(self._file.read_text())["pid"] == os.getpid():
                self._file.unlink()


def serve(settings: Settings, *, child: bool = False) -> int:
    """Serve until a signal comes or, as a child, until standard input ends; return the exit code.

    Raises
    ------
    CarrelError
        It cannot start: address in use, data folder in use, exposed local executor.
    """
    forbid_memory_access()
    logs.configure(settings)
    for warning in settings.found.warnings:
        _log.warning("settings", warning=warning)
    if child and settings.api_key is None:  # whoever starts a child must know its key, whatever the database
        settings = settings.model_copy(update={"api_key": SecretStr(key_of_folder(settings))})
    app = create_app(settings)
    tls = _tls(settings)
    with _listen(settings) as listener:
        announcement = _Announcement(settings, _url(settings, listener), child=child)
        server = _Server(configuration(app, tls), app, announcement)
        if child:
            threading.Thread(target=_end_with_parent, args=(server,), daemon=True).start()
        logging.getLogger("uvicorn.error").addFilter(lambda _: not hasattr(app.state, "refusal"))
        try:
            with contextlib.suppress(KeyboardInterrupt, SystemExit):  # uvicorn exits by itself when it cannot start
                uvloop.run(server.serve(sockets=[listener]))
        finally:
            announcement.withdraw()
        if hasattr(app.state, "refusal"):
            raise app.state.refusal
        return 0 if server.started else 1


def configuration(app: FastAPI, tls: ssl.SSLContext | None = None) -> uvicorn.Config:
    """Return how the application is served, wherever it listens."""
    return uvicorn.Config(
        app,
        ssl_context_factory=_given(tls) if tls else None,
        http=Connection,
        ws="websockets-sansio",
        ws_ping_interval=20,
        ws_max_size=1024 * 1024,
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=True,
        proxy_headers=False,  # whoever can reach the port could forge them
        timeout_graceful_shutdown=_GRACE_SECONDS,
        lifespan="on",
    )


@contextlib.contextmanager
def _listen(settings: Settings) -> Generator[socket.socket]:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        listener = socket.create_server((settings.host.strip("[]"), settings.port), family=family, backlog=2048)
    except OSError as error:
        raise CannotListen(
            f"cannot listen on {settings.host}:{settings.port}: {_reason(error)}; choose another with --port"
        ) from error
    with listener:
        yield listener


def _tls(settings: Settings) -> ssl.SSLContext | None:
    if settings.tls_cert_file is None or settings.tls_key_file is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)  # TLS 1.2 at least
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(settings.tls_cert_file, settings.tls_key_file)
    except OSError as error:  # an SSLError is one, too
        raise CannotListen(
            f"cannot use CARREL_TLS_CERT_FILE and CARREL_TLS_KEY_FILE: {_reason(error)}; they must be a "
            "certificate and the private key of the same, in PEM"
        ) from error
    return context


def _given(tls: ssl.SSLContext) -> Callable[[uvicorn.Config, Callable[[], ssl.SSLContext]], ssl.SSLContext]:
    return lambda _config, _default: tls


def _reason(error: OSError) -> str:
    return os.strerror(error.errno) if error.errno else str(error)  # `strerror` repeats the address


def _url(settings: Settings, listener: socket.socket) -> str:
    port = listener.getsockname()[1]
    # people read and remember localhost; browsers treat it as the same machine
    name = "localhost" if settings.host in {"127.0.0.1", "localhost", "::1"} else settings.host
    scheme = "https" if settings.tls_cert_file else "http"
    return f"{scheme}://{f'[{name}]' if ':' in name else name}:{port}"


def _write_private(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = path.with_suffix(".tmp")
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
    temporary.replace(path)


def _end_with_parent(server: uvicorn.Server) -> None:
    with contextlib.suppress(OSError):
        while os.read(0, 4096):
            pass
    server.should_exit = True
