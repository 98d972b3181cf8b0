"""Series of idempotency keys."""

from __future__ import annotations

from typing import Final

from prometheus_client import Counter

KEYS: Final = Counter(
    "carrel_idempotency_keys_total",
    "Idempotency keys by what came of them: claimed, replayed, in_progress, reused, unknown, not_kept.",
    ["outcome"],
)
