"""Documents that tests are made of: a session, a class, a pod, as the API server would give them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from carrel_api.session import AgentSession
from carrel_api.session_class import SessionClass
from carrel_operator.builders.identity import hash_of, pod_name
from carrel_operator.observed import Binding, Observed, PodView
from carrel_operator.plan import Plan

NOW = datetime(2026, 11, 21, 12, 0, 0, tzinfo=UTC)
MADE = NOW - timedelta(hours=1)
SESSION_UID = "11111111-2222-3333-4444-555555555555"
POD_UID = "66666666-7777-8888-9999-000000000000"
CONTAINER = "containerd://one"
DIGEST = "sha256:" + "ab" * 32


def stamp(moment: datetime) -> str:
    """Return the time as Kubernetes writes it."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def session(spec: dict[str, Any] | None = None, status: dict[str, Any] | None = None, **metadata: Any) -> AgentSession:
    """Return a session in class `standard`."""
    return AgentSession.parse(
        {
            "apiVersion": "carrel.dev/v1alpha1",
            "kind": "AgentSession",
            "metadata": {
                "name": "desk",
                "namespace": "carrel-sessions",
                "uid": SESSION_UID,
                "resourceVersion": "7",
                "generation": 3,
                "creationTimestamp": stamp(MADE),
                **metadata,
            },
            "spec": {"className": "standard", **(spec or {})},
            "status": status or {},
        }
    )


def session_class(spec: dict[str, Any] | None = None, name: str = "standard", **metadata: Any) -> SessionClass:
    """Return a class with two images."""
    images = [
        {"name": "python", "reference": f"example.org/kernel@{DIGEST}"},
        {"name": "gpu", "reference": f"example.org/kernel-gpu@{DIGEST}"},
    ]
    return SessionClass.parse({"metadata": {"name": name, **metadata}, "spec": {"images": images, **(spec or {})}})


def pod_document(*, status: dict[str, Any] | None = None, uid: str = POD_UID, **metadata: Any) -> dict[str, Any]:
    """Return a pod of `session()` as stored; running and scheduled unless another status is given."""
    limits = {"cpu": "1", "memory": "2Gi"}
    return {
        "metadata": {
            "name": pod_name(session()),
            "namespace": "carrel-sessions",
            "uid": uid,
            "labels": {"carrel.dev/session": hash_of(SESSION_UID)},
            **metadata,
        },
        "spec": {"nodeName": "node-1", "containers": [{"name": "kernel", "resources": {"limits": limits}}]},
        "status": running() if status is None else status,
    }


def pod(*, status: dict[str, Any] | None = None, uid: str = POD_UID, **metadata: Any) -> PodView:
    """Return the view of `pod_document`."""
    return PodView.of(pod_document(status=status, uid=uid, **metadata))


def running(*, container_id: str = CONTAINER, last_end: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return the status of a pod whose kernel host runs."""
    return {
        "phase": "Running",
        "podIP": "10.1.2.3",
        "conditions": [{"type": "PodScheduled", "status": "True"}],
        "containerStatuses": [
            {
                "name": "kernel",
                "containerID": container_id,
                "state": {"running": {"startedAt": stamp(NOW)}},
                "lastState": {"terminated": last_end} if last_end else {},
            }
        ],
    }


def waiting(reason: str, message: str = "", *, last_end: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return the status of a pod whose container does not run."""
    return {
        "phase": "Pending",
        "podIP": "10.1.2.3",
        "conditions": [{"type": "PodScheduled", "status": "True"}],
        "containerStatuses": [
            {
                "name": "kernel",
                "state": {"waiting": {"reason": reason, "message": message}},
                "lastState": {"terminated": last_end} if last_end else {},
            }
        ],
    }


def ended(reason: str = "OOMKilled", code: int = 137, at: datetime = NOW) -> dict[str, Any]:
    """Return how a container ended."""
    return {"reason": reason, "exitCode": code, "finishedAt": stamp(at)}


BOUND = Binding(pod_uid=POD_UID, container_id=CONTAINER)


def observed(**parts: Any) -> Observed:
    """Return what was seen, with class `standard` unless another is given."""
    return Observed(**{"class_name": "standard", "session_class": session_class(), **parts})


def ready_status(**parts: Any) -> dict[str, Any]:
    """Return the status of a session that has been ready for half an hour."""
    since = stamp(NOW - timedelta(minutes=30))
    said = [
        ("Ready", "True", "Bound"),
        ("PodScheduled", "True", "Scheduled"),
        ("Suspended", "False", "Running"),
        ("Finished", "False", "Running"),
        ("Isolated", "Unknown", "NotSeen"),
    ]
    return {
        "conditions": [
            {"type": kind, "status": status, "reason": reason, "lastTransitionTime": since, "observedGeneration": 3}
            for kind, status, reason in said
        ],
        "className": "standard",
        "podName": pod_name(session()),
        "podUID": POD_UID,
        "endpoint": "10.1.2.3:8888",
        "nodeName": "node-1",
        "startTime": since,
        "restarts": 0,
        **parts,
    }


def said(plan: Plan, kind: str = "Ready") -> tuple[str, str, str]:
    """Return status, reason and message of a condition of the plan."""
    assert plan.status is not None
    condition = plan.status.condition(kind)
    assert condition is not None
    return condition.status, condition.reason, condition.message


def kinds(plan: Plan) -> list[type]:
    """Return what the plan does, by type."""
    return [type(action) for action in plan.actions]


def gone(seconds: int = 10) -> str:
    """Return the time at which a pod that is being deleted is gone."""
    return stamp(NOW + timedelta(seconds=seconds))
