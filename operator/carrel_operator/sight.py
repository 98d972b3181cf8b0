"""What was seen of a kernel pod's isolation, as a plain value: `sighting` looks, `isolation` draws the conclusions."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from carrel_wire.host import ReachOutcome


@dataclass(frozen=True)
class Sight:
    """What came of the connections of one look at one pod."""

    kernel_port: ReachOutcome
    """Of the operator's to the kernel port."""
    closed_port: ReachOutcome
    """Of the operator's to the closed port."""
    from_pod: ReachOutcome | None
    """Of the pod's to the operator; none where the pod was not asked to try."""
    seen_at: datetime
    not_asked: str = ""
    """Why the pod was not asked, and what to do."""
