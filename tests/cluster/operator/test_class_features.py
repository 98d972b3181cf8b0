"""What classes may ask of a cluster, one by one: it reaches the pod where the cluster has it, and is told where not.

Plan: a class for each feature, in the operator's own namespace of sessions. Where a node has to fail, all sessions that
wait for that minute wait together.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest
from tests.cluster.operator.conftest import Deployed, session_class
from tests.cluster.operator.sessions import Sessions, eventually
from tests.cluster.provider.base import Cluster
from tests.support.certificates import certificate

MakeClass = Callable[..., str]
PROXY = "http://proxy.example.org:3128"
ENVIRONMENTS = """
import glob, json
found = {}
for path in glob.glob("/proc/[0-9]*/environ"):
    try:
        text = open(path).read()
    except OSError:  # the kernel host's is nobody's to read
        continue
    found |= dict(entry.split("=", 1) for entry in text.split("\\0") if "=" in entry)
print(json.dumps(found))
"""
"""Run in a pod: variables of all processes whose environment can be read, which are kernels and their fork server."""


@pytest.fixture
def make_class(cluster: Cluster, deployed: Deployed) -> Generator[MakeClass]:
    """Make classes like the usual one, with changes; they are deleted after the test."""
    made: list[str] = []

    def make(suffix: str, **spec: Any) -> str:
        made.append(f"{deployed.class_name}-{suffix}")
        document = session_class(deployed, made[-1], **spec)
        document["spec"] = {key: value for key, value in document["spec"].items() if value is not None}
        cluster.apply(document)
        return made[-1]

    yield make
    if made:
        cluster.kubectl("delete", "sessionclass", *made)


def inside(cluster: Cluster, sessions: Sessions, name: str, code: str) -> str:
    """Run Python in a session's pod, beside its kernel host."""
    pod = sessions.status(name)["podName"]
    return cluster.kubectl("exec", pod, "-n", sessions.namespace, "--", "python", "-c", code)


@pytest.fixture
def authority(tmp_path: Path) -> str:
    """A certificate authority as PEM."""
    return certificate(tmp_path)[0].read_text()


def config_map(sessions: Sessions, name: str, authority: str) -> dict[str, Any]:
    metadata = {"name": name, "namespace": sessions.namespace}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"ca.crt": authority}}


def test_kernels_are_told_of_proxy_and_authorities(
    cluster: Cluster, sessions: Sessions, make_class: MakeClass, authority: str
) -> None:
    cluster.apply(config_map(sessions, "corporate-ca", authority))
    name = sessions.create(
        className=make_class("surroundings", proxy={"http": PROXY, "noProxy": ".example.org"}, caBundle="corporate-ca")
    )
    sessions.ready(name)
    found: dict[str, str] = {}

    def told() -> bool:
        """The session may be ready before its first kernel's process is there; this very program is not told."""
        found.update(json.loads(inside(cluster, sessions, name, ENVIRONMENTS)))
        return "SSL_CERT_FILE" in found

    eventually("a kernel is told of the authorities", told)
    assert found["HTTP_PROXY"] == found["http_proxy"] == PROXY
    assert found["NO_PROXY"] == "localhost,127.0.0.1,::1,.example.org"
    file = found["SSL_CERT_FILE"]
    assert found["REQUESTS_CA_BUNDLE"] == found["CURL_CA_BUNDLE"] == found["PIP_CERT"] == file
    assert authority.strip() in inside(cluster, sessions, name, f"print(open({file!r}).read())")


