"""The chart's admission policies on a real API server, in a namespace without gateway and operator.

Plan: three kinds of creators who may do everything else (a person, the operator, the gateway) and sessions that ask for
what their class does not offer, for somebody else's identity, for the end of a pod: each is refused in words. What the
class offers is taken; a class that is missing or was narrowed later keeps nobody from suspending or ending a session.
Objects are judged by the server and mostly not stored.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import pytest
from tests.chart.rendering import MINIMAL, merged, of_kind, render
from tests.cluster.operator.sessions import eventually
from tests.cluster.operator.test_crd_rules import IMAGES, name_of
from tests.cluster.provider.base import Cluster, KubectlError

CLASS = {
    "images": [*IMAGES, {**IMAGES[0], "name": "r"}],
    "defaultResources": {"cpu": "500m", "memory": "1Gi", "ephemeralStorage": "3Gi"},
    "maximumResources": {"cpu": "2", "memory": "2Gi", "ephemeralStorage": "4Gi", "gpu": 1},
    "datasets": [{"name": "weather", "claimName": "weather"}, {"name": "rivers", "claimName": "rivers"}],
    "egress": [{"cidr": "203.0.113.0/24", "ports": [80, 443]}, {"cidr": "2001:db8::/64", "ports": [443]}],
    "workspace": {"defaultSize": "1Gi", "maximumSize": "5Gi", "allowPersistent": False},
}
PERSON = "somebody"


@dataclass(frozen=True)
class Place:
    """A session namespace under the chart's policies."""

    cluster: Cluster
    control: str
    namespace: str
    tenant_namespace: str
    class_name: str

    @property
    def gateway(self) -> str:
        """Account of the gateway."""
        return f"system:serviceaccount:{self.control}:carrel-gateway"

    @property
    def operator(self) -> str:
        """Account of the operator."""
        return f"system:serviceaccount:{self.control}:carrel-operator"

    def run(self, *arguments: str, user: str = PERSON, document: dict[str, Any] | None = None) -> str:
        """Call the API as a user who has every right; only admission can refuse."""
        groups = ("system:authenticated", "system:masters")
        who = [f"--as={user}", *(f"--as-group={group}" for group in groups)]
        stdin = json.dumps(document) if document is not None else None
        return self.cluster.kubectl(*arguments, *who, stdin=stdin)

    def create(self, spec: dict[str, Any], *, user: str = PERSON, kind: str = "AgentSession", where: str = "") -> None:
        """Ask for an object of the class, unless the spec names another; nothing is stored."""
        self.run("create", "--dry-run=server", "--filename=-", user=user, document=self.document(spec, kind, where))

    def document(self, spec: dict[str, Any], kind: str, where: str = "", name: str = "desk") -> dict[str, Any]:
        """Return an object of the class."""
        metadata = {"name": name, "namespace": where or self.namespace}
        named = {"className": self.class_name, **spec}
        return {"apiVersion": "carrel.dev/v1alpha1", "kind": kind, "metadata": metadata, "spec": named}

    def patch(
        self, name: str, change: dict[str, Any], *more: str, user: str = PERSON, kind: str = "agentsession"
    ) -> None:
        """Change a stored object."""
        where = f"--namespace={self.namespace}"
        self.run("patch", kind, name, where, "--type=merge", f"--patch={json.dumps(change)}", *more, user=user)

    def session_class(self, **spec: Any) -> dict[str, Any]:
        """Return the class, with changes."""
        metadata = {"name": self.class_name}
        return {"apiVersion": "carrel.dev/v1alpha1", "kind": "SessionClass", "metadata": metadata,
                "spec": {**CLASS, **spec}}  # fmt: skip


