"""Who may call: a bearer token under a key of the key set, for this host, this session and the scope of the route.

The key set is a file that may be replaced at any time (rotation); a broken one leaves the last good one in force.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Final

import msgspec
import structlog

from carrel_kernel.errors import ScopeMissing, Unauthenticated, WrongSession
from carrel_wire.tokens import ALL_SCOPES, BIND, STATE, Grant, KeySet, TokenError, Verifier

_MAX_KEYS_BYTES: Final = 1024 * 1024
_GOOD_SECONDS: Final = 5.0
"""A token is checked again after this time; it is less than the leeway that its end has anyway."""
_MAX_GOOD: Final = 100
_SESSIONLESS: Final = frozenset({BIND, STATE})
"""The operator holds these, and its tokens may name no session."""

_log = structlog.get_logger(__name__)


class KeyFile:
    """The verifier of the key set file, made anew when the file changes."""

    def __init__(self, path: Path, audience: str) -> None:
        self._path = path
        self._file = str(path)
        self._audience = audience
        self._seen: tuple[int, int, int] | None = None
        self._verifier = Verifier(audience, KeySet(keys=[]))
        self._good: dict[str, tuple[float, Grant]] = {}

    def load(self) -> None:
        """Read the file for the first time.

        Raises
        ------
        OSError, msgspec.DecodeError, ValueError, TypeError
            It cannot be read, or is no key set.
        """
        self._seen = self._stamp()
        self._verifier = self._read()

    def verify(self, token: str) -> Grant:
        """Return what a token grants; one that was good a moment ago is not computed again.

        Raises
        ------
        TokenError
            The token is not good.
        """
        verifier = self._verifier_in_force()
        now = time.monotonic()
        known = self._good.get(token)
        if known and now - known[0] < _GOOD_SECONDS:
            return known[1]
        grant = verifier.verify(token)
        if len(self._good) >= _MAX_GOOD:
            self._good.clear()
        self._good[token] = (now, grant)
        return grant

    def _verifier_in_force(self) -> Verifier:
        try:
            stamp = self._stamp()
            if stamp != self._seen:
                self._seen = stamp
                self._verifier = self._read()
                self._good.clear()
                _log.info("key_set_read")
        except (OSError, msgspec.DecodeError, ValueError, TypeError) as error:
            _log.warning("key_set_unreadable", reason=type(error).__name__)
        return self._verifier

    def _stamp(self) -> tuple[int, int, int]:
        # Every call looks, and a path would take longer than the system. It follows the link that a volume swaps.
        status = os.stat(self._file)  # noqa: PTH116  as said
        return status.st_mtime_ns, status.st_ino, status.st_size

    def _read(self) -> Verifier:
        with self._path.open("rb") as file:
            data = file.read(_MAX_KEYS_BYTES)
        return Verifier(self._audience, msgspec.json.decode(data, type=KeySet))


def authenticate(authorization: str | None, keys: KeyFile) -> Grant:
    """Return what the `Authorization` header grants.

    Raises
    ------
    Unauthenticated
        There is no bearer token, or it is not good.
    """
    kind, _, token = (authorization or "").partition(" ")
    if kind.lower() != "bearer" or not token:
        raise Unauthenticated("send a token as `Authorization: Bearer …`")
    try:
        return keys.verify(token.strip())
    except TokenError as error:
        raise Unauthenticated(str(error)) from error


def authorize(grant: Grant, scope: str, bound_to: str | None) -> None:
    """Check that the grant covers a call of a scope, on a host that is bound to a session or to none yet.

    Raises
    ------
    ScopeMissing
        The token or its key does not grant the scope.
    WrongSession
        The token is for another session, or names none where it must.
    """
    if scope not in ALL_SCOPES or scope not in grant.scopes:
        raise ScopeMissing(f"the token does not grant the scope `{scope}`", scope=scope)
    if grant.session_uid is None and scope in _SESSIONLESS:
        return
    if bound_to is not None and grant.session_uid != bound_to:
        raise WrongSession("the token is for another session than the one this host is bound to")
