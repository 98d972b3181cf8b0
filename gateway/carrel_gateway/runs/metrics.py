"""Series of runs that wait; those of runs that go on are the supervisor's."""

from __future__ import annotations

from typing import Final

from prometheus_client import Counter

QUEUED: Final = Counter(
    "carrel_queued_messages_total",
    "Messages that waited for the end of a run, by what came of them: queued, begun, withdrawn, refused.",
    ["outcome"],
)
