"""The chart on a real cluster: install → `helm test` → a session → upgrade → uninstall, beside any other installation.

Plan: with exactly the rights of the chart the operator brings a session to Ready. Owners and labels cannot be forged,
tried with three kinds of creators. An upgrade keeps keys, passwords and the running session. An uninstall keeps
people's sessions and no pool; after `remove` nothing of it is left.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Generator
from typing import Any

import httpx
import pytest
from tests.cluster.pods import python_pod
from tests.cluster.provider.base import Cluster, KubectlError
from tools.cluster import RELEASE, Access, Place, helm, remove, up

PLACE = Place(
    namespace="carrel-install-test",
    sessions="carrel-install-test-sessions",
    session_class="install-test",
    gateway_port=30801,
    objects_port=30871,
)
GATEWAY = f"system:serviceaccount:{PLACE.namespace}:{RELEASE}-gateway"
OPERATOR = f"system:serviceaccount:{PLACE.namespace}:{RELEASE}-operator"


@pytest.fixture(scope="module")
def installed(cluster: Cluster) -> Generator[Access]:
    yield up(cluster, PLACE)
    remove(cluster, PLACE, definitions=False)  # other tests' sessions would go with them


def agent_session(name: str, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "carrel.dev/v1alpha1",
        "kind": "AgentSession",
        "metadata": {"name": name, "namespace": PLACE.sessions},
        "spec": {"className": PLACE.session_class, **spec},
    }


def create(cluster: Cluster, document: dict[str, Any], user: str) -> None:
    """Ask to create an object as a user who has every right; only admission can refuse."""
    groups = ("system:authenticated", "system:masters")
    who = [f"--as={user}", *(f"--as-group={group}" for group in groups)]
    cluster.kubectl("create", "--filename=-", "--dry-run=server", *who, stdin=json.dumps(document))


def until(ready: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.2)


def secret(cluster: Cluster, name: str) -> dict[str, str]:
    return cluster.get("secret", name, f"--namespace={PLACE.namespace}")["data"]


def uid(cluster: Cluster, kind: str, name: str) -> str:
    return cluster.get(kind, name, f"--namespace={PLACE.sessions}")["metadata"]["uid"]


def pod_uids(cluster: Cluster, namespace: str, *selector: str) -> set[str]:
    pods = cluster.get("pods", f"--namespace={namespace}", "--field-selector=status.phase=Running", *selector)["items"]
    return {pod["metadata"]["uid"] for pod in pods if "deletionTimestamp" not in pod["metadata"]}


def test_it_is_ready_and_passes_its_own_test(cluster: Cluster, installed: Access) -> None:
    parts = httpx.get(f"{installed.gateway}/health/ready", timeout=10).raise_for_status().json()["parts"]
    assert {name: part["status"] for name, part in parts.items()} == dict.fromkeys(parts, "ok")
    assert {"database", "bus", "object_store", "executor"} <= set(parts)
    assert httpx.get(f"{installed.gateway}/api/sessions", timeout=10).status_code == 401
    helm(cluster, PLACE, "test", RELEASE)


def test_a_session_becomes_ready_with_the_rights_of_the_chart(cluster: Cluster, installed: Access) -> None:
    cluster.apply(agent_session("kept"))
    where = f"--namespace={PLACE.sessions}"
    cluster.kubectl("wait", where, "agentsession/kept", "--for=condition=Ready", "--timeout=90s")
    logs = cluster.kubectl(
        "logs",
        f"--namespace={PLACE.namespace}",
        "--selector=app.kubernetes.io/component=operator",
        "--tail=-1",
        "--prefix",
    )
    assert "forbidden" not in logs.lower()


@pytest.mark.parametrize("field", ["owner", "tenant"])
def test_only_the_gateway_says_whose_a_session_is(cluster: Cluster, installed: Access, field: str) -> None:
    forged = agent_session("forged", **{field: "00000000-0000-7000-8000-000000000001"})

    def refused(user: str) -> bool:
        try:
            create(cluster, forged, user)
        except KubectlError as error:
            return "spec.owner and spec.tenant must be left out" in str(error)
        return False

    for user in ("somebody", OPERATOR, f"system:serviceaccount:{PLACE.sessions}:default"):
        until(lambda user=user: refused(user), 30)  # a new admission policy takes effect after moments
    create(cluster, forged, GATEWAY)
    create(cluster, agent_session("plain"), "somebody")


def test_only_the_operator_labels_pods(cluster: Cluster, installed: Access) -> None:
    labels = {"carrel.dev/component": "kernel"}
    forged = python_pod("forged", "", image="localhost/carrel-kernel:dev", labels=labels)
    forged["metadata"]["namespace"] = PLACE.sessions
    for user in ("somebody", GATEWAY):
        with pytest.raises(KubectlError, match=r"labels under carrel\.dev/ must be left as they are"):
            create(cluster, forged, user)
    create(cluster, forged, OPERATOR)
    where = f"--namespace={PLACE.sessions}"
    pod = cluster.get("agentsession", "kept", where)["status"]["podName"]
    for change in ("carrel.dev/component-", "carrel.dev/session=other", "carrel.dev/new=1"):
        with pytest.raises(KubectlError, match=r"labels under carrel\.dev/ must be left as they are"):
            cluster.kubectl("label", "pod", pod, where, "--overwrite", change)
    cluster.kubectl("label", "pod", pod, where, "team=a")


def test_an_upgrade_keeps_keys_and_sessions(cluster: Cluster, installed: Access) -> None:
    names = [f"{RELEASE}-gateway", f"{RELEASE}-gateway-signing", f"{RELEASE}-operator-signing"]
    before = {name: secret(cluster, name) for name in names}
    gateways = pod_uids(cluster, PLACE.namespace, "--selector=app.kubernetes.io/component=gateway")
    kernels = pod_uids(cluster, PLACE.sessions)
    assert len(gateways) == 2
    assert len(kernels) == 1
    changed = {
        "gateway": {"settings": {"log_level": "debug"}},
        "sessions": {
            "defaultClass": {"spec": {"maximumResources": {"cpu": "3"}}},
            "pools": [{"name": "warm", "className": PLACE.session_class, "replicas": 0}],
        },
    }
    access = up(cluster, PLACE, changed)
    assert access == installed
    assert {name: secret(cluster, name) for name in names} == before
    assert not gateways & pod_uids(cluster, PLACE.namespace, "--selector=app.kubernetes.io/component=gateway")
    assert pod_uids(cluster, PLACE.sessions) == kernels
    assert cluster.get("sessionclass", PLACE.session_class)["spec"]["maximumResources"]["cpu"] == "3"
    unchanged = [("sessionclass", PLACE.session_class), ("sessionpool", "warm")]
    made = [uid(cluster, *which) for which in unchanged]
    up(cluster, PLACE, changed)
    assert [uid(cluster, *which) for which in unchanged] == made, "unchanged, they must stay"
    key = {"Authorization": f"Bearer {access.api_key}"}
    httpx.get(f"{access.gateway}/api/sessions", headers=key, timeout=10).raise_for_status()
    helm(cluster, PLACE, "test", RELEASE)


def test_an_uninstall_keeps_sessions_and_a_removal_nothing(cluster: Cluster, installed: Access) -> None:
    helm(cluster, PLACE, "uninstall", RELEASE, "--wait")
    owned = f"--selector=app.kubernetes.io/instance={RELEASE}"
    for kind in ("deployments", "services", "secrets", "serviceaccounts", "poddisruptionbudgets", "networkpolicies"):
        assert cluster.get(kind, f"--namespace={PLACE.namespace}", owned)["items"] == [], kind
    assert cluster.get("agentsession", "kept", f"--namespace={PLACE.sessions}")["spec"]["className"]
    assert cluster.get("sessionclass", PLACE.session_class)
    assert cluster.get("sessionpools", f"--namespace={PLACE.sessions}")["items"] == []
    remove(cluster, PLACE, definitions=False)
    kinds = "namespaces,sessionclasses,clusterroles,clusterrolebindings,persistentvolumes"
    admission = "validatingadmissionpolicies,validatingadmissionpolicybindings"
    assert "install-test" not in cluster.kubectl("get", f"{kinds},{admission}", "--output=name")
