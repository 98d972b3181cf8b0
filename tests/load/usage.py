"""What a stretch of work costs: CPU time and memory of processes, and writes that the API server noted."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.cluster.bare.processes import recorded
from tests.cluster.provider.bare import BareCluster
from tests.cluster.provider.base import Cluster
from tests.support.audit import AuditLog, Write

from carrel_kernel.limits import cpu_seconds

CONTROL_PLANE = ("kube-apiserver", "etcd", "kube-controller-manager", "kube-scheduler")
SETTLE_SECONDS = 0.3
"""The log has the line of a request a moment after its answer."""


def control_plane(cluster: Cluster) -> dict[str, int]:
    """Return the control plane's processes by name; none where they are not of this host."""
    return {name: recorded(name)[0] for name in CONTROL_PLANE} if isinstance(cluster, BareCluster) else {}


def resident_bytes(pid: int) -> int:
    """Return the resident set of a process. Source: proc(5), `VmRSS`."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    return 0


@dataclass
class Spent:
    """Sums over all windows of one row."""

    writes: list[Write] = field(default_factory=list)
    cpu: Counter[str] = field(default_factory=Counter)
    """Seconds by group of processes."""
    resident: dict[str, int] = field(default_factory=dict)
    """Bytes at the end of the last window."""
    seconds: float = 0.0


class Meter:
    """Measures windows of time."""

    def __init__(self, audit: AuditLog | None, groups: Mapping[str, Mapping[str, int]]) -> None:
        """Take groups of process ids by name; a process that is replaced is told by `set`."""
        self.audit = audit
        self._groups = {name: dict(pids) for name, pids in groups.items()}

    def set(self, group: str, pids: Mapping[str, int]) -> None:
        """Name the processes of a group anew."""
        self._groups[group] = dict(pids)

    @asynccontextmanager
    async def window(self, spent: Spent) -> AsyncIterator[None]:
        """Add what happens meanwhile to `spent`."""
        mark = self.audit.mark() if self.audit is not None else None
        before, began = self._cpu(), time.perf_counter()
        yield
        spent.seconds += time.perf_counter() - began
        for group, seconds in self._cpu().items():
            spent.cpu[group] += seconds - before[group]
        spent.resident = {name: sum(map(resident_bytes, pids.values())) for name, pids in self._groups.items()}
        if self.audit is not None and mark is not None:
            await asyncio.sleep(SETTLE_SECONDS)
            spent.writes += self.audit.since(mark)

    def _cpu(self) -> dict[str, float]:
        return {name: sum(map(cpu_seconds, pids.values())) for name, pids in self._groups.items()}
