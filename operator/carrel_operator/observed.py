"""What a pass over one session has seen: the class, the pod, the binding, as plain values made from documents. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from ipaddress import IPv4Network, IPv6Network
from typing import Any, TypeAlias

from carrel_api import names
from carrel_api.quantities import any_quantity
from carrel_api.session_class import SessionClass
from carrel_operator.needs import Needs
from carrel_operator.sight import Sight

Document: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True)
class Said:
    """A reason and a message of Kubernetes' own."""

    reason: str
    message: str = ""


@dataclass(frozen=True)
class Ended:
    """The latest end of the kernel host's container."""

    reason: str
    exit_code: int
    at: datetime


@dataclass(frozen=True, slots=True)
class PodView:
    """The part of a pod that decisions are made from."""

    name: str
    uid: str
    version: str = ""
    """Its `resourceVersion`."""
    labels: Mapping[str, str] = field(default_factory=dict[str, str])
    owner_uid: str = ""
    """UID of what controls it; empty where nothing does."""
    owner: str = ""
    """`kind/name` of that."""
    made_at: datetime | None = None
    had_since: datetime | None = None
    """Since when it is of the one whose it is now: later than it was made, if it was claimed."""
    cold_start_reason: str | None = None
    """Why it was not taken from a pool, where there was one."""
    phase: str = "Pending"
    ip: str | None = None
    node: str | None = None
    deleted_at: datetime | None = None
    """When its grace period is over, once it is being deleted."""
    failure: Said | None = None
    """Why the pod as a whole ended, such as `Evicted`."""
    disruption: Said | None = None
    """Why the cluster takes the pod away (condition `DisruptionTarget`)."""
    needs: Needs = field(default_factory=Needs)
    scheduled: bool = False
    scheduled_at: datetime | None = None
    prepared: bool = True
    """Whether its node has mounted the volumes and made the sandbox (condition `PodReadyToStartContainers`)."""
    unscheduled: Said | None = None
    waiting: Said | None = None
    running: bool = False
    container_id: str | None = None
    running_since: datetime | None = None
    ended: Ended | None = None
    cpu_limit: float | None = None
    """CPUs."""
    memory_limit: int | None = None
    """Bytes."""

    @property
    def pool(self) -> str | None:
        """Hash of the pool that it is of; none once it is a session's, or was never a pool's."""
        return self.labels.get(names.POOL_LABEL)

    @property
    def claimed_from(self) -> str | None:
        """Hash of the pool that a session's pod came from."""
        return self.labels.get(names.CLAIMED_LABEL)

    @property
    def revision(self) -> str:
        """Hash of the spec that it was made with."""
        return self.labels.get(names.REVISION_LABEL, "")

    @property
    def over(self) -> bool:
        """Whether its containers ended for good."""
        return self.phase in {"Succeeded", "Failed"}

    @property
    def live(self) -> bool:
        """Whether it is, or may yet become, the session's kernel host."""
        return self.deleted_at is None and not self.over

    @classmethod
    def of(cls, document: Document) -> PodView:
        """Return the view of a pod's document."""
        metadata, spec, status = document["metadata"], document.get("spec", {}), document.get("status", {})
        container = _kernel(status.get("containerStatuses", []))
        state, last = container.get("state", {}), container.get("lastState", {})
        limits = _kernel(spec.get("containers", [])).get("resources", {}).get("limits", {})
        conditions = {condition["type"]: condition for condition in status.get("conditions", [])}
        scheduled = conditions.get("PodScheduled", {})
        disruption = conditions.get("DisruptionTarget", {})
        annotations: dict[str, str] = metadata.get("annotations") or {}
        owner = controller(metadata)
        made_at = _time(metadata.get("creationTimestamp"))
        return cls(
            name=metadata["name"],
            uid=metadata["uid"],
            version=metadata.get("resourceVersion", ""),
            labels=metadata.get("labels") or {},
            owner_uid=owner.get("uid", ""),
            owner="/".join((owner["kind"], owner["name"])) if owner else "",
            made_at=made_at,
            had_since=_claimed(annotations) or made_at,
            cold_start_reason=annotations.get(names.COLD_START_ANNOTATION),
            phase=status.get("phase", "Pending"),
            ip=status.get("podIP"),
            node=spec.get("nodeName"),
            deleted_at=_time(metadata.get("deletionTimestamp")),
            failure=_said(status) if status.get("reason") else None,
            disruption=_said(disruption) if disruption.get("status") == "True" else None,
            needs=Needs.of(spec),
            scheduled=scheduled.get("status") == "True",
            scheduled_at=_time(scheduled.get("lastTransitionTime")),
            prepared=conditions.get("PodReadyToStartContainers", {}).get("status") != "False",
            unscheduled=_said(scheduled) if scheduled.get("status") == "False" else None,
            waiting=_said(state["waiting"]) if "waiting" in state else None,
            running="running" in state,
            container_id=container.get("containerID"),
            running_since=_time(state.get("running", {}).get("startedAt")),
            ended=_ended(state.get("terminated") or last.get("terminated")),
            cpu_limit=_amount(limits.get("cpu")),
            memory_limit=None if (memory := _amount(limits.get("memory"))) is None else int(memory),
        )


