"""Finds the gateway to talk to: the one that was named, one that is running here, or one started for this command.

A started one is a process of its own (`python -m carrel_gateway --child`): it says on its standard output where it
listens and which key it takes, and ends when its standard input does, so it never outlives the command.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections import defaultdict
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, Queue
from typing import Any, Final

import httpx

from carrel_cli.errors import NoServer, Usage
from carrel_cli.logins import StoredLogin
from carrel_client import Client
from carrel_gateway.sources.choosing import Names, choose
from carrel_gateway.sources.names import names_of
from carrel_gateway.sources.reading import ENV_FILES, InvalidSettings, read_layers

START_SECONDS: Final = 60.0
"""A first start makes the database; on a slow disk that and the imports take seconds."""
STOP_SECONDS: Final = 20.0
_NAMES: Final = Names({name: names_of(name) for name in ("data_dir", "models", "log_level", "log_format")}, frozenset())


@dataclass(frozen=True, slots=True)
class Server:
    """Where a gateway is, and the key or the login that it takes."""

    url: str
    key: str | None
    started_here: bool = False
    process: subprocess.Popen[bytes] | None = None
    login: StoredLogin | None = None

    def client(self) -> Client:
        """Return a client of it."""
        return Client(self.url, self.key, login=self.login)


def data_folder(given: Path | None) -> Path:
    """Return the data folder that is meant, as the gateway would.

    Raises
    ------
    Usage
        A file of settings cannot be read.
    """
    named = _said()["data_dir"] if given is None else None
    return (given or Path(named or "~/.carrel")).expanduser().absolute()


def _said() -> defaultdict[str, Any]:
    """Return what is said of the settings that matter here, wherever it is said."""
    try:
        return defaultdict(lambda: None, choose(_NAMES, read_layers(ENV_FILES)).values)
    except InvalidSettings as error:
        raise Usage(error.message) from error


@contextmanager
def gateway(url: str | None, data_dir: Path | None, *, model: str | None = None, port: int = 0) -> Generator[Server]:
    """Yield a gateway; one that is started for it is stopped at the end.

    Raises
    ------
    NoServer
        The named one does not answer, or none could be started.
    """
    if url is not None:
        address = checked(url.rstrip("/"))
        key = os.environ.get("CARREL_API_KEY")
        stored = StoredLogin(address)
        yield Server(address, key, login=stored if not key and stored.exists() else None)
        return
    running = running_server(data_folder(data_dir))
    if running is not None:
        yield running
        return
    with _started(data_dir, model, port) as server:
        yield server


def running_server(folder: Path) -> Server | None:
    """Return the gateway that serves this data folder, if one does and answers."""
    try:
        url = str(json.loads((folder / "server.json").read_text())["url"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if not _answers(url):
        return None
    return Server(url, os.environ.get("CARREL_API_KEY") or _key_in(folder))


def _key_in(folder: Path) -> str | None:
    try:
        return (folder / "key").read_text("ascii").strip() or None
    except (OSError, UnicodeDecodeError):
        return None


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", timeout=3.0).is_success
    except (httpx.HTTPError, httpx.InvalidURL):
        return False


def checked(url: str) -> str:
    """Return the address of a server that answers.

    Raises
    ------
    NoServer
        It is no address, or nothing answers there.
    """
    if not url.startswith(("http://", "https://")):
        raise NoServer(f"{url} is no address of a server; it begins with http:// or https://")
    if not _answers(url):
        raise NoServer(f"no Carrel server answers at {url}")
    return url


@contextmanager
def _started(data_dir: Path | None, model: str | None, port: int) -> Generator[Server]:
    command = [sys.executable, "-m", "carrel_gateway", "--child", "--host", "127.0.0.1", "--port", str(port)]
    if data_dir is not None:
        command += ["--data-dir", str(data_dir)]
    environment = _environment(model)
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)  # noqa: S603 - own interpreter, own module
    try:
        ready = _first_line(process)
        yield Server(ready["url"], ready["key"], started_here=True, process=process)
    finally:
        _stop(process)


def _environment(model: str | None) -> dict[str, str]:
    """Return that of a gateway that is started here: quiet, where nothing else is said, and with this model."""
    said = _said()
    quiet = {"log_level": "error", "log_format": "console"}
    environment = {**os.environ, **{f"CARREL_{name.upper()}": value for name, value in quiet.items() if not said[name]}}
    if model is not None:  # the person at the terminal is the administrator of this gateway
        others: Any = said["models"] or []
        named = [others] if isinstance(others, str) else [str(one) for one in others]
        environment["CARREL_MODELS"] = ",".join([model, *named])
    return environment


def _first_line(process: subprocess.Popen[bytes]) -> dict[str, Any]:
    lines: Queue[bytes] = Queue()
    output = process.stdout
    if output is None:
        raise NoServer("the gateway could not be started")
    threading.Thread(target=lambda: lines.put(output.readline()), daemon=True).start()
    try:
        line = lines.get(timeout=START_SECONDS)
    except Empty:
        raise NoServer(f"the gateway did not start within {START_SECONDS:g} s") from None
    if not line:
        raise NoServer("the gateway could not be started; see above")
    return json.loads(line)


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.stdin is not None:
        process.stdin.close()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()
