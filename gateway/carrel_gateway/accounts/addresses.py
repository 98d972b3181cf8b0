"""Addresses of mail: what is one, and the one form in which it is stored and compared. No DNS is asked."""

from __future__ import annotations

from typing import Annotated, Final

from email_validator import EmailNotValidError, validate_email
from pydantic import AfterValidator, StringConstraints

MAX_CHARACTERS: Final = 254


def canonical(text: str) -> str:
    """Return an address in lower case, its domain in ASCII.

    The local part must be ASCII: two letters of different scripts that look alike would be two accounts.

    Raises
    ------
    ValueError
        It is no address of mail.
    """
    try:
        found = validate_email(
            text.strip(), strict=True, check_deliverability=False, globally_deliverable=False, allow_smtputf8=False
        )
    except EmailNotValidError as error:
        raise ValueError(f"this is no address of mail: {error}") from error
    address = (found.ascii_email or found.normalized).lower()
    if len(address) > MAX_CHARACTERS:
        raise ValueError(f"an address of mail has at most {MAX_CHARACTERS} characters")
    return address


def domain_of(address: str) -> str:
    """Return the domain of a canonical address."""
    return address.rpartition("@")[2]


Address = Annotated[str, StringConstraints(min_length=3, max_length=320), AfterValidator(canonical)]
"""A field of a request."""
