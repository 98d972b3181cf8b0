"""What was seen of kernel hosts before they were bound, and which pods are just being claimed.

In memory: a new process looks again, where it still can.
"""

from __future__ import annotations

from collections.abc import Collection, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field

from carrel_operator.isolation import isolated
from carrel_operator.observed import PodView
from carrel_operator.sight import Sight


@dataclass(frozen=True)
class Seen:
    """One kernel host; another container of the same pod is another one."""

    container_id: str | None
    sight: Sight | None
    """None where nobody was to look."""


@dataclass
class Readiness:
    """Kernel hosts by the UID of their pod."""

    _seen: dict[str, Seen] = field(default_factory=dict[str, Seen])
    _reserved: set[str] = field(default_factory=set[str])
    _looked_at: set[str] = field(default_factory=set[str])

    def note(self, pod: PodView, sight: Sight | None) -> None:
        """Take note of a kernel host that answers, and of what was seen of its isolation."""
        self._seen[pod.uid] = Seen(pod.container_id, sight)

    def sight_of(self, pod: PodView) -> Sight | None:
        """Return the latest look at the kernel host that runs in the pod."""
        seen = self._of(pod)
        return None if seen is None else seen.sight

    @contextmanager
    def looking(self, pod: PodView) -> Generator[None]:
        """Have it known that a look at the pod is under way."""
        self._looked_at.add(pod.uid)
        try:
            yield
        finally:
            self._looked_at.discard(pod.uid)

    def is_looked_at(self, pod: PodView) -> bool:
        """Return whether a look at the pod is under way."""
        return pod.uid in self._looked_at

    def is_ready(self, pod: PodView, *, isolation: bool) -> bool:
        """Return whether a session may have the pod; `isolation`: only if it was seen to be isolated."""
        seen = self._of(pod)
        if seen is None or not pod.live or not pod.running:
            return False
        return not isolation or isolated(seen.sight).status == "True"

    def reserve(self, pod: PodView) -> bool:
        """Keep the pod from other claims of this process; false where another one has it."""
        if pod.uid in self._reserved:
            return False
        self._reserved.add(pod.uid)
        return True

    def release(self, pod: PodView) -> None:
        """Let others claim the pod, if it is still a pool's."""
        self._reserved.discard(pod.uid)

    def keep_only(self, uids: Collection[str]) -> None:
        """Forget all other pods."""
        self._seen = {uid: seen for uid, seen in self._seen.items() if uid in uids}

    def _of(self, pod: PodView) -> Seen | None:
        seen = self._seen.get(pod.uid)
        return seen if seen is not None and seen.container_id == pod.container_id else None
