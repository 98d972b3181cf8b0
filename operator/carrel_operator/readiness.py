"""Which pods of pools were seen to be ready, and which are just being claimed. In memory: a new process looks again."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from carrel_operator.observed import PodView


@dataclass
class Readiness:
    """Pods by UID; another container of the same pod is another kernel host."""

    _ready: dict[str, str | None] = field(default_factory=dict[str, str | None])
    _reserved: set[str] = field(default_factory=set[str])

    def note(self, pod: PodView) -> None:
        """Take note that the kernel host of the pod is ready for whoever comes."""
        self._ready[pod.uid] = pod.container_id

    def is_ready(self, pod: PodView) -> bool:
        """Return whether the kernel host that runs in the pod was seen to be ready."""
        return pod.live and pod.running and pod.uid in self._ready and self._ready[pod.uid] == pod.container_id

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
        self._ready = {uid: container for uid, container in self._ready.items() if uid in uids}
