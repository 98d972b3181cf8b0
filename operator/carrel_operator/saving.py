"""When a pod's state is to be saved before the pod ends, and how a gateway is asked for it. Pure.

The operator asks with the condition `SnapshotRequested`; a gateway saves, and answers by writing `spec.snapshot`.
"""

from __future__ import annotations

from typing import Final

from carrel_api.names import SNAPSHOT_FAILURE_ANNOTATION
from carrel_api.session import AgentSession, AgentSessionStatus
from carrel_operator.observed import PodView
from carrel_operator.status import SNAPSHOT_REQUESTED, SUSPENDED, Statement

_MAX_FAILURE: Final = 500
"""Characters of a gateway's words."""


def nothing_to_save(session: AgentSession, pod: PodView | None, *, saves: bool) -> bool:
    """Return whether the session's pod may end as far as its state goes.

    Parameters
    ----------
    session
        With the status that was last written.
    pod
        The pod that it has.
    saves
        Whether there are gateways that save state.
    """
    if pod is None or not pod.live or not saves:
        return True
    saved = session.spec.snapshot
    if saved is not None and saved.pod_uid == pod.uid:
        return True
    return not was_ready(session, pod)  # nobody can have used it: gateways look for the condition Ready


def was_ready(session: AgentSession, pod: PodView) -> bool:
    """Return whether the session was ever ready with this pod."""
    began, status = session.status.start_time, session.status
    return status.pod_uid == pod.uid and began is not None and (pod.had_since is None or began >= pod.had_since)


def requested(session: AgentSession, reason: str, why: str) -> Statement:
    """Return that a gateway is to save the state, and what keeps it from that."""
    failure = session.metadata.annotations.get(SNAPSHOT_FAILURE_ANNOTATION, "")[:_MAX_FAILURE]
    then = f"it could not be saved yet: {failure}" if failure else "a gateway is to save its state"
    return Statement(SNAPSHOT_REQUESTED, "True", reason, f"{why}; {then}")


def suspending(session: AgentSession) -> tuple[Statement, Statement]:
    """Return what is said of a session that waits to be suspended."""
    why = "operatingMode is Suspended, and its pod ends when its state is saved"
    return Statement(SUSPENDED, "False", "Suspending", why), requested(session, "Suspending", why)


def withdrawn(before: AgentSessionStatus, reason: str) -> tuple[Statement, ...]:
    """Return that no state is to be saved, where it had been asked for."""
    return () if before.condition(SNAPSHOT_REQUESTED) is None else (Statement(SNAPSHOT_REQUESTED, "False", reason),)
