"""Decides what one pool needs next: pods to make, pods to take away, what to say. Pure.

Pods of another revision than the class gives now are replaced, a few at a time; nobody can claim them. Beside the pods
that sessions have there are never more than `replicas` and `maxSurge` together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from carrel_api.names import POOL_LABEL, REVISION_LABEL
from carrel_api.session_class import SessionClass
from carrel_api.session_pool import SessionPool, SessionPoolStatus
from carrel_operator.builders.identity import hash_of
from carrel_operator.builders.pod import pool_pod
from carrel_operator.observed import PodView, Said
from carrel_operator.plan import Action, CreatePod, DeletePod, PoolPlan
from carrel_operator.settlement import Refusal, Settlement, settle_pool
from carrel_operator.statements import class_refusal
from carrel_operator.status import EXHAUSTED, READY, Statement, conditions
from carrel_operator.waits import pod_waits, preparing

LONGEST_WAIT: Final = timedelta(minutes=5)
"""Between two tries to replace pods that end by themselves."""


@dataclass(frozen=True)
class PoolObserved:
    """Everything that a decision about a pool is made from, beside the pool itself."""

    class_name: str = ""
    session_class: SessionClass | None = None
    pods: Sequence[PodView] = ()
    """Those that nobody has claimed."""
    ready: frozenset[str] = frozenset()
    """UIDs of those whose kernel host was seen to be ready, in the container that runs."""
    isolation: bool = False
    """Whether a pod is ready only once it was seen to be isolated."""
    unproven: Said | None = None
    """Why one of them that answers is not ready."""
    claimed: int = 0
    failures: int = 0
    """Pods that ended by themselves since the last one became ready."""
    failed_at: datetime | None = None
    failure: Said | None = None
    """What went wrong in carrying out the plan of this pass."""


def reconcile_pool(pool: SessionPool, observed: PoolObserved, now: datetime) -> PoolPlan:
    """Return what to do about the pool."""
    if pool.metadata.deletion_timestamp is not None:
        return PoolPlan()
    found = observed.session_class
    settled = class_refusal(observed.class_name) if found is None else settle_pool(pool.spec, found)
    if isinstance(settled, Refusal):
        return PoolPlan(status=_status(pool, observed, now, Said(settled.reason, settled.message)))
    if observed.failure is not None:
        return PoolPlan(status=_status(pool, observed, now, observed.failure), retry=True)
    return _Numbers.of(pool, settled, observed).plan(pool, settled, observed, now)


@dataclass(frozen=True)
class _Numbers:
    """The pool's pods, sorted by what is to become of them."""

    over: list[PodView]
    """Ended, or restarted: what runs in such a pod may be anything."""
    old: list[PodView]
    new: list[PodView]

    @classmethod
    def of(cls, pool: SessionPool, settled: Settlement, observed: PoolObserved) -> _Numbers:
        revision = pool_pod(pool, settled)["metadata"]["labels"][REVISION_LABEL]
        there = [pod for pod in observed.pods if pod.deleted_at is None]
        over = [pod for pod in there if pod.over or pod.ended is not None]
        live = [pod for pod in there if pod not in over]
        return cls(
            over=over,
            old=[pod for pod in live if pod.revision != revision],
            new=[pod for pod in live if pod.revision == revision],
        )

    def plan(self, pool: SessionPool, settled: Settlement, observed: PoolObserved, now: datetime) -> PoolPlan:
        waiting = _failing_until(observed)
        wait = None if waiting is None or waiting <= now else waiting - now
        missing = pool.spec.replicas - len(self.new)
        room = pool.spec.replicas + pool.spec.max_surge - len(self.new) - len(self.old)
        to_make = max(0, min(missing, room)) if wait is None else 0
        actions: list[Action] = [DeletePod(pod.name, pod.uid) for pod in (*self.over, *self._surplus(pool, observed))]
        actions += [CreatePod(pool_pod(pool, settled)) for _ in range(to_make)]
        asked = [pod for pod in self.new if pod.running and pod.ip is not None and pod.uid not in observed.ready]
        after = [left for pod in self.new if (left := preparing(pod, now)) is not None]
        after += [max(wait.total_seconds(), 1.0)] if wait is not None else []
        return PoolPlan(
            actions=tuple(actions),
            prepare=tuple(asked),
            status=_status(pool, observed, now, self._short(pool, observed, now, wait)),
            after=min(after, default=None),
        )

    def _surplus(self, pool: SessionPool, observed: PoolObserved) -> list[PodView]:
        """Return what there are too many of: those that are not ready first, then the youngest."""
        ready = sum(pod.uid in observed.ready for pod in self.new)
        old = sorted(self.old, key=lambda pod: (pod.uid in observed.ready, pod.name))
        too_many_old = max(0, min(len(old), ready + len(old) - pool.spec.replicas))
        new = sorted(self.new, key=lambda pod: (pod.uid in observed.ready, _age(pod)))
        too_many_new = max(0, len(new) - pool.spec.replicas)
        return [*old[:too_many_old], *new[:too_many_new]]

    def _short(self, pool: SessionPool, observed: PoolObserved, now: datetime, wait: timedelta | None) -> Said | None:
        """Return why fewer pods are ready than wanted; none where enough are."""
        if sum(pod.uid in observed.ready for pod in self.new) >= pool.spec.replicas:
            return None
        if wait is not None:
            return Said("PodsFailing", f"pods of the pool end by themselves; the next one follows in "
                                       f"{wait.total_seconds():.0f} s at most")  # fmt: skip
        if observed.unproven is not None:
            return observed.unproven
        return next(
            (said for pod in self.new if (said := pod_waits(pod, now)) is not None),
            Said("Starting", "pods are starting"),
        )


def _failing_until(observed: PoolObserved) -> datetime | None:
    if not observed.failures or observed.failed_at is None:
        return None
    return observed.failed_at + min(timedelta(seconds=2 ** min(observed.failures, 10)), LONGEST_WAIT)


def _age(pod: PodView) -> float:
    """Return a number that is lower for younger pods."""
    return -pod.made_at.timestamp() if pod.made_at is not None else 0.0


def _status(pool: SessionPool, observed: PoolObserved, now: datetime, short: Said | None) -> SessionPoolStatus:
    live = [pod for pod in observed.pods if pod.live]
    ready = sum(pod.uid in observed.ready for pod in live)
    exhausted = pool.spec.replicas > 0 and ready == 0
    said = (
        Statement(READY, "True", "Ready") if short is None else Statement(READY, "False", short.reason, short.message),
        Statement(EXHAUSTED, "True", "NoneReady", "sessions start cold until a pod is ready")
        if exhausted
        else Statement(EXHAUSTED, "False", "SomeReady" if ready else "NoneWanted"),
    )
    return SessionPoolStatus(
        conditions=conditions(pool.status.conditions, said, generation=pool.metadata.generation, now=now),
        observed_generation=pool.metadata.generation,
        replicas=len(live),
        ready=ready,
        starting=len(live) - ready,
        claimed=observed.claimed,
        selector=f"{POOL_LABEL}={hash_of(pool.metadata.uid)}",
    )
