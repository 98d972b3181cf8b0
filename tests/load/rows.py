"""One line of the operator's tables: samples and what they cost, as numbers and as Markdown. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.load.usage import Spent
from tests.support.audit import Write

HEAD = (
    "work", "times", "p50", "p95", "p99", "the operator's writes (and events)", "all components' writes (and events)",
    "CPU of the operator", "CPU of the control plane", "operator's memory", "target",
)  # fmt: skip
EVENTS = "events"
NOTHING = "-"
"""In a cell of what is not measured."""


def quantile(samples: Sequence[float], share: float) -> float:
    """Return the sample that this share does not exceed (nearest rank)."""
    ordered = sorted(samples)
    return ordered[max(math.ceil(len(ordered) * share) - 1, 0)]


@dataclass
class Row:
    """One kind of work, done several times."""

    work: str
    target: str = ""
    samples: list[float] = field(default_factory=list)
    """Seconds of each time."""
    spent: Spent = field(default_factory=Spent)
    operator: str = ""
    """User under which the operator writes."""
    client: str = ""
    """User under which the bench writes; its writes are the question and not the answer."""
    own_objects: set[str] = field(default_factory=set)
    """Names of the sessions and of the pods that they got; empty where nothing else is written meanwhile."""
    made_before: bool = False
    """Whether those pods were there before: making another one is then not for the session."""

    def own(self) -> list[Write]:
        """Return what the operator wrote, but for its lease and for Events, which it tells people things with."""
        return [write for write in self._by_operator() if write.resource != EVENTS]

    def _by_operator(self) -> list[Write]:
        return [write for write in self.spent.writes if write.user == self.operator and write.resource != "leases"]

    def own_for_sessions(self) -> list[Write]:
        """Return what of it was for the sessions themselves."""
        makes = {("create", "pods")} if self.made_before else set[tuple[str, str]]()
        return [
            write for write in self.own()
            if write.name in self.own_objects and (write.verb, write.resource) not in makes
        ]  # fmt: skip

    def everybody(self) -> list[Write]:
        """Return what all components wrote for it: in the namespaces of the bench, or by the operator."""
        namespaces = {write.namespace for write in self.own()}
        return [
            write for write in self.spent.writes
            if write.user != self.client and write.resource != "leases" and write.namespace in namespaces
        ]  # fmt: skip

    def markdown(self) -> str:
        """Return the line of the table."""
        times = max(len(self.samples), 1)
        return "| " + " | ".join([
            self.work,
            str(len(self.samples)),
            *(milliseconds(quantile(self.samples, share)) if self.samples else NOTHING for share in (0.5, 0.95, 0.99)),
            self._writes(times),
            self._all_writes(times),
            *(self._cpu(group, times) for group in ("operator", "control plane")),
            self._memory(),
            self.target,
        ]) + " |"  # fmt: skip

    def _writes(self, times: int) -> str:
        if not self.operator or not self.spent.writes:
            return NOTHING
        every = f"{len(self.own()) / times:.1f}"
        alone = f"{len(self.own_for_sessions()) / times:.1f}"
        events = f"{(len(self._by_operator()) - len(self.own())) / times:.1f}"
        return f"{alone}, {every} with the replacement ({events})" if self.made_before else f"{every} ({events})"

    def _all_writes(self, times: int) -> str:
        if not self.operator or not self.spent.writes:
            return NOTHING
        found = self.everybody()
        events = sum(write.resource == EVENTS for write in found)
        return f"{(len(found) - events) / times:.1f} ({events / times:.1f})"

    def _memory(self) -> str:
        resident = self.spent.resident.get("operator") if self.operator else None
        return NOTHING if resident is None else f"{resident / 2**20:.0f} MiB"

    def _cpu(self, group: str, times: int) -> str:
        seconds = self.spent.cpu.get(group)
        return NOTHING if seconds is None else f"{seconds / times * 1000:.0f} ms"


def milliseconds(seconds: float) -> str:
    """Return seconds for the table."""
    return f"{seconds * 1000:.0f} ms" if seconds < 10 else f"{seconds:.1f} s"


def table(head: Sequence[str], lines: Sequence[str]) -> str:
    """Return a Markdown table of lines that are Markdown already."""
    return "\n".join(["| " + " | ".join(head) + " |", "|---" * len(head) + "|", *lines])
