"""The links in mails: what they carry is encrypted and has a time, and nothing of it is stored.

What a link does can be done once: setting an account up makes the account, and choosing a password changes the hash
that the link was made for.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from typing import Final, TypeVar
from uuid import UUID

import msgspec

from carrel_gateway.accounts.repository import Account
from carrel_gateway.errors import InvalidInput
from carrel_gateway.identity.secrets import MasterKeys, Unsealable
from carrel_gateway.settings import Settings

T = TypeVar("T", bound=msgspec.Struct)

SETUP_HOURS: Final = 24
RESET_MINUTES: Final = 60
INVITE_DAYS: Final = 7
MAX_LENGTH: Final = 2048
_USE: Final = "mail-links"


class Setup(msgspec.Struct, frozen=True):
    """An address that was shown to be somebody's."""

    email: str
    expires: int


class Reset(msgspec.Struct, frozen=True):
    """An account whose password may be chosen, while it is the one of this fingerprint."""

    account: UUID
    fingerprint: str
    expires: int


class Invite(msgspec.Struct, frozen=True):
    """One invitation; until when it is good, its row says."""

    tenant: UUID
    id: UUID


class Links:
    """Makes and reads them."""

    def __init__(self, keys: MasterKeys, settings: Settings, clock: Callable[[], float] = time.time) -> None:
        self._keys = keys
        self._clock = clock
        self._base = public_address(settings)

    @property
    def page(self) -> str:
        """The page on which people log in."""
        return f"{self._base}/account"

    def setup(self, email: str) -> str:
        """Return the link with which an account is set up."""
        token = self._seal("setup", Setup(email, int(self._clock()) + SETUP_HOURS * 3600))
        return f"{self.page}#setup={token}"

    def reset(self, account: Account) -> str:
        """Return the link with which a password is chosen."""
        expires = int(self._clock()) + RESET_MINUTES * 60
        token = self._seal("reset", Reset(account.id, fingerprint(account), expires))
        return f"{self.page}#reset={token}"

    def invite(self, invite: Invite) -> str:
        """Return the link with which an invitation is accepted."""
        return f"{self.page}#invite={self._seal('invite', invite)}"

    def read_invite(self, token: str) -> Invite:
        """Return what the token of such a link says.

        Raises
        ------
        InvalidInput
            It was not made here.
        """
        return self._read("invite", token, Invite)

    def read_setup(self, token: str) -> Setup:
        """Return what the token of such a link says.

        Raises
        ------
        InvalidInput
            It was not made here, or its time is over.
        """
        found = self._read("setup", token, Setup)
        self._require_time(found.expires)
        return found

    def read_reset(self, token: str) -> Reset:
        """Return what the token of such a link says.

        Raises
        ------
        InvalidInput
            It was not made here, or its time is over.
        """
        found = self._read("reset", token, Reset)
        self._require_time(found.expires)
        return found

    def _seal(self, kind: str, content: msgspec.Struct) -> str:
        return self._keys.seal(_USE, msgspec.json.encode(content), bound_to=kind)

    def _read(self, kind: str, token: str, form: type[T]) -> T:
        if len(token) > MAX_LENGTH:
            raise used_up()
        try:
            return msgspec.json.decode(self._keys.unseal(_USE, token, bound_to=kind), type=form)
        except (Unsealable, msgspec.DecodeError, UnicodeEncodeError) as error:
            raise used_up() from error

    def _require_time(self, expires: int) -> None:
        if self._clock() >= expires:
            raise used_up()


def public_address(settings: Settings) -> str:
    """Return what links to this gateway begin with."""
    return (settings.public_url or f"http://{settings.host}:{settings.port}").rstrip("/")


def fingerprint(account: Account) -> str:
    """Return what changes with the password."""
    return hashlib.sha256((account.password_hash or "").encode()).hexdigest()[:32]


def used_up() -> InvalidInput:
    """Return the refusal of a link that does nothing any more."""
    return InvalidInput("this link was used, is too old, or is not whole; have another one sent", code="link_not_valid")
