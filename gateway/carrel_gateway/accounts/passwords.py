"""Passwords: argon2id (RFC 9106) in threads of its own, a few at a time, with the same work for whoever is unknown.

Each hash takes 64 MiB for a moment; so no more than `AT_ONCE` are computed at a time and no more than `WAITING` wait,
and a flood of logins is refused instead of filling the memory.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from carrel_gateway.accounts import metrics
from carrel_gateway.errors import InvalidInput, TooMany

T = TypeVar("T")

MIN_BYTES: Final = 10
MAX_BYTES: Final = 1024
AT_ONCE: Final = 2
WAITING: Final = 32
DEFAULT_HASHER: Final = PasswordHasher(time_cost=3, memory_cost=65_536, parallelism=1)
"""The second choice of RFC 9106, section 4, in one thread: the gateway's other threads have work, too."""


class Passwords:
    """Hashes and verifies, off the event loop."""

    def __init__(
        self, hasher: PasswordHasher = DEFAULT_HASHER, *, at_once: int = AT_ONCE, waiting: int = WAITING
    ) -> None:
        self._hasher = hasher
        self._threads = ThreadPoolExecutor(at_once, "argon2")
        self._slots = asyncio.Semaphore(at_once)
        self._room = at_once + waiting
        self._dummy: str | None = None

    @property
    def threads(self) -> ThreadPoolExecutor:
        """Where the work is done."""
        return self._threads

    async def hash(self, password: str) -> str:
        """Return the hash of a new password.

        Raises
        ------
        InvalidInput
            It is too short, too long, or cannot be written in UTF-8.
        TooMany
            Too many are being computed now.
        """
        require_form(password)
        return await self._run(lambda: self._hasher.hash(password))

    async def verify(self, stored: str | None, password: str) -> bool:
        """Return whether the password is the one of a stored hash; without one it takes as long and is false.

        Raises
        ------
        TooMany
            Too many are being computed now.
        """
        return await self._run(lambda: self._verify(stored, password))

    def is_outdated(self, stored: str) -> bool:
        """Return whether a hash was made with other parameters than those of today."""
        return self._hasher.check_needs_rehash(stored)

    async def aclose(self) -> None:
        """Wait for what is being computed."""
        await asyncio.to_thread(self._threads.shutdown, cancel_futures=True)

    def _verify(self, stored: str | None, password: str) -> bool:
        # What has no right form is compared too, with the same work: a refusal tells nothing about the account.
        presented = password if _has_form(password) else "x" * MIN_BYTES
        if self._dummy is None:
            self._dummy = self._hasher.hash(secrets.token_urlsafe())
        try:
            right = self._hasher.verify(stored or self._dummy, presented)
        except (VerificationError, InvalidHashError):
            return False
        return right and stored is not None and presented == password

    async def _run(self, work: Callable[[], T]) -> T:
        if self._room <= 0:
            metrics.PASSWORDS_REFUSED.inc()
            raise TooMany("too many people are logging in at this moment; try again", retry_after_seconds=2)
        self._room -= 1
        try:
            async with self._slots:
                with metrics.PASSWORD_SECONDS.time():
                    return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        finally:
            self._room += 1


def require_form(password: str) -> None:
    """Check what a new password must have: length alone, as NIST SP 800-63B says; no rules about characters.

    Raises
    ------
    InvalidInput
        It is too short, too long, or cannot be written in UTF-8.
    """
    if not _has_form(password):
        raise InvalidInput(
            f"a password has {MIN_BYTES} to {MAX_BYTES} bytes in UTF-8; several words make a good one",
            code="invalid_password",
        )


def _has_form(password: str) -> bool:
    try:
        return MIN_BYTES <= len(password.encode()) <= MAX_BYTES
    except UnicodeEncodeError:  # a lone surrogate
        return False
