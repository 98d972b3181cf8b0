"""One decision's arguments, and what every branch of it needs: the status to say, the pod to take away. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from carrel_api.session import AgentSession, AgentSessionStatus
from carrel_api.session_class import LifeLimits
from carrel_operator.observed import Observed
from carrel_operator.plan import Action, DeletePod, Plan
from carrel_operator.statements import ACTIVE, NO_POD, UNFINISHED, lost, scheduled
from carrel_operator.status import READY, Statement, conditions, ready
from carrel_operator.terminations import Account, lost_since_ready

FORCE_AFTER: Final = timedelta(seconds=60)
"""A pod whose grace period ended so long ago is on a node that does not answer."""


@dataclass(frozen=True)
class Around:
    """A session, what was observed of it, and the present time."""

    wanted: AgentSession
    observed: Observed
    now: datetime
    more: tuple[Statement, ...] = ()
    """Said of the session beside how far it is; in place of what is said otherwise."""

    @property
    def before(self) -> AgentSessionStatus:
        """The status that was last written."""
        return self.wanted.status

    @property
    def limits(self) -> LifeLimits:
        """The class's bounds of a session's life."""
        found = self.observed.session_class
        return found.spec.life if found is not None else LifeLimits()

    # the pod's end

    def pod_removal(self) -> tuple[Action, ...]:
        """Take the pod away, and by force what a dead node keeps."""
        pod = self.observed.pod
        if pod is None:
            return ()
        if pod.deleted_at is None:
            return (DeletePod(pod.name, pod.uid),)
        if self.now >= pod.deleted_at + FORCE_AFTER:
            return (DeletePod(pod.name, pod.uid, force=True),)
        return ()

    def force_after(self) -> float | None:
        """Return the seconds until a pod that is being deleted is taken away by force."""
        pod = self.observed.pod
        if pod is None or pod.deleted_at is None:
            return None
        return max((pod.deleted_at + FORCE_AFTER - self.now).total_seconds(), 1.0)

    # what is said

    def starting(self, counted: Account, how_far: str) -> Statement:
        """Return how far the pod is, and what was lost before it."""
        return self.lost(counted, how_far) if lost_since_ready(self.before, counted) else ready("Starting", how_far)

    def lost(self, counted: Account, then: str) -> Statement:
        """Return how the last kernel host ended, and what follows."""
        before = self.before.condition(READY)
        return lost(counted, then, pod=self.observed.pod, told=before.message if before is not None else "")

    def said(self, statement: Statement, *, counted: Account) -> AgentSessionStatus:
        """Return the status of a session that has, or gets, a pod."""
        others = {other.type: other for other in (ACTIVE, UNFINISHED, *self.more)}
        pod = self.observed.pod if counted.pod_uid else None
        came_from: dict[str, object] = {}
        if pod is None or pod.uid != self.before.pod_uid:
            came_from = {"pool": self.observed.pool if pod is not None else None,
                         "cold_start_reason": self.observed.cold_start_reason}  # fmt: skip
        return self.status(said=(statement, *others.values())).model_copy(
            update={
                "restarts": counted.restarts,
                "last_termination": counted.last,
                "pod_uid": counted.pod_uid,
                "pod_name": pod.name if pod is not None else None,
                **came_from,
            }
        )

    def status(self, *, said: Sequence[Statement], replace_pod: bool = False) -> AgentSessionStatus:
        """Return the status with these conditions, without endpoint; without pod where it is taken away on purpose."""
        pod = self.observed.pod
        gone: dict[str, object] = {"pod_uid": None, "pod_name": None, "node_name": None, "pool": None,
                                   "cold_start_reason": None} if replace_pod else {}  # fmt: skip
        return self.before.model_copy(
            update={
                "conditions": conditions(
                    self.before.conditions,
                    (said[0], NO_POD if replace_pod else scheduled(pod), *said[1:]),
                    generation=self.wanted.metadata.generation,
                    now=self.now,
                ),
                "class_name": self.observed.class_name or None,
                "endpoint": None,
                "node_name": pod.node if pod is not None else None,
                **gone,
            }
        )


def sooner(plan: Plan, left: timedelta) -> Plan:
    """Return the plan, looked at again after this time at the latest."""
    seconds = max(left.total_seconds(), 0.0)
    return replace(plan, after=seconds if plan.after is None else min(plan.after, seconds))
