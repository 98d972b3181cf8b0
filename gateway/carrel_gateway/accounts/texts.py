"""What the mails say. Plain text; nothing that a stranger wrote is in them, so nobody can send a message by them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Kind(StrEnum):
    """Why a mail is sent: the closed set that metrics have."""

    VERIFY = "verify"
    KNOWN = "known"
    RESET = "reset"
    PROVIDER = "provider"
    CHANGED = "changed"
    INVITE = "invite"


@dataclass(frozen=True, slots=True)
class Mail:
    """One mail to one person."""

    kind: Kind
    to: str
    subject: str
    text: str


_FOOT: Final = "\n\nIf you did not ask for this, do nothing: without this link nobody can do it for you.\n"


def verify(to: str, link: str, hours: int) -> Mail:
    """Return the mail that lets a person set an account up."""
    text = f"Set up your account of Carrel here; the link works for {hours} hours, once:\n\n{link}{_FOOT}"
    return Mail(Kind.VERIFY, to, "Set up your account of Carrel", text)


def known(to: str, link: str) -> Mail:
    """Return the mail to who registers and has an account."""
    text = (
        f"Somebody, probably you, wanted to register with this address. You have an account already; log in here:\n\n"
        f"{link}\n\nThere you can also have a link sent with which you choose another password.\n"
    )
    return Mail(Kind.KNOWN, to, "You have an account of Carrel", text)


def reset(to: str, link: str, minutes: int) -> Mail:
    """Return the mail that lets a person choose another password."""
    text = f"Choose a password for Carrel here; the link works for {minutes} minutes, once:\n\n{link}{_FOOT}"
    return Mail(Kind.RESET, to, "Choose a password for Carrel", text)


def provider(to: str, link: str) -> Mail:
    """Return the mail to who has no password because another server says who they are."""
    text = (
        "Somebody, probably you, wanted to choose another password for Carrel. Your account has none: you sign in with "
        f"your organization's account, here:\n\n{link}\n"
    )
    return Mail(Kind.PROVIDER, to, "How you log in to Carrel", text)


def invite(to: str, link: str, days: int) -> Mail:
    """Return the mail that invites a person into a tenant."""
    text = f"You are invited to work with others in Carrel. The link works for {days} days, once:\n\n{link}\n"
    return Mail(Kind.INVITE, to, "You are invited to Carrel", text)


def changed(to: str, link: str) -> Mail:
    """Return the mail that tells that a password is another one now."""
    text = (
        "The password of your account of Carrel was changed, and all other logins were ended. If it was not you, "
        f"choose another one at once:\n\n{link}\n"
    )
    return Mail(Kind.CHANGED, to, "Your password of Carrel was changed", text)
