"""What the kernels of one host have in common: where they run, for whom, and what they may use of the host."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from carrel_kernel.caps import Allowance, Caps
from carrel_kernel.changes import Workspace
from carrel_kernel.live import Binding, Place
from carrel_kernel.metrics import Metrics
from carrel_kernel.process import KernelProcess


@dataclass(frozen=True)
class Surroundings:
    """What all kernels of a host share."""

    place: Place
    binding: Binding
    workspace: Workspace
    metrics: Metrics
    take_spare: Callable[[], Awaitable[tuple[KernelProcess, bool]]]
    max_queue: int
    hung_seconds: float
    caps: Caps
    allowance: Allowance
