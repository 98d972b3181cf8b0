"""Series of accounts; no label names a person."""

from __future__ import annotations

from typing import Final

from prometheus_client import Counter, Histogram

LOGINS: Final = Counter("carrel_logins", "Logins, by method and outcome.", ["method", "outcome"])
"""method: password, oidc, setup, switch. outcome: accepted, refused, limited."""
REFRESHES: Final = Counter("carrel_refreshes", "Refreshes of access tokens, by outcome.", ["outcome"])
"""accepted, raced, reused, other_client, refused."""
MAILS: Final = Counter("carrel_mails", "Mails, by kind and outcome.", ["kind", "outcome"])
"""sent, failed, dropped."""
PASSWORD_SECONDS: Final = Histogram(
    "carrel_password_seconds",
    "Time to hash or verify one password.",
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5),
)
PASSWORDS_REFUSED: Final = Counter("carrel_passwords_refused", "Logins refused because too many were being verified.")
