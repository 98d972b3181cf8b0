"""The gateway's own Prometheus series, and their listener on a port of its own: `/metrics` is never on the main one.

Label values are fixed sets: route templates, methods, classes of status, statuses of runs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from prometheus_client import Counter, Gauge, Histogram, start_http_server

METHODS: Final = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"})

requests = Counter("carrel_http_requests", "Requests answered.", ["method", "route", "status"])
request_seconds = Histogram(
    "carrel_http_request_seconds",
    "Time from a request's first byte to its answer's last.",
    ["method", "route"],
    buckets=(0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300),
)
websockets = Gauge("carrel_websockets", "Open chat WebSockets.")
streams = Gauge("carrel_event_streams", "Open server-sent event streams.")
slow_readers = Counter("carrel_slow_readers", "Streams cut because their reader took nothing for too long.", ["kind"])
runs_active = Gauge("carrel_runs_active", "Runs that this process is driving.")
runs_finished = Counter("carrel_runs_finished", "Runs that ended here, by status.", ["status"])
runs_taken_over = Counter("carrel_runs_taken_over", "Runs of silent gateways that this process went on with.")
loop_lag_seconds = Gauge(
    "carrel_event_loop_lag_seconds", "How late the event loop came back from a short sleep: the most of half a minute."
)
loop_late_seconds = Histogram(
    "carrel_event_loop_late_seconds",
    "How late the event loop came back from each short sleep.",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5),
)


def serve(host: str, port: int) -> Callable[[], None]:
    """Serve `/metrics` on its own port from a thread, and return what stops it."""
    server, thread = start_http_server(port, addr=host)

    def stop() -> None:
        server.shutdown()
        server.server_close()
        thread.join(timeout=5)

    return stop
