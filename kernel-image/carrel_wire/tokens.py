"""Tokens of the calls to a kernel host: JWT signed with Ed25519, five minutes long, for one host and one session.

The host knows public keys only. Each key in its key set says which scopes it may grant at most, so that the
operator's key can bind and ask for state and never run code. Source: RFC 7519, RFC 8037.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping
from typing import Any, Final

import jwt
import msgspec
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

ALGORITHM: Final = "EdDSA"
LIFETIME_SECONDS: Final = 300
LEEWAY_SECONDS: Final = 10
"""Clocks of two machines may differ by this much."""
MAX_TOKEN_LENGTH: Final = 4096
_FORM: Final = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]{85}[AQgw]")
"""Header, claims, and the one way to write 64 bytes of signature: the last of its characters holds two bits."""

BIND: Final = "bind"
STATE: Final = "state"
EXECUTE: Final = "execute"
FILES: Final = "files"
ALL_SCOPES: Final = frozenset({BIND, STATE, EXECUTE, FILES})


class TokenError(Exception):
    """The token is not good for this call; the message says why and holds nothing of the token."""


class PublicKey(msgspec.Struct, frozen=True):
    """One entry of a host's key set."""

    kid: str
    pem: str
    """SubjectPublicKeyInfo of an Ed25519 key."""
    scopes: list[str]
    """What tokens under this key may grant at most."""


class KeySet(msgspec.Struct, frozen=True):
    """The file `keys.json` that a kernel host reads: the keys it trusts, several at a time so that they rotate."""

    keys: list[PublicKey]


class Grant(msgspec.Struct, frozen=True):
    """What a verified token allows."""

    kid: str
    audience: str
    scopes: frozenset[str]
    session_uid: str | None


class _Claims(msgspec.Struct, frozen=True):
    iss: str
    aud: str
    iat: int
    nbf: int
    exp: int
    scopes: list[str]
    session: str | None = None


def generate_private_key() -> str:
    """Return a new Ed25519 private key as PKCS #8 PEM."""
    return (
        Ed25519PrivateKey.generate()
        .private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        .decode()
    )


def public_key_of(private_pem: str) -> str:
    """Return the public half as PEM."""
    key = serialization.load_pem_private_key(private_pem.encode(), password=None)
    return (
        key.public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        .decode()
    )


class Signer:
    """Makes tokens under one private key, and reuses each until a minute before its end."""

    def __init__(self, kid: str, private_pem: str) -> None:
        key = serialization.load_pem_private_key(private_pem.encode(), password=None)
        if not isinstance(key, Ed25519PrivateKey):
            message = f"key {kid!r} must be an Ed25519 private key"
            raise TypeError(message)
        self._kid = kid
        self._key = key
        self._made: dict[tuple[str, str | None, frozenset[str]], tuple[float, str]] = {}

    @property
    def kid(self) -> str:
        """Id of the key, as hosts know it."""
        return self._kid

    def token(self, *, audience: str, session_uid: str | None, scopes: Iterable[str]) -> str:
        """Return a token for one host (`audience`: pod UID or local host id) and, after bind, one session."""
        wanted = frozenset(scopes)
        now = time.time()
        held = self._made.get((audience, session_uid, wanted))
        if held and held[0] - now > LIFETIME_SECONDS / 5:
            return held[1]
        expires = int(now) + LIFETIME_SECONDS
        claims = {
            "iss": self._kid,
            "aud": audience,
            "iat": int(now),
            "nbf": int(now),
            "exp": expires,
            "scopes": sorted(wanted),
            **({"session": session_uid} if session_uid else {}),
        }
        token = jwt.encode(claims, self._key, ALGORITHM, headers={"kid": self._kid})
        if len(self._made) > 10_000:  # hosts come and go; old entries are of no use
            self._made.clear()
        self._made[audience, session_uid, wanted] = (expires, token)
        return token


class Verifier:
    """Checks tokens for one host against its key set."""

    def __init__(self, audience: str, keys: KeySet) -> None:
        self._audience = audience
        self._keys: Mapping[str, tuple[Ed25519PublicKey, frozenset[str]]] = {
            key.kid: (_public(key), frozenset(key.scopes) & ALL_SCOPES) for key in keys.keys
        }

    def verify(self, token: str) -> Grant:
        """Return what the token allows.

        Raises
        ------
        TokenError
            It is malformed, forged, expired, for another host, or under an unknown key.
        """
        if len(token) > MAX_TOKEN_LENGTH:
            raise TokenError("token is too long")
        if not _FORM.fullmatch(token):
            raise TokenError("token is malformed")
        try:
            kid = jwt.get_unverified_header(token).get("kid")
        except jwt.InvalidTokenError as error:
            raise TokenError("token is malformed") from error
        if not isinstance(kid, str) or kid not in self._keys:
            raise TokenError("token is signed by an unknown key")
        key, ceiling = self._keys[kid]
        claims = self._claims(token, key)
        if claims.iss != kid:
            raise TokenError("token is by another issuer than its key's")
        if claims.exp - claims.iat > LIFETIME_SECONDS:
            raise TokenError("token lives longer than allowed")
        granted = frozenset(claims.scopes) & ceiling
        return Grant(kid=kid, audience=self._audience, scopes=granted, session_uid=claims.session)

    def _claims(self, token: str, key: Ed25519PublicKey) -> _Claims:
        try:
            claims: dict[str, Any] = jwt.decode(
                token,
                key,
                algorithms=[ALGORITHM],
                audience=self._audience,
                leeway=LEEWAY_SECONDS,
                options={"require": ["exp", "nbf", "iat", "aud", "iss"]},
            )
            return msgspec.convert(claims, _Claims)
        except jwt.ExpiredSignatureError as error:
            raise TokenError("token has expired") from error
        except jwt.InvalidAudienceError as error:
            raise TokenError("token is for another host") from error
        except jwt.InvalidTokenError as error:
            raise TokenError("token is not valid") from error
        except msgspec.ValidationError as error:
            raise TokenError("token has claims of the wrong type") from error


def _public(key: PublicKey) -> Ed25519PublicKey:
    loaded = serialization.load_pem_public_key(key.pem.encode())
    if not isinstance(loaded, Ed25519PublicKey):
        message = f"key {key.kid!r} must be an Ed25519 public key"
        raise TypeError(message)
    return loaded
