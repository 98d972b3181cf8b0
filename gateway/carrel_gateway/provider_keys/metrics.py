"""Series of keys of model providers."""

from __future__ import annotations

from typing import Final

from prometheus_client import Counter

USES: Final = Counter(
    "carrel_provider_key_uses", "Looks for the key of a model's provider, by whose was found.", ["scope"]
)
