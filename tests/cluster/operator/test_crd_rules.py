"""Every rule of the schemas on a real API server: good objects are taken, bad ones refused with the text of the rule.

Plan: tables of specs, applied on the server's side without being stored; then changes of a stored object, since rules
of transition need one.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Generator
from typing import Any

import pytest
from tests.cluster.operator.sessions import eventually
from tests.cluster.provider.base import Cluster, KubectlError

DIGEST = "sha256:" + "0123456789abcdef" * 4
IMAGES = [{"name": "python", "reference": f"example.org/kernel@{DIGEST}"}]


def check(cluster: Cluster, kind: str, name: str, spec: dict[str, Any] | None, namespace: str) -> None:
    """Have the server judge an object; nothing is stored."""
    document: dict[str, Any] = {"apiVersion": "carrel.dev/v1alpha1", "kind": kind, "metadata": {"name": name}}
    if spec is not None:
        document["spec"] = spec
    where = ("-n", namespace) if kind == "AgentSession" else ()
    cluster.kubectl(
        "create", "--dry-run=server", "--validate=strict", "-o=name", "-f=-", *where, stdin=json.dumps(document)
    )


GOOD_SESSIONS: list[dict[str, Any] | None] = [
    None,
    {},
    {"className": "standard", "image": "python"},
    {"resources": {"cpu": 2, "memory": 2147483648, "ephemeralStorage": "1.5Gi", "gpu": 0}},
    {"resources": {"cpu": "0.25", "memory": "128Mi"}},
    {"resources": {"cpu": "9999", "memory": "999999Ti"}},
    {"env": [{"name": "MODE"}, {"name": "_x9", "value": "a=b\n"}]},
    {"env": [{"name": f"V{number}", "value": "x" * 500} for number in range(64)]},
    {"datasets": ["weather", "a-1"]},
    {"workspace": {"type": "Persistent", "size": "10Gi"}},
    {"network": {"egress": [{"cidr": "203.0.113.0/24", "ports": [1, 65535]}, {"cidr": "::/0", "ports": [443]}]}},
    {"operatingMode": "Suspended"},
    {
        "idleTimeoutSeconds": 1,
        "maxLifetimeSeconds": 31536000,
        "shutdownTime": "2026-11-21T12:00:00Z",
        "shutdownPolicy": "Delete",
        "ttlSecondsAfterFinished": 0,
    },
    {"owner": "person@example.org", "tenant": "ümlaut"},
]
BAD_SESSIONS: list[tuple[dict[str, Any], str]] = [
    ({"className": "Standard"}, "spec.className"),
    ({"className": "a" * 64}, "spec.className: Too long"),
    ({"className": "-a"}, "spec.className"),
    ({"image": "python:3"}, "spec.image"),
    ({"resources": {"cpu": "0"}}, "spec.resources.cpu"),
    ({"resources": {"cpu": 0}}, "spec.resources.cpu"),
    ({"resources": {"cpu": -1}}, "spec.resources.cpu"),
    ({"resources": {"cpu": "1e3"}}, "spec.resources.cpu"),
    ({"resources": {"cpu": "two"}}, "spec.resources.cpu"),
    ({"resources": {"cpu": True}}, "spec.resources.cpu"),
    ({"resources": {"memory": "127Mi"}}, "memory must be at least 128Mi"),
    ({"resources": {"memory": 1}}, "memory must be at least 128Mi"),
    ({"resources": {"memory": "1GiB"}}, "spec.resources.memory"),
    ({"resources": {"memory": "1" * 17}}, "spec.resources.memory"),
    ({"resources": {"gpu": 65}}, "spec.resources.gpu"),
    ({"resources": {"gpu": 0.5}}, "spec.resources.gpu"),
    ({"env": [{"name": "LD_PRELOAD"}]}, "name must be none that the loader"),
    ({"env": [{"name": "PYTHONPATH"}]}, "name must be none that the loader"),
    ({"env": [{"name": "OMP_NUM_THREADS"}]}, "name must be none that the loader"),
    ({"env": [{"name": "CARREL_KERNEL_KEYS"}]}, "name must be none that the loader"),
    ({"env": [{"name": "PATH"}]}, "name must be none that the loader"),
    ({"env": [{"name": "1A"}]}, "spec.env[0].name"),
    ({"env": [{"name": "A-B"}]}, "spec.env[0].name"),
    ({"env": [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]}, "Duplicate value"),
    ({"env": [{"name": f"V{number}"} for number in range(65)]}, "spec.env: Too many"),
    ({"env": [{"name": "A", "value": "x" * 8193}]}, "spec.env[0].value: Too long"),
    ({"env": [{"name": f"V{n}", "value": "x" * 8000} for n in range(5)]}, "env must be at most 32768 bytes"),
    ({"env": [{"name": f"V{n}", "value": "ü" * 6000} for n in range(3)]}, "env must be at most 32768 bytes"),
    ({"env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]}, "unknown field"),
    ({"datasets": ["a", "a"]}, "Duplicate value"),
    ({"datasets": ["../etc"]}, "spec.datasets[0]"),
    ({"workspace": {"type": "HostPath"}}, "spec.workspace.type"),
    ({"network": {"egress": [{"cidr": "10.0.0.0", "ports": [1]}]}}, "cidr must be an address range"),
    ({"network": {"egress": [{"cidr": "example.org", "ports": [1]}]}}, "cidr must be an address range"),
    ({"network": {"egress": [{"cidr": "10.0.0.0/33", "ports": [1]}]}}, "cidr must be an address range"),
    ({"network": {"egress": [{"cidr": "10.0.0.0/8"}]}}, "ports: Required"),
    ({"network": {"egress": [{"cidr": "10.0.0.0/8", "ports": []}]}}, "ports"),
    ({"network": {"egress": [{"cidr": "10.0.0.0/8", "ports": [65536]}]}}, "ports[0]"),
    ({"operatingMode": "Paused"}, "spec.operatingMode"),
    ({"idleTimeoutSeconds": 0}, "spec.idleTimeoutSeconds"),
    ({"maxLifetimeSeconds": 31536001}, "spec.maxLifetimeSeconds"),
    ({"shutdownTime": "tomorrow"}, "spec.shutdownTime"),
    ({"shutdownPolicy": "Keep"}, "spec.shutdownPolicy"),
    ({"ttlSecondsAfterFinished": -1}, "spec.ttlSecondsAfterFinished"),
    ({"owner": "x" * 254}, "spec.owner: Too long"),
    ({"podTemplate": {"spec": {"hostNetwork": True}}}, "unknown field"),
    ({"serviceAccountName": "admin"}, "unknown field"),
]
GOOD_CLASSES: list[dict[str, Any]] = [
    {"images": IMAGES},
    {"images": [{"name": "python", "reference": "example.org/kernel:1"}], "allowTags": True},
    {
        "images": IMAGES,
        "defaultResources": {"cpu": "500m", "memory": "1Gi"},
        "maximumResources": {"cpu": "500m", "memory": "1024Mi", "gpu": 2},
        "runAsUser": 65532,
        "userNamespace": "Required",
        "nodeSelector": {"a/b": "c"},
        "tolerations": [{"key": "a", "operator": "Exists", "effect": "NoSchedule"}],
        "egress": [{"cidr": "0.0.0.0/0", "ports": [443]}],
        "datasets": [{"name": "weather", "claimName": "weather.2026"}],
        "workspace": {"defaultSize": "1Gi", "maximumSize": "1Gi", "storageClassName": "fast"},
        "life": {"idleTimeoutSeconds": 60, "maxLifetimeSeconds": 3600},
    },
]
BAD_CLASSES: list[tuple[dict[str, Any], str]] = [
    ({}, "spec.images: Required"),
    ({"images": []}, "spec.images"),
    ({"images": [*IMAGES, *IMAGES]}, "Duplicate value"),
    ({"images": [{"name": "python", "reference": "example.org/kernel:1"}]}, "images must be pinned by digest"),
    ({"images": [{"name": "p", "reference": f"example.org/k@{DIGEST}0"}]}, "images must be pinned by digest"),
    ({"images": [{"name": "p", "reference": "example.org/k@sha256:abc"}]}, "images must be pinned by digest"),
    ({"images": [{"name": "p", "reference": "a b"}], "allowTags": True}, "spec.images[0].reference"),
    ({"images": IMAGES, "runAsUser": 0}, "spec.runAsUser"),
    ({"images": IMAGES, "defaultResources": {"cpu": "3"}}, "defaultResources.cpu must be at most"),
    ({"images": IMAGES, "defaultResources": {"memory": "5Gi"}}, "defaultResources.memory must be at most"),
    ({"images": IMAGES, "maximumResources": {"memory": "1Gi"}}, "defaultResources.memory must be at most"),
    ({"images": IMAGES, "defaultResources": {"ephemeralStorage": "9Gi"}}, "defaultResources.ephemeralStorage must be"),
    ({"images": IMAGES, "defaultResources": {"gpu": 1}}, "defaultResources.gpu must be at most"),
    ({"images": IMAGES, "maximumResources": {"memory": "100Mi"}}, "memory must be at least 128Mi"),
    ({"images": IMAGES, "workspace": {"defaultSize": "11Gi"}}, "defaultSize must be at most maximumSize"),
    ({"images": IMAGES, "egress": [{"cidr": "all", "ports": [443]}]}, "cidr must be an address range"),
    ({"images": IMAGES, "datasets": [{"name": "a", "claimName": "A"}]}, "spec.datasets[0].claimName"),
    ({"images": IMAGES, "tolerations": [{"operator": "Sometimes"}]}, "spec.tolerations[0].operator"),
    ({"images": IMAGES, "nodeSelector": {f"k{number}": "v" for number in range(17)}}, "spec.nodeSelector: Too many"),
    ({"images": IMAGES, "userNamespace": "Maybe"}, "spec.userNamespace"),
    ({"images": IMAGES, "privileged": True}, "unknown field"),
]


def name_of(case: Any) -> str:
    text = json.dumps(case)
    return text if len(text) < 70 else f"{text[:60]}…{len(text)}"


@pytest.mark.parametrize("spec", GOOD_SESSIONS, ids=name_of)
def test_good_sessions_are_taken(cluster: Cluster, rules_namespace: str, spec: dict[str, Any] | None):
    check(cluster, "AgentSession", "desk", spec, rules_namespace)


@pytest.mark.parametrize(("spec", "message"), BAD_SESSIONS, ids=name_of)
def test_bad_sessions_are_refused(cluster: Cluster, rules_namespace: str, spec: dict[str, Any], message: str):
    with pytest.raises(KubectlError) as error:
        check(cluster, "AgentSession", "desk", spec, rules_namespace)
    assert message in str(error.value)


@pytest.mark.parametrize("spec", GOOD_CLASSES, ids=name_of)
def test_good_classes_are_taken(cluster: Cluster, rules_namespace: str, spec: dict[str, Any]):
    check(cluster, "SessionClass", "carrel-test-rules", spec, rules_namespace)


@pytest.mark.parametrize(("spec", "message"), BAD_CLASSES, ids=name_of)
def test_bad_classes_are_refused(cluster: Cluster, rules_namespace: str, spec: dict[str, Any], message: str):
    with pytest.raises(KubectlError) as error:
        check(cluster, "SessionClass", "carrel-test-rules", spec, rules_namespace)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("kind", "name", "message"),
    [
        ("AgentSession", "a" * 64, "metadata.name must be at most 63 characters"),
        ("AgentSession", "a.b", "metadata.name must be without dots"),
        ("SessionClass", "a" * 64, "metadata.name must be at most 63 characters"),
    ],
)
def test_names_that_do_not_fit_labels_are_refused(
    cluster: Cluster, rules_namespace: str, kind: str, name: str, message: str
):
    spec = {"images": IMAGES} if kind == "SessionClass" else {}
    with pytest.raises(KubectlError, match=message):
        check(cluster, kind, name, spec, rules_namespace)


@pytest.fixture(scope="module")
def stored(cluster: Cluster, rules_namespace: str) -> Generator[str]:
    """A session whose spec may be changed, or not."""
    spec = {
        "className": "standard",
        "image": "python",
        "workspace": {"type": "Persistent", "size": "1Gi"},
        "owner": "one",
        "tenant": "research",
    }
    metadata = {"name": "stored", "namespace": rules_namespace}
    cluster.apply(
        {"apiVersion": "carrel.dev/v1alpha1", "kind": "AgentSession", "metadata": metadata, "spec": copy.deepcopy(spec)}
    )
    yield "stored"
    cluster.kubectl("delete", "agentsession", "stored", "-n", rules_namespace)


def change(cluster: Cluster, namespace: str, name: str, spec: dict[str, Any]) -> None:
    patch = json.dumps({"spec": spec})
    cluster.kubectl(
        "patch", "agentsession", name, "-n", namespace, "--type=merge", "--dry-run=server", f"--patch={patch}"
    )


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"className": "other"}, "className"),
        ({"className": None}, "className"),
        ({"image": "other"}, "image"),
        ({"image": None}, "image"),
        ({"workspace": {"type": "Ephemeral"}}, "workspace"),
        ({"workspace": {"size": "2Gi"}}, "workspace"),
        ({"workspace": {"size": None}}, "workspace"),
        ({"workspace": None}, "workspace"),
        ({"owner": "two"}, "owner"),
        ({"owner": None}, "owner"),
        ({"tenant": "other"}, "tenant"),
        ({"tenant": None}, "tenant"),
    ],
    ids=name_of,
)
def test_identity_cannot_be_changed_or_taken_away(
    cluster: Cluster, rules_namespace: str, stored: str, spec: dict[str, Any], field: str
):
    with pytest.raises(KubectlError, match=f"{field} must be the same for the life of the object"):
        change(cluster, rules_namespace, stored, spec)


@pytest.mark.parametrize(
    "spec",
    [
        {"operatingMode": "Suspended"},
        {"resources": {"memory": "1Gi"}},
        {"env": [{"name": "MODE", "value": "x"}]},
        {"shutdownTime": "2030-01-01T00:00:00Z"},
        {"idleTimeoutSeconds": 60},
        {"network": {"egress": [{"cidr": "203.0.113.0/24", "ports": [443]}]}},
    ],
    ids=name_of,
)
def test_intent_can_be_changed(cluster: Cluster, rules_namespace: str, stored: str, spec: dict[str, Any]):
    change(cluster, rules_namespace, stored, spec)


def test_status_is_a_resource_of_its_own(cluster: Cluster, rules_namespace: str, stored: str):
    patch = '--patch={"status": {"endpoint": "10.0.0.1:8888", "podUID": "forged"}}'
    cluster.kubectl("patch", "agentsession", stored, "-n", rules_namespace, "--type=merge", patch)
    assert "status" not in cluster.get("agentsession", stored, "-n", rules_namespace)


def test_kubectl_shows_what_matters(cluster: Cluster, rules_namespace: str, stored: str):
    plain = cluster.kubectl("get", "ags", stored, "-n", rules_namespace).splitlines()[0].split()
    wide = cluster.kubectl("get", "ags", stored, "-n", rules_namespace, "-o=wide").splitlines()[0].split()
    assert plain == ["NAME", "READY", "REASON", "CLASS", "AGE"]
    assert wide == [*plain, "OWNER", "NODE", "ENDPOINT", "POOL"]

    def is_of_the_category() -> bool:
        try:
            return stored in cluster.kubectl("get", "carrel", "-n", rules_namespace)
        except KubectlError:  # the API server is telling anew which resources there are
            return False

    eventually("the category shows it", is_of_the_category)