@dataclass(frozen=True)
class Binding:
    """A kernel host that answered that it is this session's; another container is another host."""

    pod_uid: str
    container_id: str | None


@dataclass(frozen=True)
class Activity:
    """What a kernel host said of itself, when it was asked whether it idles."""

    asked_at: datetime
    active_at: datetime
    """Latest known activity; running cells and open clients count as now."""


@dataclass(frozen=True)
class Observed:
    """Everything that one decision is made from, beside the session itself."""

    class_name: str = ""
    """The class that was looked for; empty where the session names none and the cluster has no default."""
    session_class: SessionClass | None = None
    closed: tuple[IPv4Network | IPv6Network, ...] = ()
    """Ranges that a wider one of the class does not open, as the operator's settings say."""
    pod: PodView | None = None
    pool: str | None = None
    """Name of the pool that the pod came from."""
    further_pods: tuple[PodView, ...] = ()
    """What must not be: pods of the session beside that one."""
    candidates: tuple[PodView, ...] = ()
    """Pods of pools that the session may claim, in the order in which they are tried."""
    cold_start_reason: str | None = None
    """Why there are none, where the session's class has a pool."""
    looks: bool = False
    """Whether the isolation of pods is looked at before they are bound."""
    sight: Sight | None = None
    """The latest look at the pod's isolation."""
    looking: bool = False
    """Whether one is under way."""
    foreign: tuple[str, ...] = ()
    """Names of foreign network policies that select the pod."""
    saves: bool = False
    """Whether there are gateways that save the state of a pod before it ends."""
    egress_spec: Document | None = None
    """Spec of the session's own egress policy, where there is one."""
    binding: Binding | None = None
    activity: Activity | None = None
    unbound: bool = False
    """Whether the host was found not to be bound, whatever status says."""
    failure: Said | None = None
    """What went wrong in carrying out the plan of this pass."""

    @property
    def bound(self) -> bool:
        """Whether the running container of the present pod is bound to the session."""
        pod, binding = self.pod, self.binding
        return (
            pod is not None
            and binding is not None
            and pod.running
            and binding == Binding(pod_uid=pod.uid, container_id=pod.container_id)
        )


def controller(metadata: Document) -> Document:
    """Return the owner reference of what controls an object; an empty one where nothing does."""
    nothing: Document = {}
    owners: list[Document] = metadata.get("ownerReferences") or []
    return next((owner for owner in owners if owner.get("controller")), nothing)


def _kernel(containers: list[Document]) -> Document:
    nothing: Document = {}
    return next((container for container in containers if container.get("name") == names.KERNEL_CONTAINER), nothing)


def _said(document: Document) -> Said:
    return Said(reason=document.get("reason", ""), message=document.get("message", ""))


def _ended(document: Document | None) -> Ended | None:
    if document is None:
        return None
    at = _time(document.get("finishedAt"))
    if at is None:  # lost with its node: the kubelet could not say when
        return None
    return Ended(reason=document.get("reason", ""), exit_code=document.get("exitCode", 0), at=at)


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


def _claimed(annotations: Mapping[str, str]) -> datetime | None:
    """Return when a pod was claimed; none where it was not, or somebody wrote there what is no time."""
    try:
        return datetime.strptime(annotations.get(names.CLAIMED_ANNOTATION, ""), "%Y-%m-%dT%H:%M:%SZ").replace(
            tzinfo=UTC
        )
    except ValueError:
        return None


def _amount(quantity: str | None) -> float | None:
    """Return the number that a quantity is; none where the cluster writes it in a way that is not known here."""
    try:
        return None if quantity is None else any_quantity(quantity)
    except ValueError:
        return None
