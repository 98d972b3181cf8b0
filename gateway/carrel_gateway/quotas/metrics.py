"""Series of quotas."""

from __future__ import annotations

from typing import Final

from prometheus_client import Counter

REACHED: Final = Counter(
    "carrel_quota_reached", "Requests refused by a quota, by what it is of and whose it is.", ["resource", "scope"]
)