@pytest.fixture(scope="module")
def place(cluster: Cluster, definitions: None) -> Generator[Place]:
    suffix = secrets.token_hex(4)
    made = Place(cluster, f"carrel-adm-{suffix}", f"carrel-adm-{suffix}-s", f"carrel-adm-{suffix}-t", f"adm-{suffix}")
    namespaces = (made.control, made.namespace, made.tenant_namespace)
    policies: list[dict[str, Any]] = []
    for namespace, release in ((made.namespace, "carrel"), (made.tenant_namespace, "carrel-tenant")):
        values = {"sessions": {"namespace": {"name": namespace}}, "fullnameOverride": "carrel"}
        rendered = render(merged(MINIMAL, values), release, made.control)
        found = of_kind(rendered, "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding")
        if release != "carrel":  # the same policies, bound to a second namespace
            found = of_kind(found, "ValidatingAdmissionPolicyBinding")
            for binding in found:
                binding["metadata"]["name"] += "-tenant"
        policies += found
    for namespace in namespaces:
        labels = {"carrel.dev/tenant": "research"} if namespace == made.tenant_namespace else {}
        cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace, "labels": labels}})
    cluster.apply(made.session_class(), *policies)
    for namespace in (made.namespace, made.tenant_namespace):  # a new policy takes effect after moments
        for forged in ({"image": "rust"}, {"tenant": "other"}):
            eventually("policies hold", lambda forged=forged, at=namespace: refused(made, forged, at), 60)
    eventually("the policy of labels holds", lambda: labels_are_refused(made), 60)
    yield made
    cluster.kubectl("delete", "namespace", *namespaces, "--wait=false")
    names = sorted({f"{policy['kind']}/{policy['metadata']['name']}".lower() for policy in policies})
    cluster.kubectl("delete", *names, f"sessionclass/{made.class_name}")


def refused(place: Place, spec: dict[str, Any], where: str = "") -> bool:
    try:
        place.create(spec, where=where)
    except KubectlError:
        return True
    return False


def claim(**labels: str) -> dict[str, Any]:
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    metadata = {"name": "claim", "labels": {f"carrel.dev/{name}": value for name, value in labels.items()}}
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": spec}


def create_claim(place: Place, user: str, *more: str, **labels: str) -> None:
    where = f"--namespace={place.namespace}"
    place.run("create", where, "--filename=-", *more, user=user, document=claim(**labels))


def labels_are_refused(place: Place) -> bool:
    try:
        create_claim(place, PERSON, "--dry-run=server", session="x")
    except KubectlError:
        return True
    return False


