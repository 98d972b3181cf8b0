"""The key of the installation: where it comes from, and how a presented one is compared.

The embedded default makes a key per installation, so that no web page and no other account of the machine can use the
gateway. Whoever has it is the default user of the default tenant. Keys of users are not here; they are rows.
"""

from __future__ import annotations

import hmac
import os
import secrets
from pathlib import Path

from carrel_gateway.errors import CarrelError
from carrel_gateway.identity.presented import digest_of
from carrel_gateway.settings import Settings

PREFIX = "crl_"


class KeyFileUnusable(CarrelError):
    """The file of the installation's key cannot be read or made."""

    code = "key_file_unusable"


class InstallationKey:
    """The key that the settings or the data folder name; only its hash is kept."""

    def __init__(self, key: str) -> None:
        self._digest = digest_of(key)

    def matches(self, digest: bytes) -> bool:
        """Return whether this is the digest of the key, after the same time whatever it is."""
        return hmac.compare_digest(digest, self._digest)


def installation_key(settings: Settings) -> str | None:
    """Return the key of the settings or, of the embedded product, that of the data folder.

    With Postgres and without a setting there is none: the administrator's first key is a row, as those of others.

    Raises
    ------
    KeyFileUnusable
        The file is empty, or cannot be read or written.
    """
    if settings.api_key is not None and settings.api_key.get_secret_value():
        return settings.api_key.get_secret_value()
    return key_of_folder(settings) if settings.is_embedded else None


def key_of_folder(settings: Settings) -> str:
    """Return the key of the data folder, made when it is not there.

    Raises
    ------
    KeyFileUnusable
        The file is empty, or cannot be read or written.
    """
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
