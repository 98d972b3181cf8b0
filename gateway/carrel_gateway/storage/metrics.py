"""Series of the bus and of the cache; labels are fixed sets."""

from __future__ import annotations

from typing import Final

from prometheus_client import Counter, Gauge

PUBLISHED: Final = Counter("carrel_bus_published", "News published by this process.")
DELIVERED: Final = Counter(
    "carrel_bus_delivered", "News given to readers of this process, by where they came from.", ["source"]
)
LOSSES: Final = Counter(
    "carrel_bus_losses", "Times that readers were told, or are to be told, that news were lost.", ["reason"]
)
RECONNECTS: Final = Counter("carrel_bus_reconnects", "Times that the bus heard Redis again after a cut.", ["result"])
HEALTHY: Final = Gauge("carrel_bus_healthy", "1 while news of other processes get through, 0 while they do not.")
WINDOW_FALLBACKS: Final = Counter(
    "carrel_rate_fallbacks", "Times that calls began to be counted by this process alone, because Redis was away."
)
CACHE: Final = Counter(
    "carrel_cache", "Looks into the cache, and calls that failed because Redis was away.", ["result"]
)
