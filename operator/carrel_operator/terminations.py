"""Counts how often a session lost its kernel host, and says how: each end once, however often it is looked at. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from carrel_api.session import AgentSessionStatus, LastTermination
from carrel_operator.observed import Ended, PodView
from carrel_operator.status import READY

STABLE: Final = timedelta(seconds=60)
"""A kernel host that was ready for so long may be replaced at once; others wait longer each time."""
LONGEST_WAIT: Final = timedelta(minutes=5)
MAX_REASON: Final = 63
"""Characters of a reason in status."""
REASONS: Final = frozenset({"OOMKilled", "Crashed", "Evicted", "PodDeleted", "NodeLost"})
"""Those given here; any other one is the kubelet's own word."""


@dataclass(frozen=True)
class Account:
    """Losses up to now."""

    restarts: int
    last: LastTermination | None
    pod_uid: str | None
    """The live pod that the count is about."""


def account(before: AgentSessionStatus, pod: PodView | None, now: datetime) -> Account:
    """Return the count with what the pod shows and status has not counted yet."""
    loss = _loss(before, pod, now)
    return Account(
        restarts=before.restarts + (loss is not None),
        last=loss or before.last_termination,
        pod_uid=pod.uid if pod is not None and pod.live else None,
    )


def replace_at(before: AgentSessionStatus, counted: Account) -> datetime | None:
    """Return when a new pod may be made; none means at once."""
    if counted.last is None:
        return None
    started = before.start_time
    if started is not None and counted.last.time - started >= STABLE and _first(before, counted.last):
        return None
    wait = timedelta(seconds=2 ** min(counted.restarts, 10))
    return counted.last.time + min(wait, LONGEST_WAIT)


def lost_since_ready(before: AgentSessionStatus, counted: Account) -> bool:
    """Return whether the last loss came after the session was last ready."""
    return counted.last is not None and (before.start_time is None or counted.last.time >= before.start_time)


def _first(before: AgentSessionStatus, last: LastTermination) -> bool:
    """Return whether the session was ready up to this loss; what it loses before it is ready again comes later."""
    said = before.condition(READY)
    return said is None or said.status == "True" or last.time <= said.last_transition_time


def _loss(before: AgentSessionStatus, pod: PodView | None, now: datetime) -> LastTermination | None:
    known = before.pod_uid
    if pod is None or pod.uid != known:
        if known is not None:
            return LastTermination(reason="PodDeleted", time=now)
        return _container_loss(before, pod) if pod is not None and pod.live else None
    if pod.live:
        return _container_loss(before, pod)
    if pod.over and pod.ended is not None and _counted(before, pod.ended):
        return None  # its container was seen to end before the pod was
    return LastTermination(
        reason=_pod_reason(pod),
        exit_code=pod.ended.exit_code if pod.ended else None,
        memory_limit=_mebibytes(pod.memory_limit),
        time=now,
    )


def _container_loss(before: AgentSessionStatus, pod: PodView) -> LastTermination | None:
    ended = pod.ended
    if ended is None or _counted(before, ended):
        return None
    return LastTermination(
        reason=_container_reason(pod),
        exit_code=ended.exit_code,
        memory_limit=_mebibytes(pod.memory_limit),
        time=ended.at,
    )


def _counted(before: AgentSessionStatus, ended: Ended) -> bool:
    return before.last_termination is not None and ended.at <= before.last_termination.time


def _container_reason(pod: PodView) -> str:
    return "OOMKilled" if pod.ended is not None and pod.ended.reason == "OOMKilled" else "Crashed"


def _pod_reason(pod: PodView) -> str:
    if pod.disruption is not None:
        return "NodeLost" if pod.disruption.reason == "DeletionByTaintManager" else "Evicted"
    if pod.failure is not None and pod.failure.reason in {"Evicted", "NodeLost"}:
        return pod.failure.reason
    if pod.deleted_at is not None:
        return "PodDeleted"
    if pod.failure is not None and pod.ended is None:
        return pod.failure.reason[:MAX_REASON]  # the kubelet refused it: no container ever ran
    return _container_reason(pod)


def _mebibytes(limit: int | None) -> str | None:
    return None if limit is None else f"{limit // 2**20}Mi"
