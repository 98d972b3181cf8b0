"""Series of the history."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from prometheus_client import Counter

from carrel_gateway.history.events import StoredEvent

EVENTS: Final = Counter("carrel_history_events_total", "Events appended to sessions' logs, by type.", ["type"])


def appended(events: Sequence[StoredEvent]) -> None:
    """Count appended events; their types are a closed set."""
    for event in events:
        EVENTS.labels(event.type).inc()
