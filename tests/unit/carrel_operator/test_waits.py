"""What is said of a pod that does not run yet.

Plan: statuses as a real cluster (1.35) reported them for pods of classes that ask for what it lacks; each is answered
with what to do. A pod that its node prepares is given a minute, without a write in between.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from tests.unit.carrel_operator.factories import (
    NOW,
    observed,
    pod_document,
    said,
    session,
    session_class,
    stamp,
    waiting,
)

from carrel_api.session_pool import SessionPool
from carrel_operator.builders.pod import kernel_pod, pool_pod
from carrel_operator.needs import Needs
from carrel_operator.observed import PodView, Said
from carrel_operator.reconcile import reconcile
from carrel_operator.reconcile.pool import PoolObserved, reconcile_pool
from carrel_operator.settlement import Settlement, settle, settle_pool
from carrel_operator.waits import PREPARED_WITHIN, pod_waits, preparing

CLASS = {
    "maximumResources": {"gpu": 1},
    "gpuResourceName": "example.org/gpu",
    "pullSecrets": ["registry"],
    "runtimeClassName": "gvisor",
    "userNamespace": "Required",
    "caBundle": "corporate-ca",
    "datasets": [{"name": "weather", "claimName": "weather-2026"}],
}


def spec(wanted: dict[str, Any], allowed: dict[str, Any]) -> dict[str, Any]:
    """The spec of a session's pod."""
    settled = settle(session(wanted).spec, session_class(allowed))
    assert isinstance(settled, Settlement), settled
    return kernel_pod(session(wanted), settled)["spec"]


NEEDY = spec({"resources": {"gpu": 1}, "datasets": ["weather"], "workspace": {"type": "Persistent"}}, CLASS)
PLAIN = spec({}, {})


def view(status: dict[str, Any], of: dict[str, Any] = NEEDY) -> PodView:
    return PodView.of({**pod_document(status=status), "spec": {**of, "nodeName": "node-1"}})


def unscheduled(message: str, reason: str = "Unschedulable") -> dict[str, Any]:
    condition = {"type": "PodScheduled", "status": "False", "reason": reason, "message": message}
    return {"phase": "Pending", "conditions": [condition]}


def being_prepared(seconds: float) -> dict[str, Any]:
    since = {"lastTransitionTime": stamp(NOW - timedelta(seconds=seconds))}
    return {
        **waiting("ContainerCreating"),
        "conditions": [
            {"type": "PodScheduled", "status": "True", **since},
            {"type": "PodReadyToStartContainers", "status": "False", **since},
        ],
    }


def test_needs_are_read_from_the_pod() -> None:
    assert Needs.of(NEEDY) == Needs(
        datasets=(("weather", "weather-2026"),),
        authorities="corporate-ca",
        pull_secrets=("registry",),
        runtime_class="gvisor",
        user_namespace=True,
        devices=(("example.org/gpu", "1"),),
    )
    assert Needs.of(PLAIN) == Needs()


@pytest.mark.parametrize(
    ("status", "reason", "told"),
    [
        (
            unscheduled('0/1 nodes are available: persistentvolumeclaim "weather-2026" not found. not found'),
            "DatasetNotFound",
            (
                "the class's data set weather must have the PersistentVolumeClaim weather-2026 in this namespace, and "
                "there is none; leave the data set out, or have the claim made"
            ),
        ),
        (
            unscheduled("0/1 nodes are available: 1 Insufficient example.org/gpu."),
            "Unschedulable",
            (
                "no node has 1 example.org/gpu free; wait, ask for fewer, or have such nodes added "
                "(0/1 nodes are available: 1 Insufficient example.org/gpu.)"
            ),
        ),
        (
            unscheduled("0/1 nodes are available: 1 Insufficient memory."),
            "Unschedulable",
            "0/1 nodes are available: 1 Insufficient memory.",
        ),
        (unscheduled("gated", "SchedulingGated"), "Starting", "gated"),
        (
            waiting("ErrImagePull", "pull access denied"),
            "ImagePullFailed",
            (
                "ErrImagePull: pull access denied; the class's pull secrets (registry) must be in this namespace and "
                "let the image be pulled"
            ),
        ),
        (
            waiting("CreateContainerConfigError", "container has runAsNonRoot and image will run as root (pod: …)"),
            "UserNotAssigned",
            (
                "the class's runAsUser must be set, because this cluster assigns pods no user and the image's own is "
                "none that is known not to be root (container has runAsNonRoot and image will run as root (pod: …))"
            ),
        ),
        (waiting("CreateContainerConfigError", "other"), "Starting", "CreateContainerConfigError: other"),
        (
            being_prepared(60),
            "PodNotPrepared",
            (
                "its node node-1 did not prepare the pod within 60 s; the pod needs the volume of the claim "
                "weather-2026 (data set weather), the ConfigMap corporate-ca with the key ca.crt (the class's "
                "caBundle), the runtime of RuntimeClass gvisor on that node, user namespaces on that node (the class's "
                "userNamespace). "
                f"The events of pod {view({}).name} say what failed"
            ),
        ),
    ],
    ids=lambda case: case if isinstance(case, str) and len(case) < 30 else "",
)
def test_it_is_said_what_to_do(status: dict[str, Any], reason: str, told: str) -> None:
    assert pod_waits(view(status), NOW) == Said(reason, told)


def test_a_pod_without_special_needs_names_none() -> None:
    told = f"its node node-1 did not prepare the pod within 60 s. The events of pod {view({}).name} say what failed"
    assert pod_waits(view(being_prepared(3600), PLAIN), NOW) == Said("PodNotPrepared", told)
    assert pod_waits(view(waiting("ErrImagePull", "no"), PLAIN), NOW) is not None
    assert "secrets" not in str(pod_waits(view(waiting("ErrImagePull", "no"), PLAIN), NOW))


def test_a_node_has_a_minute() -> None:
    pod = view(being_prepared(20))
    assert pod_waits(pod, NOW) is None
    assert preparing(pod, NOW) == PREPARED_WITHIN.total_seconds() - 20
    assert preparing(view(waiting("ContainerCreating")), NOW) is None  # prepared: what takes long is the image
    assert preparing(view(unscheduled("no room")), NOW) is None


def test_a_session_looks_again_when_the_minute_is_over() -> None:
    plan = reconcile(session(), observed(pod=view(being_prepared(20))), NOW)
    assert (said(plan)[1], plan.after) == ("Starting", 40)
    plan = reconcile(session(), observed(pod=view(being_prepared(60))), NOW)
    assert (said(plan)[1], plan.after) == ("PodNotPrepared", None)


def test_a_pool_does_so_too() -> None:
    pool = SessionPool.parse(
        {"metadata": {"name": "warm", "namespace": "s", "uid": "p"}, "spec": {"className": "standard"}}
    )
    settled = settle_pool(pool.spec, session_class())
    assert isinstance(settled, Settlement)
    made = pool_pod(pool, settled)
    for seconds, reason, after in ((20, "Starting", 40), (60, "PodNotPrepared", None)):
        document = pod_document(status=being_prepared(seconds), labels=made["metadata"]["labels"])
        pod = PodView.of({**document, "spec": made["spec"]})
        plan = reconcile_pool(pool, PoolObserved("standard", session_class(), [pod]), NOW)
        assert plan.status is not None
        condition = plan.status.condition("Ready")
        assert condition is not None
        assert (condition.reason, plan.after) == (reason, after)


def test_the_message_is_the_same_however_long_it_takes() -> None:
    """Each other text would be one more write."""
    assert pod_waits(view(being_prepared(61)), NOW) == pod_waits(view(being_prepared(6100)), NOW)
