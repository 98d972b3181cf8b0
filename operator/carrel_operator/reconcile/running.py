"""Decides what a session needs that has a pod, or is to have one: claimed or made, bound, ready, idle. Pure."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from carrel_api.names import KERNEL_PORT
from carrel_api.session import AgentSessionStatus
from carrel_operator.builders.identity import egress_policy_name
from carrel_operator.builders.network_policy import egress_policy
from carrel_operator.builders.pod import kernel_pod
from carrel_operator.builders.volume import workspace_claim
from carrel_operator.lifetimes import idle_timeout
from carrel_operator.observed import PodView, Said
from carrel_operator.plan import (
    Action,
    ApplyEgress,
    AskState,
    Bind,
    ClaimPod,
    CreateClaim,
    CreatePod,
    DeleteEgress,
    Look,
    Plan,
    PrepareNamespace,
)
from carrel_operator.reconcile.around import Around
from carrel_operator.reconcile.ending import finish
from carrel_operator.reconcile.isolating import LOOK_AGAIN, is_required, isolation_of, looks_first
from carrel_operator.saving import requested, withdrawn
from carrel_operator.settlement import Refusal, egress_refusal, settle
from carrel_operator.statements import bound, class_refusal
from carrel_operator.status import SNAPSHOT_REQUESTED, Statement, ready
from carrel_operator.terminations import Account, account, lost_since_ready, replace_at
from carrel_operator.waits import pod_waits, preparing
from carrel_wire.host import BindRequest

STARTING: Final = "its pod is starting"
"""One text up to Ready: each other text would be one more write."""
BIND_AGAIN: Final = 0.25
"""Seconds; a kernel host listens about a second after its container started."""
ASK_AGAIN: Final = 30.0
"""Seconds until a host is asked again whether it idles: one that did not answer, or whose state is being saved."""


def decide_running(around: Around) -> Plan:
    """Return what the session needs to be worked with."""
    pod = around.observed.pod
    if pod is None:
        return _start(around)
    counted = account(around.before, pod, around.now)
    if not pod.live:
        status = around.said(around.lost(counted, "a new pod follows"), counted=counted)
        return Plan(actions=around.pod_removal(), status=status, after=around.force_after())
    around = replace(around, more=(*around.more, isolation_of(around, pod)))
    return _with_egress(around, _follow(around, pod, counted))


def memory_for_kernels(limit: int | None) -> int | None:
    """Return the bytes that kernels may use of a container's limit; the rest is for the kernel host itself."""
    if limit is None:
        return None
    reserve = max(128 * 2**20, limit // 8)
    return limit - min(reserve, limit // 2)


def endpoint_of(address: str) -> str:
    """Return `host:port` of the kernel host in the pod with this address."""
    return f"[{address}]:{KERNEL_PORT}" if ":" in address else f"{address}:{KERNEL_PORT}"


# no pod yet


def _start(around: Around) -> Plan:
    wanted, observed = around.wanted, around.observed
    counted = account(around.before, None, around.now)
    found = observed.session_class
    settled = class_refusal(observed.class_name) if found is None else settle(wanted.spec, found, observed.closed)
    if isinstance(settled, Refusal):
        return Plan(status=around.said(ready(settled.reason, settled.message), counted=counted))
    failure = observed.failure
    if failure is not None:
        return Plan(status=around.said(ready(failure.reason, failure.message), counted=counted), retry=True)
    at = replace_at(around.before, counted)
    if at is not None and at > around.now:
        wait = (at - around.now).total_seconds()
        said = around.lost(counted, f"a new pod follows in {wait:.0f} s at most")
        return Plan(status=around.said(said, counted=counted), after=wait)
    status = around.said(around.starting(counted, STARTING), counted=counted)
    before = (PrepareNamespace(), *_egress_actions(around))
    if observed.candidates:
        return Plan(actions=(*before, ClaimPod(observed.candidates)), status=status)
    volume = (CreateClaim(workspace_claim(wanted, settled)),) if wanted.spec.workspace.type == "Persistent" else ()
    return Plan(
        actions=(*before, *volume, CreatePod(kernel_pod(wanted, settled, observed.cold_start_reason))), status=status
    )


# on its way


def _follow(around: Around, pod: PodView, counted: Account) -> Plan:
    """Say how far the pod is; bind its kernel host when it runs."""
    if pod.running and pod.ip is not None:
        endpoint = endpoint_of(pod.ip)
        if _is_bound(around, pod, endpoint, counted):
            return _ready(around, pod, endpoint, counted)
        return _bind(around, pod, endpoint, counted)
    if pod.waiting is not None and pod.waiting.reason == "CrashLoopBackOff":
        return Plan(status=around.said(around.lost(counted, pod.waiting.message), counted=counted))
    waits = pod_waits(pod, around.now) or Said("Starting", STARTING)
    said = around.starting(counted, waits.message) if waits.reason == "Starting" else ready(waits.reason, waits.message)
    return Plan(status=around.said(said, counted=counted), after=preparing(pod, around.now))


def _is_bound(around: Around, pod: PodView, endpoint: str, counted: Account) -> bool:
    """Return whether the host that runs is bound: by this process, or, as status shows, by an earlier one.

    A host that began before the session was last ready is the one that was bound then.
    """
    before = around.before
    if around.observed.bound:
        return True
    if around.observed.unbound or before.pod_uid != pod.uid or before.endpoint != endpoint:
        return False
    if before.start_time is None or pod.running_since is None or lost_since_ready(before, counted):
        return False
    return pod.running_since <= before.start_time


def _bind(around: Around, pod: PodView, endpoint: str, counted: Account) -> Plan:
    failure = around.observed.failure
    if failure is not None and failure.reason == "BoundToAnother":
        said = ready("Crashed", f"{failure.message}; the pod is replaced")
        return Plan(actions=around.pod_removal(), status=around.said(said, counted=counted))
    # Bound before this process began, as far as one can see: it stays Ready until something else is seen.
    still = around.before.endpoint == endpoint and not lost_since_ready(around.before, counted)
    if failure is not None:
        status = None if still else around.said(around.starting(counted, failure.message), counted=counted)
        if failure.reason == "NotListening" and not still:
            return Plan(status=status, after=BIND_AGAIN)
        return Plan(status=status, retry=True)
    wanted = around.wanted
    if not still and looks_first(around):
        status = around.said(around.starting(counted, STARTING), counted=counted)
        return Plan(actions=(Look(pod, endpoint, waits=is_required(around)),), status=status)
    unproven = _unproven(around, pod)
    if unproven is not None:
        return Plan(status=around.said(unproven, counted=counted), after=LOOK_AGAIN.total_seconds())
    bind = Bind(
        endpoint=endpoint,
        container_id=pod.container_id,
        request=BindRequest(
            session_uid=wanted.metadata.uid,
            pod_uid=pod.uid,
            env={variable.name: variable.value for variable in wanted.spec.env},
            memory_limit_bytes=memory_for_kernels(pod.memory_limit),
            cpu_limit=pod.cpu_limit,
        ),
    )
    status = None if still else around.said(around.starting(counted, STARTING), counted=counted)
    return Plan(actions=(bind,), status=status)


def _unproven(around: Around, pod: PodView) -> Statement | None:
    """Return that nobody may work in the pod, because its class wants to see it isolated; none where they may."""
    if not is_required(around):
        return None
    seen = isolation_of(around, pod)
    return None if seen.status == "True" else ready("NotIsolated", seen.message)


# ready


def _ready(around: Around, pod: PodView, endpoint: str, counted: Account) -> Plan:
    before = around.before
    unproven = _unproven(around, pod)
    if unproven is not None:
        return Plan(status=around.said(unproven, counted=counted), after=LOOK_AGAIN.total_seconds())
    began = before.start_time
    if began is None or before.endpoint is None or before.pod_uid != pod.uid or lost_since_ready(before, counted):
        began = around.now
    timeout = idle_timeout(around.wanted, around.limits)
    if timeout is None or around.wanted.spec.operating_mode == "Suspended":
        return Plan(status=_bound_status(around, endpoint, began, counted))
    return _idle(around, AskState(pod.uid, endpoint), began, counted, timeout)


def _bound_status(around: Around, endpoint: str, began: datetime, counted: Account) -> AgentSessionStatus:
    more = (*withdrawn(around.before, "Active"), *around.more)  # the later one of a type counts
    status = replace(around, more=more).said(bound(around.wanted, around.observed), counted=counted)
    return status.model_copy(update={"endpoint": endpoint, "start_time": began})


def _idle(around: Around, ask: AskState, began: datetime, counted: Account, timeout: timedelta) -> Plan:
    """Ask when the deadline has come; whatever the host says of the future counts as now."""
    known = around.observed.activity
    active = max(began, min(known.active_at, around.now)) if known is not None else began
    left = active + timeout - around.now
    status = _bound_status(around, ask.endpoint, began, counted)
    if left > timedelta():
        return Plan(status=status, after=left.total_seconds())
    since_asked = (around.now - known.asked_at).total_seconds() if known is not None else ASK_AGAIN
    if known is not None and known.asked_at >= active + timeout and since_asked < ASK_AGAIN:  # after the deadline
        why = f"nothing ran and nobody was connected for {timeout.total_seconds():.0f} s"
        if not around.observed.saves:
            return finish(around, "Idle", why)
        asking = replace(around, more=(*around.more, requested(around.wanted, "Idle", why)))
        return Plan(status=_bound_status(asking, ask.endpoint, began, counted), after=ASK_AGAIN - since_asked)
    if around.observed.failure is not None:
        return Plan(status=None if _asked(around) else status, after=ASK_AGAIN)
    return Plan(actions=(ask,), status=None if _asked(around) else status)


def _asked(around: Around) -> bool:
    """Return whether a gateway has been asked to save the state: that stands until the host says something else."""
    return around.before.is_true(SNAPSHOT_REQUESTED)


# egress


def _egress_actions(around: Around) -> tuple[Action, ...]:
    wanted, observed = around.wanted, around.observed
    found, present = observed.session_class, observed.egress_spec
    policy = None
    if found is not None and egress_refusal(wanted.spec, found.spec, observed.closed) is None:
        policy = egress_policy(wanted, wanted.spec.network.egress, observed.closed)
    if policy is None:
        return (DeleteEgress(egress_policy_name(wanted)),) if present is not None else ()
    return () if present == policy["spec"] else (ApplyEgress(policy),)


def _with_egress(around: Around, plan: Plan) -> Plan:
    if around.observed.failure is not None:  # this pass only reports it
        return plan
    return replace(plan, actions=(*_egress_actions(around), *plan.actions))
