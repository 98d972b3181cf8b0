"""The form of refresh tokens. Pure; whether one is the newest of its login, the database says.

`crf_`, then 88 bytes in base64url: the ids of tenant and login, the generation, 32 random bytes, and a MAC over them.
The MAC tells an old token, which ends its login, from one that somebody made up to end it. Only the SHA-256 is stored.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from carrel_gateway.identity.secrets import MasterKeys

PREFIX: Final = "crf_"
USE: Final = "refresh-tokens"
_RANDOM_BYTES: Final = 32
_MAC_BYTES: Final = 16
_BYTES: Final = 16 + 16 + 8 + _RANDOM_BYTES + _MAC_BYTES
_LENGTH: Final = len(PREFIX) + 118


@dataclass(frozen=True, slots=True)
class RefreshToken:
    """One token, made here."""

    text: str
    tenant_id: UUID
    login_id: UUID
    generation: int

    @property
    def digest(self) -> str:
        """What is stored of it."""
        return hashlib.sha256(self.text.encode()).hexdigest()


class RefreshTokens:
    """Makes them and reads them."""

    def __init__(self, keys: MasterKeys) -> None:
        self._newest = keys.newest.derive(USE)
        self._keys = [key.derive(USE) for key in keys]

    def make(self, tenant_id: UUID, login_id: UUID, generation: int) -> RefreshToken:
        """Return a new one, which nobody can guess."""
        body = tenant_id.bytes + login_id.bytes + generation.to_bytes(8, "big") + secrets.token_bytes(_RANDOM_BYTES)
        text = PREFIX + base64.urlsafe_b64encode(body + _mac(self._newest, body)).decode().rstrip("=")
        return RefreshToken(text, tenant_id, login_id, generation)

    def read(self, text: str) -> RefreshToken | None:
        """Return what a token says; none where it was not made here."""
        if len(text) != _LENGTH or not text.startswith(PREFIX):
            return None
        try:
            raw = base64.b64decode(text[len(PREFIX) :].encode() + b"==", b"-_", validate=True)
        except (binascii.Error, ValueError):
            return None
        body, mac = raw[:-_MAC_BYTES], raw[-_MAC_BYTES:]
        if len(raw) != _BYTES or not any(hmac.compare_digest(mac, _mac(key, body)) for key in self._keys):
            return None
        if base64.urlsafe_b64encode(raw).decode().rstrip("=") != text[len(PREFIX) :]:
            return None  # of several texts that stand for the same bytes one was given out
        return RefreshToken(text, UUID(bytes=body[:16]), UUID(bytes=body[16:32]), int.from_bytes(body[32:40], "big"))


def _mac(key: bytes, body: bytes) -> bytes:
    return hmac.digest(key, body, hashlib.sha256)[:_MAC_BYTES]
