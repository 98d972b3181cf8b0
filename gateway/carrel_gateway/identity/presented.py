"""The form of what callers present: keys and tickets. Pure; who they belong to, the database says.

`crl_` (key), `crt_` (ticket) or `crs_` (link to a session), then 52 bytes in base64url: the tenant's id, 32 random
bytes, and a CRC-32 of both. The tenant is in it because everything that is looked up has one; the checksum tells a
slip of the hand without a look-up, and scanners of repositories a real key from a look-alike. Only the SHA-256 of the
whole is stored.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import secrets
import zlib
from enum import StrEnum
from typing import Final
from uuid import UUID

MAX_LENGTH: Final = 4096
"""Nothing that is accepted is so long; access tokens are the longest."""
_RANDOM_BYTES: Final = 32
_TENANT_BYTES: Final = 16
_CHECKSUM_BYTES: Final = 4
_BYTES: Final = _TENANT_BYTES + _RANDOM_BYTES + _CHECKSUM_BYTES
_HINT_LENGTH: Final = 4
_OFFER: Final = "carrel.ticket."


class Kind(StrEnum):
    """What something presented is; the value is what it begins with."""

    KEY = "crl_"
    TICKET = "crt_"
    SHARE = "crs_"


def make(kind: Kind, tenant_id: UUID) -> str:
    """Return a new one, which nobody can guess."""
    body = tenant_id.bytes + secrets.token_bytes(_RANDOM_BYTES)
    return kind.value + _text(body + _checksum(kind, body))


def tenant_of(kind: Kind, presented: str) -> UUID | None:
    """Return the tenant that it names; none where it is not of this form, or was mistyped."""
    if not presented.startswith(kind.value):
        return None
    text = presented[len(kind.value) :]
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        return None
    body = raw[:-_CHECKSUM_BYTES]
    # The text is compared, too: of several that stand for the same bytes one was given out.
    if len(raw) != _BYTES or raw[-_CHECKSUM_BYTES:] != _checksum(kind, body) or _text(raw) != text:
        return None
    return UUID(bytes=body[:_TENANT_BYTES])


def digest_of(presented: str) -> bytes:
    """Return the SHA-256 by which it is known."""
    return hashlib.sha256(presented.encode("utf-8", "surrogatepass")).digest()


def hint_of(presented: str) -> str:
    """Return its last characters, by which people tell their keys apart."""
    return presented[-_HINT_LENGTH:]


def bearer(header: str | None) -> str | None:
    """Return what an Authorization header presents, or none."""
    scheme, _, value = (header or "").partition(" ")
    return value.strip() or None if scheme.lower() == "bearer" else None


def from_subprotocols(header: str | None) -> tuple[str | None, str | None]:
    """Return the ticket that a WebSocket client offers as subprotocol, and the subprotocol to answer with.

    Browsers cannot set headers on a WebSocket, and an address is written to logs; a subprotocol is neither.
    """
    offered = [part.strip() for part in (header or "").split(",") if part.strip()]
    ticket = next((part.removeprefix(_OFFER) for part in offered if part.startswith(_OFFER)), None)
    # A browser gives up when it offered subprotocols and none comes back; the one without a secret is preferred.
    answer = next((part for part in offered if part == "carrel.v1"), offered[0] if offered else None)
    return ticket, answer


def _checksum(kind: Kind, body: bytes) -> bytes:
    return zlib.crc32(kind.value.encode() + body).to_bytes(_CHECKSUM_BYTES, "big")


def _text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")