GOOD: list[dict[str, Any]] = [
    {},
    {"image": "python"},
    {"image": "r", "resources": {"cpu": 2, "memory": "2048Mi", "ephemeralStorage": "4Gi", "gpu": 1}},
    {"resources": {"cpu": "2000m", "memory": 2147483648}},
    {"datasets": ["rivers", "weather"]},
    {"workspace": {"size": "3Gi"}},
    {"workspace": {"size": "4Gi"}, "resources": {"ephemeralStorage": "4Gi"}},
    {"network": {"egress": [{"cidr": "203.0.113.128/25", "ports": [443, 80]}]}},
    {"network": {"egress": [{"cidr": "2001:db8::1/128", "ports": [443]}]}},
    {"className": "missing", "image": "anything", "resources": {"memory": "999Ti"}},
    {"className": "", "resources": {"memory": "999Ti"}},
]
EGRESS = "network.egress must be within what the class allows"
BAD: list[tuple[dict[str, Any], str]] = [
    ({"image": "rust"}, "image must be one of the class's images (python, r), not rust"),
    ({"image": "example-org-kernel"}, "image must be one of the class's images"),
    ({"image": "latest"}, "image must be one of the class's images"),
    ({"resources": {"cpu": 3}}, "resources.cpu must be at most 2 in class"),
    ({"resources": {"cpu": "2001m"}}, "resources.cpu must be at most 2 in class"),
    ({"resources": {"cpu": "2.001"}}, "resources.cpu must be at most 2 in class"),
    ({"resources": {"cpu": "9999999m"}}, "resources.cpu must be at most 2 in class"),
    ({"resources": {"memory": "2049Mi"}}, "resources.memory must be at most 2Gi in class"),
    ({"resources": {"memory": 2147483649}}, "resources.memory must be at most 2Gi in class"),
    ({"resources": {"memory": "2.001Gi"}}, "resources.memory must be at most 2Gi in class"),
    ({"resources": {"memory": "3G"}}, "resources.memory must be at most 2Gi in class"),
    ({"resources": {"memory": "1Ti"}}, "resources.memory must be at most 2Gi in class"),
    ({"resources": {"ephemeralStorage": "4097Mi"}}, "resources.ephemeralStorage must be at most 4Gi in class"),
    ({"resources": {"ephemeralStorage": "5G"}}, "resources.ephemeralStorage must be at most 4Gi in class"),
    ({"resources": {"gpu": 2}}, "resources.gpu must be at most 1 in class"),
    ({"resources": {"gpu": 64}}, "resources.gpu must be at most 1 in class"),
    ({"resources": {"cpu": 1, "memory": "1Gi", "gpu": 2}}, "resources.gpu must be at most 1 in class"),
    ({"datasets": ["secrets"]}, "datasets must be of the class's (weather, rivers)"),
    ({"datasets": ["weather", "payroll"]}, "datasets must be of the class's"),
    ({"workspace": {"type": "Persistent"}}, "workspace.type must be Ephemeral in class"),
    ({"workspace": {"type": "Persistent", "size": "1Gi"}}, "workspace.type must be Ephemeral in class"),
    ({"workspace": {"size": "6Gi"}}, "workspace.size must be at most 5Gi in class"),
    ({"workspace": {"size": "5Ti"}}, "workspace.size must be at most 5Gi in class"),
    ({"workspace": {"size": "3.5Gi"}}, "workspace.size must be at most resources.ephemeralStorage (3Gi)"),
    (
        {"workspace": {"size": "2Gi"}, "resources": {"ephemeralStorage": "1Gi"}},
        "workspace.size must be at most resources.ephemeralStorage (1Gi)",
    ),
    ({"network": {"egress": [{"cidr": "0.0.0.0/0", "ports": [443]}]}}, EGRESS),
    ({"network": {"egress": [{"cidr": "203.0.112.0/23", "ports": [443]}]}}, EGRESS),
    ({"network": {"egress": [{"cidr": "203.0.114.0/24", "ports": [443]}]}}, EGRESS),
    ({"network": {"egress": [{"cidr": "203.0.113.0/24", "ports": [22]}]}}, EGRESS),
    ({"network": {"egress": [{"cidr": "203.0.113.0/24", "ports": [443, 6443]}]}}, EGRESS),
    ({"network": {"egress": [{"cidr": "169.254.169.254/32", "ports": [80]}]}}, EGRESS),
    ({"network": {"egress": [{"cidr": "10.96.0.1/32", "ports": [443]}]}}, EGRESS),
    ({"network": {"egress": [{"cidr": "2001:db8::/63", "ports": [443]}]}}, EGRESS),
    ({"network": {"egress": [{"cidr": "2001:db8::/64", "ports": [80]}]}}, EGRESS),
    (
        {
            "network": {
                "egress": [{"cidr": "203.0.113.7/32", "ports": [443]}, {"cidr": "198.51.100.0/24", "ports": [443]}]
            }
        },
        EGRESS,
    ),
    ({"podTemplate": {"spec": {"hostNetwork": True}}}, "unknown field"),
    ({"serviceAccountName": "admin"}, "unknown field"),
    ({"runtimeClassName": "runc"}, "unknown field"),
    ({"volumes": [{"hostPath": {"path": "/"}}]}, "unknown field"),
    ({"env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]}, "unknown field"),
    ({"datasets": ["../../etc"]}, "spec.datasets[0]"),
    ({"image": "example.org/kernel:latest"}, "spec.image"),
    ({"env": [{"name": "LD_PRELOAD", "value": "/workspace/x.so"}]}, "name must be none that the loader"),
]
BAD_POOLS = [case for case in BAD if set(case[0]) <= {"image", "resources"}]


@pytest.mark.parametrize("spec", GOOD, ids=name_of)
def test_what_a_class_offers_is_taken(place: Place, spec: dict[str, Any]) -> None:
    place.create(spec)
    if set(spec) <= {"className", "image", "resources"}:
        place.create(spec, kind="SessionPool")


@pytest.mark.parametrize(("spec", "message"), BAD, ids=name_of)
def test_what_a_class_does_not_offer_is_refused(place: Place, spec: dict[str, Any], message: str) -> None:
    with pytest.raises(KubectlError) as error:
        place.create(spec)
    assert message in str(error.value)


@pytest.mark.parametrize(("spec", "message"), BAD_POOLS, ids=name_of)
def test_pools_are_held_to_the_class_too(place: Place, spec: dict[str, Any], message: str) -> None:
    with pytest.raises(KubectlError) as error:
        place.create(spec, kind="SessionPool")
    assert message in str(error.value)


def test_the_class_binds_gateway_and_operator_as_it_does_people(place: Place) -> None:
    for user in (PERSON, place.gateway, place.operator):
        with pytest.raises(KubectlError, match=r"resources\.memory must be at most 2Gi"):
            place.create({"resources": {"memory": "3Gi"}}, user=user)


@pytest.fixture
def narrowed(place: Place) -> Generator[str]:
    """A session that took all that its class offered before the class was narrowed."""
    spec = {
        "image": "r",
        "resources": {"cpu": 2, "memory": "2Gi", "ephemeralStorage": "4Gi", "gpu": 1},
        "datasets": ["rivers", "weather"],
        "workspace": {"size": "4Gi"},
        "network": {"egress": [{"cidr": "203.0.113.0/24", "ports": [443]}, {"cidr": "2001:db8::/64", "ports": [443]}]},
    }
    place.run("create", "--filename=-", document=place.document(spec, "AgentSession", name="narrowed"))
    pool = {"resources": {"memory": "2Gi"}, "replicas": 0}
    place.run("create", "--filename=-", document=place.document(pool, "SessionPool", name="narrowed"))
    place.cluster.apply(
        place.session_class(
            images=IMAGES,
            maximumResources={"cpu": "1", "memory": "1Gi", "ephemeralStorage": "3Gi"},
            workspace={"defaultSize": "1Gi", "maximumSize": "1Gi"},
            datasets=[],
            egress=[],
        )
    )
    eventually("the narrower class holds", lambda: refused(place, {"image": "r"}), 60)
    yield "narrowed"
    place.run("delete", "agentsession,sessionpool", "narrowed", f"--namespace={place.namespace}")
    place.cluster.apply(place.session_class())
    eventually("the wider class holds", lambda: not refused(place, {"image": "r"}), 60)


def test_a_class_that_was_narrowed_locks_nobody_out(place: Place, narrowed: str) -> None:
    smaller = {"egress": [{"cidr": "2001:db8::/64", "ports": [443]}]}
    for change in (
        {"metadata": {"annotations": {"note": "kept"}}},
        {"spec": {"operatingMode": "Suspended"}},
        {"spec": {"shutdownTime": "2036-01-01T00:00:00Z", "shutdownPolicy": "Delete"}},
        {"spec": {"env": [{"name": "MODE", "value": "slow"}]}},
        {"spec": {"resources": {"memory": "1Gi"}}},
        {"spec": {"datasets": ["weather"]}},
        {"spec": {"network": smaller}},
    ):
        place.patch(narrowed, change)
    saved = {"spec": {"snapshot": {"podUID": "pod", "ref": "snapshot", "digest": "d"}}}
    place.patch(narrowed, saved, user=place.gateway)
    place.patch(narrowed, {"status": {"restarts": 1}}, "--subresource=status", user=place.operator)
    place.patch(narrowed, {"spec": {"replicas": 1}}, kind="sessionpool")
    for change, message in (
        ({"resources": {"memory": "2Gi"}}, "resources.memory must be at most 1Gi"),
        ({"resources": {"cpu": "1500m"}}, "resources.cpu must be at most 1"),
        ({"datasets": ["weather", "rivers"]}, "datasets must be of the class's"),
        ({"network": {"egress": [*smaller["egress"], {"cidr": "203.0.113.0/24", "ports": [443]}]}}, EGRESS),
        (
            {"resources": {"ephemeralStorage": "2Gi"}},
            r"workspace.size must be at most resources.ephemeralStorage \(2Gi\)",
        ),
    ):
        with pytest.raises(KubectlError, match=message):
            place.patch(narrowed, {"spec": change})
    place.patch(narrowed, {"metadata": {"finalizers": []}})


def test_a_pool_that_changes_its_class_is_held_to_the_new_one(place: Place) -> None:
    document = place.document({"className": "missing", "resources": {"memory": "64Gi"}, "replicas": 0}, "SessionPool")
    place.run("create", "--filename=-", document=document)
    with pytest.raises(KubectlError, match=r"resources\.memory must be at most 2Gi"):
        place.patch("desk", {"spec": {"className": place.class_name}}, kind="sessionpool")
    place.patch("desk", {"spec": {"className": place.class_name, "resources": None}}, kind="sessionpool")


FORGED: list[dict[str, Any]] = [{"owner": "another"}, {"tenant": "another"}, {"owner": "a", "tenant": "b"}]


@pytest.mark.parametrize("spec", FORGED, ids=name_of)
def test_only_the_gateway_says_whose_a_session_is(place: Place, spec: dict[str, Any]) -> None:
    for user in (PERSON, place.operator, f"system:serviceaccount:{place.namespace}:carrel-gateway"):
        with pytest.raises(KubectlError, match=r"spec\.owner and spec\.tenant must be left out"):
            place.create(spec, user=user)
    place.create(spec, user=place.gateway)


def test_the_tenant_of_a_namespace_is_the_tenant_of_its_sessions(place: Place) -> None:
    def create(user: str, **spec: str) -> None:
        place.create(spec, user=user, where=place.tenant_namespace)

    create(place.gateway, tenant="research", owner="one")
    create(place.gateway)
    create(PERSON)
    with pytest.raises(KubectlError, match=r"spec\.tenant must be that of the namespace, research"):
        create(place.gateway, tenant="sales", owner="one")
    for user in (PERSON, place.operator):
        with pytest.raises(KubectlError, match=r"spec\.owner and spec\.tenant must be left out"):
            create(user, tenant="research")


def test_only_the_gateway_says_that_state_is_saved(place: Place) -> None:
    saved = {"snapshot": {"podUID": "pod", "ref": "forged", "digest": "d"}}
    told = r"spec\.snapshot must be left as it is; the gateway alone writes it"
    document = place.document({"owner": "one", "tenant": "two"}, "AgentSession", name="saved")
    place.run("create", "--filename=-", document=document, user=place.gateway)
    for user in (PERSON, place.operator):
        with pytest.raises(KubectlError, match=told):
            place.create(saved, user=user)
        with pytest.raises(KubectlError, match=told):
            place.patch("saved", {"spec": saved}, user=user)
    place.patch("saved", {"spec": saved}, user=place.gateway)
    for change in ({"ref": "other"}, {"podUID": "another"}, None):
        with pytest.raises(KubectlError, match=told):
            place.patch("saved", {"spec": {"snapshot": change}})
    place.patch("saved", {"spec": {"operatingMode": "Suspended"}})  # of another's session, which has an owner


def test_only_the_operator_labels_claims(place: Place) -> None:
    told = r"labels under carrel\.dev/ must be left as they are"
    for user in (PERSON, place.gateway):
        with pytest.raises(KubectlError, match=told):
            create_claim(place, user, "--dry-run=server", session="x")
    create_claim(place, place.operator, session="x")
    where = f"--namespace={place.namespace}"
    for change in ("carrel.dev/session=y", "carrel.dev/session-", "carrel.dev/owner=z"):
        with pytest.raises(KubectlError, match=told):
            place.run("label", "pvc", "claim", where, "--overwrite", change)
    place.run("label", "pvc", "claim", where, "team=a")
    place.run("label", "pvc", "claim", where, "--overwrite", "carrel.dev/session=y", user=place.operator)