def test_a_data_set_is_mounted_and_cannot_be_written(
    cluster: Cluster, sessions: Sessions, make_class: MakeClass
) -> None:
    named = make_class("data", datasets=[{"name": "weather", "claimName": "weather-2026"}])
    name = sessions.create(className=named, datasets=["weather"])
    assert sessions.wait(name, reason="DatasetNotFound")["message"] == (
        "the class's data set weather must have the PersistentVolumeClaim weather-2026 in this namespace, and there is "
        "none; leave the data set out, or have the claim made"
    )
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "10Mi"}}}
    metadata = {"name": "weather-2026", "namespace": sessions.namespace}
    cluster.apply({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": spec})
    sessions.ready(name)
    tried = "try: open('/datasets/weather/x', 'w')\nexcept OSError as error: print(error.strerror)"
    assert inside(cluster, sessions, name, tried).strip() == "Read-only file system"


def test_gpus_that_no_node_has_are_told(sessions: Sessions, make_class: MakeClass) -> None:
    named = make_class("gpu", maximumResources={"gpu": 1}, gpuResourceName="carrel.test/gpu")
    said = sessions.wait(sessions.create(className=named, resources={"gpu": 1}), reason="Unschedulable")
    assert said["message"].startswith(
        "no node has 1 carrel.test/gpu free; wait, ask for fewer, or have such nodes added"
    )


def test_a_priority_class_is_the_pods_or_told_to_be_missing(
    cluster: Cluster, deployed: Deployed, sessions: Sessions, make_class: MakeClass
) -> None:
    priority = f"{deployed.class_name}-low"
    name = sessions.create(className=make_class("priority", priorityClassName=priority))
    said = sessions.wait(name, reason="PriorityClassNotFound")["message"]
    assert said.startswith(
        f"the class's priorityClassName must be an existing PriorityClass, and there is no '{priority}'"
    )
    made = {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": priority}}
    cluster.apply({**made, "value": -7, "preemptionPolicy": "Never"})
    try:
        sessions.ready(name)
        assert sessions.pod(name)["spec"]["priority"] == -7
    finally:
        cluster.kubectl("delete", "priorityclass", priority)


def test_a_runtime_class_that_is_missing_is_told(sessions: Sessions, make_class: MakeClass) -> None:
    name = sessions.create(className=make_class("runtime", runtimeClassName="carrel-test-none"))
    said = sessions.wait(name, reason="RuntimeClassNotFound")["message"]
    assert said.startswith("the class's runtimeClassName must be an existing RuntimeClass")


def test_pull_secrets_are_named_where_the_image_cannot_be_pulled(sessions: Sessions, make_class: MakeClass) -> None:
    images = [{"name": "default", "reference": "localhost:1/none/none:1"}]
    name = sessions.create(className=make_class("pull", images=images, pullSecrets=["registry-login"]))
    said = sessions.wait(name, reason="ImagePullFailed")["message"]
    assert "localhost:1/none/none:1" in said
    assert said.endswith(
        "the class's pull secrets (registry-login) must be in this namespace and let the image be pulled"
    )


def test_a_platform_may_assign_the_user(cluster: Cluster, sessions: Sessions, make_class: MakeClass) -> None:
    """Here the image's own user takes the place of one that a platform would assign."""
    name = sessions.create(className=make_class("user", runAsUser=None))
    sessions.ready(name)
    context = sessions.pod(name)["spec"]["securityContext"]
    assert context == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    assert inside(cluster, sessions, name, "import os; print(os.getuid())").strip() != "0"


def test_what_a_node_lacks_is_told_after_a_minute(
    cluster: Cluster, deployed: Deployed, sessions: Sessions, make_class: MakeClass, authority: str
) -> None:
    runtime = f"{deployed.class_name}-absent"
    cluster.apply(
        {"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": runtime}, "handler": "absent"}
    )
    try:
        late = sessions.create(className=make_class("no-ca", caBundle="late-ca"))
        handler = sessions.create(className=make_class("no-handler", runtimeClassName=runtime))
        users = sessions.create(className=make_class("users", userNamespace="Required"))
        said = sessions.wait(late, reason="PodNotPrepared")["message"]
        assert (
            "the pod needs the ConfigMap late-ca with the key ca.crt (the class's caBundle). The events of pod" in said
        )
        said = sessions.wait(handler, reason="PodNotPrepared")["message"]
        assert f"the pod needs the runtime of RuntimeClass {runtime} on that node. The events of pod" in said
        eventually("a node has user namespaces, or lacks them", lambda: users_are_told(sessions, users))
        cluster.apply(config_map(sessions, "late-ca", authority))
        sessions.ready(late)
    finally:
        cluster.kubectl("delete", "runtimeclass", runtime)


def users_are_told(sessions: Sessions, name: str) -> bool:
    said = sessions.condition(name)
    lacking = "user namespaces on that node (the class's userNamespace)"
    return said.get("reason") == "Bound" or (said.get("reason") == "PodNotPrepared" and lacking in said["message"])


def test_a_limit_range_is_told_and_the_session_comes_up_without_it(cluster: Cluster, sessions: Sessions) -> None:
    limits = [{"type": "Container", "max": {"memory": "256Mi"}}]
    metadata = {"name": "small", "namespace": sessions.namespace}
    cluster.apply({"apiVersion": "v1", "kind": "LimitRange", "metadata": metadata, "spec": {"limits": limits}})
    name = sessions.create()
    said = sessions.wait(name, reason="LimitRangeExceeded")["message"]
    assert "memory limit of a Container must be at most 256Mi, not 384Mi" in said
    cluster.kubectl("delete", "limitrange", "small", "-n", sessions.namespace)
    sessions.ready(name)
