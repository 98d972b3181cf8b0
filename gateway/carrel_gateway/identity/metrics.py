"""Series of identity. Label values are closed sets: kinds of credentials, and outcomes."""

from __future__ import annotations

from typing import Final

from prometheus_client import Counter, Gauge

AUTHENTICATIONS: Final = Counter(
    "carrel_authentications",
    "Callers that were looked at: by kind of what they presented, and whether it was accepted, looked up or not.",
    ["kind", "outcome"],
)
"""`kind`: installation, key, token, ticket, none, unknown. `outcome`: accepted, cached, refused."""
CACHED: Final = Gauge("carrel_principals_cached", "Callers that are known without a look-up.")
