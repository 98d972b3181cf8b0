"""The operator in a cluster, by itself: with exactly the rights that its reference page lists, and one session class.

It runs as a pod from the product's image, in a namespace beside the one of the sessions, as the chart would have it:
once by itself (`deployed`), and once as two replicas beside gateways that save state, which the tests play (`pair`).
"""

from __future__ import annotations

import json
import secrets
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
import yaml
from tests.cluster.operator.hosts import Hosts
from tests.cluster.operator.pools import Pools
from tests.cluster.operator.sessions import Sessions
from tests.cluster.provider.bare import BareCluster
from tests.cluster.provider.base import Cluster
from tests.support.audit import service_account
from tools.images import Image

from carrel_wire.tokens import Signer, generate_private_key, public_key_of

ROOT = Path(__file__).parents[3]
RULES: dict[str, list[dict[str, Any]]] = {
    "sessions": [
        {"apiGroups": ["carrel.dev"], "resources": ["agentsessions"], "verbs": ["get", "list", "watch", "delete"]},
        {"apiGroups": ["carrel.dev"], "resources": ["agentsessions/status"], "verbs": ["patch"]},
        {"apiGroups": ["carrel.dev"], "resources": ["sessionpools"], "verbs": ["get", "list", "watch"]},
        {"apiGroups": ["carrel.dev"], "resources": ["sessionpools/status"], "verbs": ["patch"]},
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch", "create", "patch", "delete"]},
        {"apiGroups": [""], "resources": ["persistentvolumeclaims"], "verbs": ["get", "create"]},
        {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["create", "patch"]},
        {"apiGroups": [""], "resources": ["events"], "verbs": ["create", "patch"]},
        {"apiGroups": [""], "resources": ["resourcequotas", "limitranges"], "verbs": ["get", "list"]},
        {
            "apiGroups": ["networking.k8s.io"],
            "resources": ["networkpolicies"],
            "verbs": ["get", "list", "watch", "create", "patch", "delete"],
        },
    ],
    "lease": [
        {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["get", "create", "update"]},
    ],
    "classes": [
        {"apiGroups": ["carrel.dev"], "resources": ["sessionclasses"], "verbs": ["get", "list", "watch"]},
    ],
}
LEAN: dict[str, Any] = {
    "kernels": {"preload": [], "spare": 0},
    "defaultResources": {"memory": "384Mi", "cpu": "300m"},
}
"""A class whose pods start soon and of which many fit."""
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}


@pytest.fixture(scope="session")
def definitions(cluster: Cluster) -> None:
    """The custom resource definitions are there and served."""
    for path in sorted((ROOT / "crds").glob("*.yaml")):
        cluster.apply(yaml.safe_load(path.read_text(encoding="utf-8")))
    names = ("agentsessions", "sessionclasses", "sessionpools")
    cluster.kubectl(
        "wait", "--for=condition=Established", "--timeout=60s", *(f"crd/{name}.carrel.dev" for name in names)
    )


@pytest.fixture(scope="package")
def rules_namespace(cluster: Cluster, definitions: None) -> Generator[str]:
    """A namespace that no operator looks at."""
    name = f"carrel-rules-{secrets.token_hex(4)}"
    cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    yield name
    cluster.kubectl("delete", "namespace", name, "--wait=false")


@dataclass(frozen=True)
class Deployed:
    """Where the operator and its sessions are."""

    control: str
    """Namespace of the operator."""
    sessions: str
    class_name: str
    kernel_image: str
    gateway_key: str = field(default_factory=generate_private_key, repr=False)
    """With which tests sign as a gateway does."""

    @property
    def user(self) -> str:
        """The operator, as the API server calls it."""
        return service_account(self.control, "operator")


@contextmanager
def deploy(
    cluster: Cluster, image: Callable[[str], Image], *, replicas: int = 1, class_spec: dict[str, Any], **settings: str
) -> Iterator[Deployed]:
    """Run the operator in namespaces of its own, with these `CARREL_*` variables beside those that it needs."""
    suffix = secrets.token_hex(4)
    place = Deployed(f"carrel-op-{suffix}", f"carrel-op-{suffix}-s", f"op-{suffix}", image("kernel").tag)
    for name in (place.control, place.sessions):
        cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": RESTRICTED}})
    cluster.apply(*rights(place), *workload(place, image("operator").tag, replicas=replicas, **settings))
    cluster.apply(session_class(place, **class_spec))
    try:
        cluster.kubectl("rollout", "status", "deployment/operator", "-n", place.control, "--timeout=120s")
        yield place
    finally:
        print(cluster.kubectl("logs", "-l=app.kubernetes.io/component=operator", "-n", place.control, "--tail=200"))
        cluster.kubectl("delete", "namespace", place.control, place.sessions, "--wait=false")
        cluster.kubectl("delete", "clusterrole,clusterrolebinding", place.control)
        cluster.kubectl("delete", "sessionclass", place.class_name)


@pytest.fixture(scope="package")
def deployed(cluster: Cluster, image: Callable[[str], Image], definitions: None) -> Generator[Deployed]:
    """A running operator without gateways beside it: nobody saves state."""
    with deploy(cluster, image, class_spec={}, CARREL_SNAPSHOTS="false") as place:
        yield place


