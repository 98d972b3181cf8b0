"""Logins of servers, kept in `~/.carrel/logins` between commands: one file each, for this user's eyes alone.

Two commands at once must not exchange the same refresh token: the server would take the second for a thief and end the
login. So a file is locked while its login is looked at, and replaced whole before the new token is used.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Generator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from carrel_cli.errors import CommandError
from carrel_client import Login


class LoginUnusable(CommandError):
    """The file of a login cannot be read or written."""


class StoredLogin:
    """The login of one server."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        name = hashlib.sha256(self.url.encode()).hexdigest()[:32]
        self._path = Path("~/.carrel/logins").expanduser() / f"{name}.json"

    def exists(self) -> bool:
        """Return whether there is one."""
        return self._path.is_file()

    @contextmanager
    def hold(self) -> Generator[Login]:
        """Return the login; other commands wait.

        Raises
        ------
        LoginUnusable
            It is gone, or cannot be read.
        """
        with self._locked():
            try:
                document: dict[str, Any] = json.loads(self._path.read_text("utf-8"))
                document["expires_at"] = datetime.fromisoformat(document["expires_at"])
                login = Login(**document)
            except (OSError, ValueError, TypeError, KeyError) as error:
                raise LoginUnusable(f"the login of {self.url} cannot be read; log in again") from error
            yield login

    def start(self, login: Login) -> None:
        """Keep a new login."""
        with self._locked():
            self.keep(login)

    def keep(self, login: Login) -> None:
        """Put a login in the place of the one before; called while it is held."""
        document = {name: getattr(login, name) for name in Login.__slots__}
        half = self._path.with_suffix(".tmp")
        with os.fdopen(os.open(half, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
            json.dump({**document, "expires_at": login.expires_at.isoformat()}, file)
            file.flush()
            os.fsync(file.fileno())  # the token before it is good for nothing any more
        half.replace(self._path)

    def forget(self) -> None:
        """Remove it."""
        with self._locked():
            self._path.unlink(missing_ok=True)

    @contextmanager
    def _locked(self) -> Generator[Any]:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            handle = os.open(self._path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise LoginUnusable(f"cannot use {self._path.parent}: {error.strerror}") from error
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)
