"""One attempt to sign in with an OpenID provider, and what comes of it; who the provider is, is `provider`'s."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass
from typing import Final

import msgspec

from carrel_gateway.errors import Unauthenticated

_VERIFIER_BYTES: Final = 64


@dataclass(frozen=True, slots=True)
class Identity:
    """Whom the provider says that it is."""

    issuer: str
    subject: str
    email: str | None
    email_verified: bool
    name: str | None


class Attempt(msgspec.Struct, frozen=True):
    """What a browser keeps between being sent away and coming back."""

    state: str
    nonce: str
    verifier: str
    expires: int


def new_attempt(seconds: int) -> Attempt:
    """Return a new attempt, whose secrets nobody can guess."""
    return Attempt(
        state=secrets.token_urlsafe(32),
        nonce=secrets.token_urlsafe(32),
        verifier=secrets.token_urlsafe(_VERIFIER_BYTES),
        expires=int(time.time()) + seconds,
    )


def refused(why: str) -> Unauthenticated:
    """Return the refusal of a sign-in; it says what was wrong, and nothing of what was sent."""
    return Unauthenticated(f"signing in did not work: {why}; try again", code="oidc_refused")
