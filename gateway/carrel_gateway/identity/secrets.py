"""The installation's master keys: where they come from, and what is derived from them.

`CARREL_SECRET_KEYS` is `kid:base64,kid:base64`, 32 bytes each. The first one signs and encrypts; the others only verify
and decrypt, so that keys can be exchanged: put a new one in front, and take the old one away when nothing needs it any
more. Without the setting a key is made in the data folder on the first start.

Each use has a key of its own, derived by HKDF (RFC 5869) with the name of the use; so no use can speak for another.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from carrel_gateway.errors import CarrelError
from carrel_gateway.settings import Settings

KEY_BYTES: Final = 32
KEY_FILE: Final = Path("keys") / "secret-keys"
"""Within the data folder."""
_KID: Final = re.compile(r"[A-Za-z0-9_-]{1,32}")
_NONCE_BYTES: Final = 12
_VERSION: Final = b"carrel/v1/"


class SecretKeysUnusable(CarrelError):
    """The master keys cannot be read or made."""

    code = "secret_keys_unusable"


class Unsealable(CarrelError):
    """What was to be decrypted was sealed by a key that is gone, for something else, or is damaged."""

    code = "unsealable"


@dataclass(frozen=True, slots=True)
class MasterKey:
    """One of the installation's keys."""

    kid: str
    key: bytes = field(repr=False)

    def derive(self, use: str) -> bytes:
        """Return the 32 bytes that this key gives for a use."""
        return HKDF(SHA256(), KEY_BYTES, salt=None, info=_VERSION + use.encode()).derive(self.key)


class MasterKeys:
    """All keys in force, the one that signs and encrypts first."""

    def __init__(self, keys: Sequence[MasterKey]) -> None:
        if not keys:
            raise SecretKeysUnusable("CARREL_SECRET_KEYS names no key; write `kid:base64` of 32 bytes")
        self._keys = {key.kid: key for key in keys}
        self._newest = keys[0]
        if len(self._keys) != len(keys):
            raise SecretKeysUnusable("CARREL_SECRET_KEYS names a key twice; every key has an id of its own")

    @property
    def newest(self) -> MasterKey:
        """The key that signs and encrypts."""
        return self._newest

    def __iter__(self) -> Iterator[MasterKey]:
        return iter(self._keys.values())

    def seal(self, use: str, plain: bytes, *, bound_to: str) -> str:
        """Return the plain bytes encrypted and authenticated (AES-256-GCM), as text.

        Parameters
        ----------
        use
            Name of the use; what is sealed for one cannot be opened for another.
        bound_to
            What it belongs to, such as the ids of tenant and row: a copy of it elsewhere cannot be opened there.
        """
        nonce = secrets.token_bytes(_NONCE_BYTES)
        sealed = AESGCM(self._newest.derive(use)).encrypt(nonce, plain, bound_to.encode())
        return f"{self._newest.kid}.{base64.urlsafe_b64encode(nonce + sealed).decode()}"

    def unseal(self, use: str, sealed: str, *, bound_to: str) -> bytes:
        """Return what was sealed.

        Raises
        ------
        Unsealable
            By a key that is gone, for another use or another thing, or it is damaged.
        """
        kid, _, text = sealed.partition(".")
        key = self._keys.get(kid)
        if key is None:
            raise Unsealable("this was encrypted by a key that CARREL_SECRET_KEYS does not name any more")
        try:
            raw = _decoded(text)
            return AESGCM(key.derive(use)).decrypt(raw[:_NONCE_BYTES], raw[_NONCE_BYTES:], bound_to.encode())
        except (ValueError, InvalidTag) as error:
            raise Unsealable("this was encrypted for something else, or is damaged") from error

    def sealed_by_newest(self, sealed: str) -> bool:
        """Return whether something need not be sealed anew."""
        return sealed.partition(".")[0] == self._newest.kid


def _decoded(text: str) -> bytes:
    raw = base64.b64decode(text.encode(), b"-_", validate=True)
    if base64.urlsafe_b64encode(raw).decode() != text:
        raise ValueError("there are bits after the last byte, which decoding leaves out")
    return raw


def load_master_keys(settings: Settings) -> MasterKeys:
    """Return the keys of the settings or else those of the data folder, made when there are none; blocking.

    Raises
    ------
    SecretKeysUnusable
        They cannot be read or made; the message says why and holds nothing of them.
    """
    if settings.secret_keys is not None and settings.secret_keys.get_secret_value():
        return MasterKeys(_parse(settings.secret_keys.get_secret_value()))
    if settings.executor_type == "kubernetes":
        raise SecretKeysUnusable(
            "CARREL_SECRET_KEYS must be set when CARREL_EXECUTOR_TYPE is kubernetes: all gateways need the same keys; "
            "make one with `openssl rand -base64 32` and write it as `k1:<key>`"
        )
    path = settings.data_dir / KEY_FILE
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            text = path.read_text("ascii")
        else:
            text = f"k1:{base64.b64encode(secrets.token_bytes(KEY_BYTES)).decode()}"
            with os.fdopen(handle, "w", encoding="ascii") as file:
                file.write(text + "\n")
    except (OSError, UnicodeDecodeError) as error:
        raise SecretKeysUnusable(
            f"cannot use the key file {path}: {error}; set CARREL_SECRET_KEYS or CARREL_DATA_DIR"
        ) from error
    return MasterKeys(_parse(text))


def _parse(text: str) -> list[MasterKey]:
    return [_parse_one(part.strip()) for part in text.replace("\n", ",").split(",") if part.strip()]


def _parse_one(text: str) -> MasterKey:
    kid, _, encoded = text.partition(":")
    if not _KID.fullmatch(kid):
        raise SecretKeysUnusable(
            "a key of CARREL_SECRET_KEYS has no id; write `kid:base64`, kid of A-Z, a-z, 0-9, _, -"
        )
    try:
        key = base64.b64decode(encoded.replace("-", "+").replace("_", "/").encode(), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != KEY_BYTES:
        raise SecretKeysUnusable(
            f"the key `{kid}` of CARREL_SECRET_KEYS is not the base64 of {KEY_BYTES} bytes; make one with "
            "`openssl rand -base64 32`"
        )
    return MasterKey(kid, key)
