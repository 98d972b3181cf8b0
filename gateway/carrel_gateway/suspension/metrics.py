"""Series of suspensions that the platform asks for."""

from __future__ import annotations

from typing import Final

from prometheus_client import Counter, Gauge, Histogram

REQUESTS: Final = Gauge("carrel_suspension_requests", "Sessions that shall be saved so that their pods can end.")
ATTEMPTS: Final = Counter(
    "carrel_suspension_attempts", "Attempts to save such a session, by reason of the request.", ["reason", "outcome"]
)
SECONDS: Final = Histogram(
    "carrel_suspension_seconds",
    "Time of an attempt that suspended the session.",
    buckets=(0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900),
)
CHECKPOINTS: Final = Counter(
    "carrel_checkpoints", "Snapshots of sessions at rest, and why none was taken.", ["outcome"]
)
CHECKPOINT_SECONDS: Final = Histogram(
    "carrel_checkpoint_seconds",
    "Time to take and store one.",
    buckets=(0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900),
)
WATCH: Final = Gauge("carrel_suspension_watch_up", "Whether this process sees the platform's requests.")
