"""Decides what one session needs next: `reconcile(wanted, observed, now)` returns a plan and touches nothing. Pure.

It looks at levels, not at events: called twice with the same arguments it wants the same, and every action may be
carried out twice. The order of questions: is the session over, is it suspended, has it a pod, does the pod answer.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from carrel_api.common import Condition
from carrel_api.names import KERNEL_PORT
from carrel_api.session import AgentSession, AgentSessionStatus
from carrel_api.session_class import LifeLimits
from carrel_operator.builders.identity import egress_policy_name, pod_name
from carrel_operator.builders.network_policy import egress_policy
from carrel_operator.builders.pod import kernel_pod
from carrel_operator.builders.volume import workspace_claim
from carrel_operator.lifetimes import ending, idle_timeout
from carrel_operator.observed import Observed, PodView
from carrel_operator.plan import (
    Action,
    ApplyEgress,
    AskState,
    Bind,
    CreateClaim,
    CreatePod,
    DeleteEgress,
    DeletePod,
    DeleteSession,
    Plan,
    PrepareNamespace,
)
from carrel_operator.settlement import Refusal, egress_refusal, settle
from carrel_operator.statements import (
    ACTIVE,
    IMAGE_REASONS,
    NO_POD,
    UNFINISHED,
    bound,
    class_refusal,
    lost,
    scheduled,
    suspended,
)
from carrel_operator.status import FINISHED, READY, Statement, conditions, ready
from carrel_operator.terminations import Account, account, lost_since_ready, replace_at
from carrel_wire.host import BindRequest

STARTING: Final = "its pod is starting"
"""One text up to Ready: each other text would be one more write."""
FORCE_AFTER: Final = timedelta(seconds=60)
"""A pod whose grace period ended so long ago is on a node that does not answer."""
BIND_AGAIN: Final = 0.25
"""Seconds; a kernel host listens about a second after its container started."""
ASK_AGAIN: Final = 30.0
"""Seconds until a kernel host that did not answer is asked again whether it idles."""


def reconcile(wanted: AgentSession, observed: Observed, now: datetime) -> Plan:
    """Return what to do about the session.

    Parameters
    ----------
    wanted
        The session with the status that was last written.
    observed
        What was seen in this pass.
    now
        Present time, in whole seconds as Kubernetes stores it.
    """
    if wanted.metadata.deletion_timestamp is not None:
        return Plan()  # the garbage collector takes what it owns
    return _Pass(wanted, observed, now).decide()


def memory_for_kernels(limit: int | None) -> int | None:
    """Return the bytes that kernels may use of a container's limit; the rest is for the kernel host itself."""
    if limit is None:
        return None
    reserve = max(128 * 2**20, limit // 8)
    return limit - min(reserve, limit // 2)


def endpoint_of(address: str) -> str:
    """Return `host:port` of the kernel host in the pod with this address."""
    return f"[{address}]:{KERNEL_PORT}" if ":" in address else f"{address}:{KERNEL_PORT}"


@dataclass(frozen=True)
class _Pass:
    wanted: AgentSession
    observed: Observed
    now: datetime

    @property
    def before(self) -> AgentSessionStatus:
        return self.wanted.status

    @property
    def limits(self) -> LifeLimits:
        found = self.observed.session_class
        return found.spec.life if found is not None else LifeLimits()

    def decide(self) -> Plan:
        finished = self.before.condition(FINISHED)
        if finished is not None and finished.status == "True":
            return self._finished(finished)
        end = ending(self.wanted, self.limits)
        if end is not None and end.at <= self.now:
            return self._finish("Expired", end.message)
        plan = self._suspended() if self.wanted.spec.operating_mode == "Suspended" else self._running()
        return _sooner(plan, end.at - self.now) if end is not None else plan

    # over

    def _finish(self, reason: str, message: str) -> Plan:
        if self.wanted.spec.shutdown_policy == "Delete":
            return Plan(actions=(DeleteSession(),))
        said = f"{message}; it is retained without a pod, delete it when it is no longer needed"
        status = self._status(
            replace_pod=True,
            said=(ready("Expired", said), ACTIVE, Statement(FINISHED, "True", reason, message)),
        )
        finished = next(condition for condition in status.conditions if condition.type == FINISHED)
        return replace(self._finished(finished), status=status)

    def _finished(self, finished: Condition) -> Plan:
        actions = self._pod_removal()
        lasts = self.wanted.spec.ttl_seconds_after_finished
        if lasts is None:
            return Plan(actions=actions, after=self._force_after())
        left = finished.last_transition_time + timedelta(seconds=lasts) - self.now
        if left <= timedelta():
            return Plan(actions=(DeleteSession(),))
        return _sooner(Plan(actions=actions, after=self._force_after()), left)

    def _pod_removal(self) -> tuple[Action, ...]:
        """Take the pod away, and by force what a dead node keeps."""
        pod = self.observed.pod
        if pod is None:
            return ()
        if pod.deleted_at is None:
            return (DeletePod(pod.name, pod.uid),)
        if self.now >= pod.deleted_at + FORCE_AFTER:
            return (DeletePod(pod.name, pod.uid, force=True),)
        return ()

    def _force_after(self) -> float | None:
        pod = self.observed.pod
        if pod is None or pod.deleted_at is None:
            return None
        return max((pod.deleted_at + FORCE_AFTER - self.now).total_seconds(), 1.0)

    # suspended

    def _suspended(self) -> Plan:
        said = suspended(self.wanted, gone=self.observed.pod is None)
        status = self._status(replace_pod=True, said=(*said, UNFINISHED))
        return Plan(actions=self._pod_removal(), status=status, after=self._force_after())

    # running

    def _running(self) -> Plan:
        pod = self.observed.pod
        if pod is None:
            return self._start()
        counted = account(self.before, pod, self.now)
        if not pod.live:
            status = self._said(self._lost(counted, "a new pod follows"), counted=counted)
            return Plan(actions=self._pod_removal(), status=status, after=self._force_after())
        return self._with_egress(self._follow(pod, counted))

    def _start(self) -> Plan:
        counted = account(self.before, None, self.now)
        found = self.observed.session_class
        settled = (
            class_refusal(self.observed.class_name)
            if found is None
            else settle(self.wanted, found, self.observed.closed)
        )
        if isinstance(settled, Refusal):
            return Plan(status=self._said(ready(settled.reason, settled.message), counted=counted))
        failure = self.observed.failure
        if failure is not None:
            return Plan(status=self._said(ready(failure.reason, failure.message), counted=counted), retry=True)
        at = replace_at(self.before, counted)
        if at is not None and at > self.now:
            wait = (at - self.now).total_seconds()
            return Plan(status=self._said(self._lost(counted, f"a new pod follows in {wait:.0f} s at most"),
                                          counted=counted), after=wait)  # fmt: skip
        claims = (
            (CreateClaim(workspace_claim(self.wanted, settled)),)
            if self.wanted.spec.workspace.type == "Persistent"
            else ()
        )
        pod = CreatePod(kernel_pod(self.wanted, settled))
        status = self._said(self._starting(counted, STARTING), counted=counted)
        return Plan(actions=(PrepareNamespace(), *self._egress_actions(), *claims, pod), status=status)

    def _follow(self, pod: PodView, counted: Account) -> Plan:
        """Say how far the pod is; bind its kernel host when it runs."""
        if pod.running and pod.ip is not None:
            endpoint = endpoint_of(pod.ip)
            if self.observed.bound:
                return self._ready(pod, endpoint, counted)
            return self._bind(pod, endpoint, counted)
        if pod.unscheduled is not None and not pod.scheduled:
            reason = "Unschedulable" if pod.unscheduled.reason == "Unschedulable" else "Starting"
            return Plan(status=self._said(ready(reason, pod.unscheduled.message), counted=counted))
        waiting = pod.waiting
        if waiting is not None and waiting.reason in IMAGE_REASONS:
            said = ready("ImagePullFailed", f"{waiting.reason}: {waiting.message or 'the image cannot be pulled'}")
        elif waiting is not None and waiting.reason == "CrashLoopBackOff":
            said = self._lost(counted, waiting.message)
        elif waiting is not None and waiting.message:
            said = self._starting(counted, f"{waiting.reason}: {waiting.message}")
        else:
            said = self._starting(counted, STARTING)
        return Plan(status=self._said(said, counted=counted))

    def _bind(self, pod: PodView, endpoint: str, counted: Account) -> Plan:
        failure = self.observed.failure
        # Bound before this process began, as far as one can see: it stays Ready until something else is seen.
        still = self.before.endpoint == endpoint and not lost_since_ready(self.before, counted)
        if failure is not None and failure.reason == "BoundToAnother":
            said = ready("Crashed", f"{failure.message}; the pod is replaced")
            return Plan(actions=self._pod_removal(), status=self._said(said, counted=counted))
        if failure is not None:
            status = None if still else self._said(self._starting(counted, failure.message), counted=counted)
            if failure.reason == "NotListening" and not still:
                return Plan(status=status, after=BIND_AGAIN)
            return Plan(status=status, retry=True)
        bind = Bind(
            endpoint=endpoint,
            container_id=pod.container_id,
            request=BindRequest(
                session_uid=self.wanted.metadata.uid,
                pod_uid=pod.uid,
                env={variable.name: variable.value for variable in self.wanted.spec.env},
                memory_limit_bytes=memory_for_kernels(pod.memory_limit),
                cpu_limit=pod.cpu_limit,
            ),
        )
        status = None if still else self._said(self._starting(counted, STARTING), counted=counted)
        return Plan(actions=(bind,), status=status)

    def _ready(self, pod: PodView, endpoint: str, counted: Account) -> Plan:
        began = self.before.start_time
        if began is None or self.before.endpoint is None or lost_since_ready(self.before, counted):
            began = self.now
        status = self._said(bound(self.wanted, self.observed), counted=counted).model_copy(
            update={"endpoint": endpoint, "start_time": began}
        )
        timeout = idle_timeout(self.wanted, self.limits)
        if timeout is None:
            return Plan(status=status)
        return self._idle(AskState(pod.uid, endpoint), status, began, timeout)

    def _idle(self, ask: AskState, status: AgentSessionStatus, began: datetime, timeout: timedelta) -> Plan:
        """Ask when the deadline has come; whatever the host says of the future counts as now."""
        known = self.observed.activity
        active = max(began, min(known.active_at, self.now)) if known is not None else began
        left = active + timeout - self.now
        if left > timedelta():
            return Plan(status=status, after=left.total_seconds())
        if known is not None and known.asked_at >= active + timeout:  # asked after the deadline
            return self._finish("Idle", f"nothing ran and nobody was connected for {timeout.total_seconds():.0f} s")
        if self.observed.failure is not None:
            return Plan(status=status, after=ASK_AGAIN)
        return Plan(actions=(ask,), status=status)

    # egress

    def _egress_actions(self) -> tuple[Action, ...]:
        found, present = self.observed.session_class, self.observed.egress_spec
        policy = None
        if found is not None and egress_refusal(self.wanted.spec, found.spec, self.observed.closed) is None:
            policy = egress_policy(self.wanted, self.wanted.spec.network.egress, self.observed.closed)
        if policy is None:
            return (DeleteEgress(egress_policy_name(self.wanted)),) if present is not None else ()
        return () if present == policy["spec"] else (ApplyEgress(policy),)

    def _with_egress(self, plan: Plan) -> Plan:
        if self.observed.failure is not None:  # this pass only reports it
            return plan
        return replace(plan, actions=(*self._egress_actions(), *plan.actions))

    # what is said

    def _starting(self, counted: Account, how_far: str) -> Statement:
        again = lost_since_ready(self.before, counted)
        return self._lost(counted, how_far) if again else ready("Starting", how_far)

    def _lost(self, counted: Account, then: str) -> Statement:
        before = self.before.condition(READY)
        return lost(counted, then, pod=self.observed.pod, told=before.message if before is not None else "")

    def _said(self, statement: Statement, *, counted: Account) -> AgentSessionStatus:
        status = self._status(said=(statement, ACTIVE, UNFINISHED))
        return status.model_copy(
            update={
                "restarts": counted.restarts,
                "last_termination": counted.last,
                "pod_uid": counted.pod_uid,
                "pod_name": pod_name(self.wanted) if counted.pod_uid else None,
            }
        )

    def _status(self, *, said: tuple[Statement, ...], replace_pod: bool = False) -> AgentSessionStatus:
        """Return the status with these conditions, without endpoint; without pod where it is taken away on purpose."""
        pod = self.observed.pod
        gone: dict[str, object] = {"pod_uid": None, "pod_name": None, "node_name": None} if replace_pod else {}
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


def _sooner(plan: Plan, left: timedelta) -> Plan:
    seconds = max(left.total_seconds(), 0.0)
    return replace(plan, after=seconds if plan.after is None else min(plan.after, seconds))
