"""Series of the history."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from prometheus_client import Counter

from carrel_gateway.history.events import StoredEvent
from carrel_wire.log import ModelCalled

EVENTS: Final = Counter("carrel_history_events_total", "Events appended to sessions' logs, by type.", ["type"])

MODEL_TOKENS: Final = Counter("carrel_model_tokens_total", "Tokens that models read and wrote.", ["direction"])
MODEL_COST: Final = Counter("carrel_model_cost_dollars_total", "US dollars for calls of models whose price is known.")
MODEL_UNPRICED: Final = Counter("carrel_model_unpriced_calls_total", "Calls of models whose price is not known.")


def appended(events: Sequence[StoredEvent]) -> None:
    """Count appended events, whose types are a closed set, and what models took."""
    for event in events:
        EVENTS.labels(event.type).inc()
        if isinstance(event.payload, ModelCalled):
            MODEL_TOKENS.labels("input").inc(event.payload.input_tokens or 0)
            MODEL_TOKENS.labels("output").inc(event.payload.output_tokens or 0)
            if event.payload.cost is None:
                MODEL_UNPRICED.inc()
            else:
                MODEL_COST.inc(event.payload.cost)
