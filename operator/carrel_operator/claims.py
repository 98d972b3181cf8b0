"""Which pods of pools a session may have, and why there is none. Pure.

A pod fits when it was made from the very spec that the session's own pod would be made from: then nothing of it is left
to be decided, and everything personal comes with the claim (labels, owner) and with bind (environment, limits).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from carrel_api.session import AgentSession
from carrel_api.session_pool import SessionPool
from carrel_operator.builders.pod import pod_spec, revision_of
from carrel_operator.observed import PodView
from carrel_operator.settlement import Settlement


@dataclass(frozen=True)
class Pooled:
    """A pool and its pods."""

    pool: SessionPool
    pods: Sequence[PodView]


@dataclass(frozen=True)
class Choice:
    """What the pools of a namespace have for one session."""

    candidates: tuple[PodView, ...] = ()
    cold_start_reason: str | None = None
    """Why there is nothing, where a pool of the session's class is there."""


def choose(
    session: AgentSession, settled: Settlement, pools: Sequence[Pooled], is_ready: Callable[[PodView], bool]
) -> Choice:
    """Return the pods that the session may claim, the one that has waited longest first.

    Parameters
    ----------
    session, settled
        What the session gets.
    pools
        Those of its namespace and class.
    is_ready
        Whether a pod's kernel host was seen to be ready for whoever comes.
    """
    if not pools:
        return Choice()
    wanted = revision_of(pod_spec(settled))
    fitting = [pod for pooled in pools for pod in pooled.pods if pod.revision == wanted and pod.live]
    ready = () if session.spec.workspace.type == "Persistent" else tuple(filter(is_ready, fitting))
    if ready:
        return Choice(candidates=tuple(sorted(ready, key=_waiting_since)))
    return Choice(cold_start_reason=_cut(f"started cold: {_why_none(session, pools, fitting)}"))


def _why_none(session: AgentSession, pools: Sequence[Pooled], fitting: Sequence[PodView]) -> str:
    named = ", ".join(pooled.pool.metadata.name for pooled in pools)
    if session.spec.workspace.type == "Persistent":
        return "pods of a pool have no persistent workspace"
    if session.spec.datasets:
        return "pods of a pool have no data sets"
    if fitting:
        return f"no pod of {named} was ready"
    if any(pod.live for pooled in pools for pod in pooled.pods):
        return f"pods of {named} have another image or other resources"
    return f"{named} was exhausted"


def _waiting_since(pod: PodView) -> tuple[str, str]:
    return (pod.running_since.isoformat() if pod.running_since is not None else "", pod.name)


def _cut(text: str) -> str:
    return text if len(text) <= 253 else f"{text[:252]}…"
