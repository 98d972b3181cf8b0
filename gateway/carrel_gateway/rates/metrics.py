"""Series of the limits of rates."""

from __future__ import annotations

from typing import Final

from prometheus_client import Counter

REFUSED: Final = Counter(
    "carrel_rate_refused", "Calls refused because there were too many, by whose limit it was.", ["limit"]
)
