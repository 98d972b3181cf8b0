"""The one API key of this form of Carrel: where it comes from, and how a presented one is compared.

The embedded default makes a key per installation, so that no web page and no other account of the machine can use the
gateway. There are no accounts here yet: whoever has the key is the default user of the default tenant.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from pathlib import Path

from carrel_gateway.errors import CarrelError, Unauthenticated
from carrel_gateway.settings import Settings

PREFIX = "crl_"
MAX_KEY_LENGTH = 512


class KeyFileUnusable(CarrelError):
    """The file of the installation's key cannot be read or made."""

    code = "key_file_unusable"


class ApiKey:
    """A key that callers must present; only its hash is kept."""

    def __init__(self, key: str) -> None:
        self._digest = _digest(key)

    def verify(self, presented: str | None) -> None:
        """Compare in constant time.

        Raises
        ------
        Unauthenticated
            No key, or another one; the message says which.
        """
        if not presented:
            raise Unauthenticated(
                "this needs the API key: send `Authorization: Bearer <key>` (the key is in the link that "
                "`carrel serve` prints, and in the file `key` of the data folder)",
            )
        if len(presented) > MAX_KEY_LENGTH or not hmac.compare_digest(_digest(presented), self._digest):
            raise Unauthenticated("that API key is not known here", code="wrong_key")


def installation_key(settings: Settings) -> str:
    """Return the key of the settings or, when there is none, that of the data folder, made when it is not there.

    Raises
    ------
    KeyFileUnusable
        The file is empty, or cannot be read or written.
    """
    if settings.api_key is not None and settings.api_key.get_secret_value():
        return settings.api_key.get_secret_value()
    path = key_file(settings)
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        key = PREFIX + secrets.token_urlsafe(32)
        try:
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            key = path.read_text("ascii").strip()
        else:
            with os.fdopen(handle, "w", encoding="ascii") as file:
                file.write(key + "\n")
    except (OSError, UnicodeDecodeError) as error:
        raise KeyFileUnusable(
            f"cannot use the key file {path}: {error}; set CARREL_API_KEY or CARREL_DATA_DIR"
        ) from error
    if not key:
        raise KeyFileUnusable(f"the key file {path} is empty; delete it and start again")
    return key


def key_file(settings: Settings) -> Path:
    """Return the path of the installation's key."""
    return settings.data_dir / "key"


def bearer(header: str | None) -> str | None:
    """Return the key of an Authorization header, or none."""
    scheme, _, value = (header or "").partition(" ")
    return value.strip() or None if scheme.lower() == "bearer" else None


def from_subprotocols(header: str | None) -> tuple[str | None, str | None]:
    """Return the key that a WebSocket client offers as subprotocol, and the subprotocol to answer with.

    Browsers cannot set headers on a WebSocket, and an address is written to logs; a subprotocol is neither.
    """
    offered = [part.strip() for part in (header or "").split(",") if part.strip()]
    key = next((part.removeprefix("carrel.key.") for part in offered if part.startswith("carrel.key.")), None)
    # A browser gives up when it offered subprotocols and none comes back; the one without the key is preferred.
    answer = next((part for part in offered if part == "carrel.v1"), offered[0] if offered else None)
    return key, answer


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()
