"""Access tokens of people who are logged in: JWT signed with Ed25519, minutes long, for one person in one tenant.

A token names its login, so that whoever logs out ends it; whether the login still stands is not looked up here. One
algorithm, keys of this installation alone, and nothing in a token's header is followed. Source: RFC 7519, RFC 8725,
RFC 9068 (the header's `typ`).
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

import jwt
import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from carrel_gateway.errors import Unauthenticated
from carrel_gateway.identity.secrets import MasterKeys
from carrel_gateway.storage.ids import new_id

ALGORITHM: Final = "EdDSA"
ISSUER: Final = "carrel"
AUDIENCE: Final = "carrel-api"
TYPE: Final = "at+jwt"
USE: Final = "access-tokens"
LEEWAY_SECONDS: Final = 10
"""Clocks of two gateways may differ by this much."""
MAX_TOKEN_LENGTH: Final = 2048
MAX_LIFETIME_SECONDS: Final = 3600
"""The longest that the setting allows; a token that says more was not made here."""
_FORM: Final = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]{85}[AQgw]")
"""Header, claims, and the one way to write 64 bytes of signature: the last of its characters holds two bits."""
_HEADER: Final = {"alg", "typ", "kid"}
"""All that a header may hold: no address of keys, no key, no `crit`."""
_REQUIRED: Final = ["iss", "aud", "sub", "iat", "nbf", "exp", "jti"]


@dataclass(frozen=True, slots=True)
class Claims:
    """What a verified token says."""

    tenant_id: UUID
    user_id: UUID
    login_id: UUID
    token_id: UUID
    issued_at: datetime
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class AccessToken:
    """A token that was made."""

    token: str
    expires_at: datetime


class _Payload(msgspec.Struct, frozen=True):
    iss: str
    aud: str
    sub: UUID
    tenant: UUID
    login: UUID
    jti: UUID
    iat: int
    nbf: int
    exp: int


class AccessTokens:
    """Makes access tokens and verifies them."""

    def __init__(self, keys: MasterKeys, *, lifetime_seconds: int, clock: Callable[[], float] = time.time) -> None:
        private = {key.kid: Ed25519PrivateKey.from_private_bytes(key.derive(USE)) for key in keys}
        self._kid = keys.newest.kid
        self._private = private[self._kid]
        self._public: Mapping[str, Ed25519PublicKey] = {kid: key.public_key() for kid, key in private.items()}
        self._lifetime_seconds = lifetime_seconds
        self._clock = clock

    def issue(self, *, tenant_id: UUID, user_id: UUID, login_id: UUID) -> AccessToken:
        """Return a token for one person in one tenant, by one login."""
        now = int(self._clock())
        payload = _Payload(
            iss=ISSUER,
            aud=AUDIENCE,
            sub=user_id,
            tenant=tenant_id,
            login=login_id,
            jti=new_id(),
            iat=now,
            nbf=now,
            exp=now + self._lifetime_seconds,
        )
        claims: dict[str, Any] = msgspec.to_builtins(payload)
        token = jwt.encode(claims, self._private, ALGORITHM, headers={"kid": self._kid, "typ": TYPE})
        return AccessToken(token, datetime.fromtimestamp(payload.exp, UTC))

    def verify(self, token: str) -> Claims:
        """Return what the token says.

        Raises
        ------
        Unauthenticated
            It has expired (`token_expired`), or is not one of this installation's tokens (`wrong_token`). The message
            holds nothing of the token.
        """
        if len(token) > MAX_TOKEN_LENGTH or not _FORM.fullmatch(token):
            raise _wrong()
        payload = self._payload(token, self._key_of(token))
        now = self._clock()
        if payload.nbf > now + LEEWAY_SECONDS or payload.iat > now + LEEWAY_SECONDS:
            raise _wrong()
        if payload.exp <= now:
            raise Unauthenticated(
                "that access token has expired; get a new one with POST /api/auth/refresh", code="token_expired"
            )
        return Claims(
            tenant_id=payload.tenant,
            user_id=payload.sub,
            login_id=payload.login,
            token_id=payload.jti,
            issued_at=datetime.fromtimestamp(payload.iat, UTC),
            expires_at=datetime.fromtimestamp(payload.exp, UTC),
        )

    def _key_of(self, token: str) -> Ed25519PublicKey:
        try:
            header = jwt.get_unverified_header(token)
        except jwt.InvalidTokenError as error:
            raise _wrong() from error
        kid = header.get("kid")
        if set(header) != _HEADER or header["alg"] != ALGORITHM or header["typ"] != TYPE or not isinstance(kid, str):
            raise _wrong()
        key = self._public.get(kid)
        if key is None:
            raise _wrong()
        return key

    def _payload(self, token: str, key: Ed25519PublicKey) -> _Payload:
        try:
            claims: dict[str, Any] = jwt.decode(
                token,
                key,
                algorithms=[ALGORITHM],
                audience=AUDIENCE,
                issuer=ISSUER,
                # The times are compared above, with this object's clock.
                options={"require": _REQUIRED, "verify_exp": False, "verify_nbf": False, "verify_iat": False},
            )
            payload = msgspec.convert(claims, _Payload)
        except (jwt.InvalidTokenError, msgspec.ValidationError) as error:
            raise _wrong() from error
        if not 0 < payload.exp - payload.nbf <= MAX_LIFETIME_SECONDS or payload.nbf < payload.iat:
            raise _wrong()
        return payload


def is_token(presented: str) -> bool:
    """Return whether a credential has the form of an access token, which no API key has."""
    return presented.count(".") == 2


def _wrong() -> Unauthenticated:
    return Unauthenticated("that access token is not valid here; log in again", code="wrong_token")
