"""Series of jobs. Label values are fixed sets: kinds that this version knows, and outcomes of attempts."""

from __future__ import annotations

from typing import Final

from prometheus_client import Counter, Gauge, Histogram

FINISHED: Final = Counter("carrel_jobs_finished", "Attempts at jobs that ended here.", ["kind", "outcome"])
SECONDS: Final = Histogram(
    "carrel_job_seconds",
    "Time that an attempt at a job took.",
    ["kind"],
    buckets=(0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60, 300, 600),
)
RUNNING: Final = Gauge("carrel_jobs_running", "Jobs that this process works on.")
LATE_SECONDS: Final = Gauge("carrel_jobs_late_seconds", "How long the job that is due the longest has been due.")
