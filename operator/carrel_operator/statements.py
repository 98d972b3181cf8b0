"""What is said about a session, in words: each statement names the reason and what happens next or what to do. Pure."""

from __future__ import annotations

from typing import Final

from carrel_api.session import AgentSession
from carrel_operator.observed import Observed, PodView
from carrel_operator.settlement import Refusal, egress_refusal
from carrel_operator.status import FINISHED, POD_SCHEDULED, READY, SUSPENDED, Statement, ready
from carrel_operator.terminations import Account

ACTIVE: Final = Statement(SUSPENDED, "False", "Running")
UNFINISHED: Final = Statement(FINISHED, "False", "Running")
NO_POD: Final = Statement(POD_SCHEDULED, "False", "NoPod")

_LOST: Final = ", and with it what was not saved; "
_MAX_WORDS: Final = 500
"""Characters of a kubelet's message: what follows must fit beside it."""
_WHY: Final = {
    "Evicted": "the pod was evicted from its node",
    "NodeLost": "the pod's node was lost",
    "PodDeleted": "the pod was deleted",
}


def bound(wanted: AgentSession, observed: Observed) -> Statement:
    """Return that the session can be worked with."""
    return Statement(READY, "True", "Bound", _egress(wanted, observed))


def lost(counted: Account, then: str, *, pod: PodView | None = None, told: str = "") -> Statement:
    """Return how the last kernel host ended, and what follows.

    Parameters
    ----------
    counted
        Losses up to now.
    then
        What follows.
    pod
        The pod that is seen now: what its kubelet says of its failure is repeated.
    told
        What `Ready` said before: a failed pod's own words outlive it there.
    """
    last = counted.last
    if last is None:
        return ready("Starting", then)
    if last.reason == "OOMKilled":
        why = f"the pod went over its memory limit ({last.memory_limit or 'unknown'})"
    elif last.reason == "Crashed":
        code = "an unknown exit code" if last.exit_code is None else f"exit code {last.exit_code}"
        why = f"the kernel host ended with {code}"
    else:
        why = _WHY.get(last.reason) or _failed(last.reason, pod, told)
    reason = last.reason if last.reason in {"OOMKilled", "Crashed"} else "Starting"
    return ready(reason, f"{why}{_LOST}{then}")


def scheduled(pod: PodView | None) -> Statement:
    """Return whether the pod has a node, in the scheduler's own words."""
    if pod is None:
        return NO_POD
    if pod.scheduled:
        return Statement(POD_SCHEDULED, "True", "Scheduled")
    if pod.unscheduled is not None:
        return Statement(POD_SCHEDULED, "False", pod.unscheduled.reason or "Pending", pod.unscheduled.message)
    return Statement(POD_SCHEDULED, "Unknown", "Pending")


def suspended(wanted: AgentSession, *, gone: bool) -> tuple[Statement, Statement]:
    """Return `Ready` and `Suspended` of a session that is to have no pod."""
    if wanted.spec.snapshot is not None:
        state = "its state is saved, and comes back when a gateway uses the session"
    elif wanted.spec.workspace.type == "Persistent":
        state = "variables are lost, files in the workspace are kept"
    else:
        state = "variables are lost, and so are the files of its ephemeral workspace"
    message = f"suspended: {state}; set operatingMode to Running to go on"
    return ready("Suspended", message), Statement(
        SUSPENDED, "True" if gone else "False", "Suspended" if gone else "Suspending", message
    )


def class_refusal(name: str) -> Refusal:
    """Return why there is no class."""
    if name:
        return Refusal("ClassNotFound", f"className must be an existing SessionClass, and there is no {name!r}")
    return Refusal(
        "ClassNotFound",
        'className must be given, because no SessionClass carries the annotation carrel.dev/is-default-class: "true"',
    )


def _failed(reason: str, pod: PodView | None, told: str) -> str:
    why = f"the pod failed ({reason}"
    if pod is not None and pod.failure is not None and pod.failure.reason == reason and pod.failure.message:
        return f"{why}: {pod.failure.message[:_MAX_WORDS]})"
    before = told.partition(_LOST)[0]
    return before if before.startswith(f"{why}: ") else f"{why})"


def _egress(wanted: AgentSession, observed: Observed) -> str:
    if not wanted.spec.network.egress:
        return ""
    found = observed.session_class
    if found is None:
        return "nothing of network.egress is open, because the session's class is gone"
    refused = egress_refusal(wanted.spec, found.spec, observed.closed)
    return f"nothing is open: {refused.message}" if refused is not None else ""
