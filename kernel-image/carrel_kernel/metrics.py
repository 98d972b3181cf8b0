"""Prometheus series of the kernel host. Labels come from closed sets and hold nothing of a session."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import generate_latest


class Metrics:
    """The series of one host, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.executions = Counter(
            "carrel_kernel_executions", "Executions that finished, by outcome.", ["status"], registry=self.registry
        )
        self.execution_seconds = Histogram(
            "carrel_kernel_execution_seconds",
            "Wall time of executions, without their time in the queue.",
            buckets=(0.005, 0.02, 0.1, 0.5, 2, 10, 60, 300, 1800),
            registry=self.registry,
        )
        self.kernel_starts = Counter(
            "carrel_kernel_starts", "Kernel processes that became ready.", ["spare", "origin"], registry=self.registry
        )
        self.kernel_start_seconds = Histogram(
            "carrel_kernel_start_seconds",
            "From the wish for a kernel to its first answer.",
            buckets=(0.05, 0.1, 0.2, 0.5, 1, 2, 5, 20),
            registry=self.registry,
        )
        self.kernel_restarts = Counter(
            "carrel_kernel_restarts", "Kernel processes that were replaced.", ["reason"], registry=self.registry
        )
        self.signals = Counter(
            "carrel_kernel_signals", "Signals sent by the interrupt ladder.", ["signal"], registry=self.registry
        )
        self.output_bytes = Counter(
            "carrel_kernel_output_bytes", "Bytes of events written to the spool.", registry=self.registry
        )
        self.truncated = Counter(
            "carrel_kernel_truncated", "Executions whose output went over a limit.", ["reason"], registry=self.registry
        )
        self.malformed = Counter(
            "carrel_kernel_malformed_messages", "Messages of kernels that were dropped.", registry=self.registry
        )
        self.late_output = Counter(
            "carrel_kernel_late_output_messages",
            "Messages that threads wrote while no execution ran, and that belong to none.",
            registry=self.registry,
        )
        self.snapshots = Counter(
            "carrel_kernel_snapshots",
            "Snapshots that were taken and restored, by how it went.",
            ["what", "outcome"],
            registry=self.registry,
        )
        self.snapshot_seconds = Histogram(
            "carrel_kernel_snapshot_seconds",
            "Time to take and to restore a snapshot.",
            ["what"],
            buckets=(0.05, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 120),
            registry=self.registry,
        )
        self.snapshot_bytes = Counter(
            "carrel_kernel_snapshot_bytes",
            "Bytes that the snapshots' contents have, whether they had to be moved or not.",
            ["what"],
            registry=self.registry,
        )
        self.refused = Counter(
            "carrel_kernel_requests_refused", "Calls that were refused, by code.", ["code"], registry=self.registry
        )
        self.reaches = Counter(
            "carrel_kernel_reaches", "Connections that were tried before bind, by outcome.", ["outcome"],
            registry=self.registry,
        )  # fmt: skip
        self.closed_port = Counter(
            "carrel_kernel_closed_port_connections",
            "Connections to the closed port: any is one that no network policy stopped.",
            registry=self.registry,
        )
        self.bound = Gauge("carrel_kernel_bound", "Whether the host belongs to a session.", registry=self.registry)
        self.kernels = Gauge("carrel_kernel_kernels", "Kernels that exist.", registry=self.registry)
        self.busy = Gauge("carrel_kernel_busy_kernels", "Kernels that run something.", registry=self.registry)
        self.unacknowledged = Gauge(
            "carrel_kernel_unacknowledged_executions", "Executions with events on the host.", registry=self.registry
        )
        self.spool_bytes = Gauge("carrel_kernel_spool_bytes", "Bytes of events on the host.", registry=self.registry)
        self.connections = Gauge(
            "carrel_kernel_connections", "Open WebSockets and event streams.", registry=self.registry
        )

    def render(self) -> bytes:
        """Return the text format."""
        return generate_latest(self.registry)