@pytest.fixture(scope="package")
def pair(cluster: Cluster, image: Callable[[str], Image], definitions: None) -> Generator[Deployed]:
    """Two replicas beside gateways that save state; kernels that import nothing before they are asked."""
    with deploy(cluster, image, replicas=2, class_spec=LEAN, CARREL_RESYNC_SECONDS="15") as place:
        yield place


@pytest.fixture
def sessions(cluster: Cluster, deployed: Deployed) -> Generator[Sessions]:
    """Sessions of one test; they are deleted after it."""
    made = Sessions(cluster, deployed.sessions, deployed.class_name)
    yield made
    made.delete_all()


@pytest.fixture
def desks(cluster: Cluster, pair: Deployed) -> Generator[Sessions]:
    """Sessions of one test, of the pair of replicas; they are deleted after it."""
    made = Sessions(cluster, pair.sessions, pair.class_name)
    yield made
    made.delete_all()


@pytest.fixture
def pools(cluster: Cluster, pair: Deployed) -> Generator[Pools]:
    """Pools of one test, each of a class of its own; they are deleted after it."""
    made = Pools(cluster, pair.sessions, lambda name, spec: session_class(pair, name, **{**LEAN, **spec}))
    yield made
    made.delete_all()


@pytest_asyncio.fixture
async def hosts(cluster: Cluster, pair: Deployed) -> AsyncIterator[Hosts]:
    """The pair's kernel hosts, as a gateway calls them."""
    if not isinstance(cluster, BareCluster):
        pytest.skip("pods are called from here on the bare host only")
    async with aiohttp.ClientSession(trust_env=False) as http:
        made = Hosts(http, Signer("gateway-1", pair.gateway_key))
        yield made
        await made.aclose()


def rights(place: Deployed) -> list[dict[str, Any]]:
    """Return what the operator may do."""
    subject = {"kind": "ServiceAccount", "name": "operator", "namespace": place.control}
    found: list[dict[str, Any]] = [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "operator", "namespace": place.control}}
    ]
    for kind, name, namespace, rules in (
        ("Role", "operator", place.sessions, RULES["sessions"]),
        ("Role", "operator", place.control, RULES["lease"]),
        ("ClusterRole", place.control, None, RULES["classes"]),
    ):
        metadata = {"name": name, **({"namespace": namespace} if namespace else {})}
        reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name}
        version = {"apiVersion": "rbac.authorization.k8s.io/v1", "metadata": metadata}
        found += [
            {**version, "kind": kind, "rules": rules},
            {**version, "kind": f"{kind}Binding", "roleRef": reference, "subjects": [subject]},
        ]
    return found


def workload(place: Deployed, tag: str, *, replicas: int = 1, **settings: str) -> list[dict[str, Any]]:
    """Return the keys and the deployment."""
    labels = {"app.kubernetes.io/component": "operator"}
    keys = {
        "operator.key": generate_private_key(),
        "gateway.pub": public_key_of(place.gateway_key),
        "further.json": "[]",
    }
    environment = {
        "CARREL_NAMESPACE": place.control,
        "CARREL_SESSION_NAMESPACE": place.sessions,
        "CARREL_OPERATOR_PRIVATE_KEY_FILE": "/keys/operator.key",
        "CARREL_GATEWAY_PUBLIC_KEY_FILE": "/keys/gateway.pub",
        "CARREL_FURTHER_KEYS_FILE": "/keys/further.json",
        "CARREL_LOG_LEVEL": "debug",
        **settings,
    }
    address = {"name": "CARREL_POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}
    container = {
        "name": "operator",
        "image": tag,
        "imagePullPolicy": "IfNotPresent",
        "env": [address, *({"name": name, "value": value} for name, value in environment.items())],
        "readinessProbe": {"httpGet": {"path": "/readyz", "port": 8080}, "periodSeconds": 1, "timeoutSeconds": 5},
        "livenessProbe": {"httpGet": {"path": "/healthz", "port": 8080}, "periodSeconds": 10, "timeoutSeconds": 5},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]},
                            "readOnlyRootFilesystem": True},
        "volumeMounts": [{"name": "keys", "mountPath": "/keys"}, {"name": "tmp", "mountPath": "/tmp"}],
    }  # fmt: skip
    pod = {
        "serviceAccountName": "operator",
        "terminationGracePeriodSeconds": 15,
        "securityContext": {"runAsNonRoot": True, "fsGroup": 65532, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [container],
        "volumes": [{"name": "keys", "secret": {"secretName": "keys"}}, {"name": "tmp", "emptyDir": {}}],
    }
    template = {"metadata": {"labels": labels}, "spec": pod}
    here = {"namespace": place.control}
    return [
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "keys", **here}, "stringData": keys},
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "operator", **here},
            "spec": {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template},
        },
    ]


def session_class(place: Deployed, name: str | None = None, **spec: Any) -> dict[str, Any]:
    """Return a class with the kernel image; small, so that several pods fit."""
    return {
        "apiVersion": "carrel.dev/v1alpha1",
        "kind": "SessionClass",
        "metadata": {"name": name or place.class_name},
        "spec": {
            "images": [{"name": "default", "reference": place.kernel_image}],
            "allowTags": True,
            "runAsUser": 65532,
            "defaultResources": {"memory": "384Mi", "cpu": "500m"},
            "egress": [{"cidr": "203.0.113.0/24", "ports": [443]}],
            **json.loads(json.dumps(spec)),
        },
    }
