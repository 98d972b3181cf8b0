"""The operator's series, with small fixed label sets: no names of sessions, tenants or nodes."""

from __future__ import annotations

from typing import Final

from prometheus_client import Counter, Gauge, Histogram

PASSES: Final = Counter(
    "carrel_operator_passes_total", "Passes over sessions and namespaces, by outcome.", ["kind", "outcome"]
)
PASS_SECONDS: Final = Histogram(
    "carrel_operator_pass_seconds",
    "Duration of one pass.",
    ["kind"],
    buckets=(0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10),
)
API_REQUESTS: Final = Counter(
    "carrel_operator_api_requests_total", "Requests to the API server, by verb, resource and status.",
    ["verb", "resource", "status"],
)  # fmt: skip
HOST_REQUESTS: Final = Counter(
    "carrel_operator_host_requests_total", "Requests to kernel hosts, by call and outcome.", ["call", "outcome"]
)
STATUS_WRITES: Final = Counter("carrel_operator_status_writes_total", "Writes of a session's status.")
PODS_CREATED: Final = Counter("carrel_operator_pods_created_total", "Kernel pods made.")
ORPHANS: Final = Counter("carrel_operator_orphans_deleted_total", "Kernel pods that belonged to nobody.")
TROUBLES: Final = Counter(
    "carrel_operator_troubles_total",
    "Sessions that began to wait for something that somebody must do, by the reason of Ready.",
    ["reason"],
)
EVENTS: Final = Counter("carrel_operator_events_total", "Kubernetes Events about sessions, by outcome.", ["outcome"])
POOL_STATUS_WRITES: Final = Counter("carrel_operator_pool_status_writes_total", "Writes of a pool's status.")
STARTS: Final = Counter(
    "carrel_operator_starts_total", "Pods that sessions got, from a pool (warm) or made for them (cold).", ["kind"]
)
CLAIM_CONFLICTS: Final = Counter(
    "carrel_operator_claim_conflicts_total", "Pods of pools that were no longer as they had been seen."
)
TERMINATIONS: Final = Counter(
    "carrel_operator_terminations_total", "Ends of kernel hosts and pods against the session's will.", ["reason"]
)
START_SECONDS: Final = Histogram(
    "carrel_operator_session_start_seconds",
    "From the first pass over a session that is to have a pod to Ready.",
    ["kind"],
    buckets=(0.01, 0.02, 0.035, 0.05, 0.1, 0.2, 0.5, 1, 1.5, 2, 3, 5, 10, 20, 60, 300),
)
REACHED: Final = Counter(
    "carrel_operator_reached_total", "Connections to the port that nobody but the operator itself may reach."
)
SIGHTS: Final = Counter(
    "carrel_operator_sights_total", "Looks at the isolation of kernel pods, by what came of each connection.",
    ["connection", "outcome"],
)  # fmt: skip
QUEUE_DEPTH: Final = Gauge("carrel_operator_queue_depth", "Keys that wait for a worker.")
QUEUE_WAIT: Final = Gauge("carrel_operator_queue_oldest_wait_seconds", "How long the first of them has waited.")
QUEUE_DELAYED: Final = Gauge("carrel_operator_queue_delayed", "Keys that are due later.")
WATCH_AGE: Final = Gauge("carrel_operator_watch_age_seconds", "How long ago anything was heard by watch.")
WATCH_OWES: Final = Gauge("carrel_operator_watch_owes_seconds", "How long the watch has owed the oldest own write.")
OBJECTS: Final = Gauge("carrel_operator_objects", "Objects that are known, by kind.", ["kind"])
LEADER: Final = Gauge("carrel_operator_leader", "1 where this replica is the one that writes.")
