"""What happens to a session's pod against its will: told in the condition, by an Event and by a metric, and overcome.

Plan: a pod that is deleted, evicted, out of memory, and a kernel host that ends, each once; what keeps a pod from
starting, with the way back; and what keeps ending is tried again ever more slowly.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.cluster.bare.containers import pid_of
from tests.cluster.operator.conftest import LEAN, Deployed, session_class
from tests.cluster.operator.hosts import Hosts
from tests.cluster.operator.sessions import Sessions, eventually
from tests.cluster.operator.test_life import events
from tests.cluster.operator.watching import watch
from tests.cluster.provider.base import Cluster, KubectlError

CGROUPS_V2 = Path("/sys/fs/cgroup/cgroup.controllers")
HOG = """
import mmap
while True:
    try:
        hoard = mmap.mmap(-1, 2 ** 31)  # shared memory is no part of the data segment, so no rlimit holds it
        for at in range(0, 2 ** 31, 2 ** 20): hoard[at] = hoard[at + 4096] = 1; hoard[at:at + 2 ** 20] = bytes(2 ** 20)
    except MemoryError: pass
"""


@pytest.fixture
def terminations(cluster: Cluster, pair: Deployed, hosts: Hosts) -> Callable[[str], float]:
    """Returns how many ends of this kind both replicas have counted."""

    def counted(reason: str) -> float:
        return sum(
            sample.value
            for text in metrics(cluster, pair)
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == "carrel_operator_terminations_total" and sample.labels["reason"] == reason
        )

    return counted


def metrics(cluster: Cluster, pair: Deployed) -> Iterator[str]:
    """Yield what each replica measures."""
    for pod in cluster.get("pods", "-n", pair.control)["items"]:
        if pod["status"].get("podIP") and "deletionTimestamp" not in pod["metadata"]:
            yield httpx.get(f"http://{pod['status']['podIP']}:9090/metrics", trust_env=False).text


def force_delete(cluster: Cluster, namespace: str, pod: str) -> None:
    cluster.kubectl("delete", "pod", pod, "-n", namespace, "--grace-period=0", "--force")


def evict(cluster: Cluster, namespace: str, pod: str) -> None:
    """As a drain does it."""
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": namespace}}
    path = f"/api/v1/namespaces/{namespace}/pods/{pod}/eviction"
    cluster.kubectl("create", f"--raw={path}", "--filename=-", stdin=json.dumps(body))


def kill_host(cluster: Cluster, namespace: str, pod: str) -> None:
    """Kill the kernel host, whose kubelet starts it anew in the same pod."""
    os.kill(pid_of(cluster.get("pod", pod, "-n", namespace)), signal.SIGKILL)


@pytest.mark.parametrize(("harm", "reason"), [(force_delete, "PodDeleted"), (evict, "Evicted"), (kill_host, "Crashed")])
async def test_a_lost_kernel_host_is_told_counted_and_replaced(
    cluster: Cluster,
    desks: Sessions,
    hosts: Hosts,
    terminations: Callable[[str], float],
    harm: Callable[[Cluster, str, str], None],
    reason: str,
):
    name = desks.create()
    before = desks.ready(name)
    counted = terminations(reason)
    harm(cluster, desks.namespace, before["podName"])
    eventually("it is counted", lambda: desks.status(name)["restarts"] == 1)
    after = desks.ready(name)
    assert after["lastTermination"]["reason"] == reason
    assert (after["podUID"] == before["podUID"]) == (reason == "Crashed")
    assert await hosts.of(desks.get(name)).run("print('works')") == "works\n"
    assert terminations(reason) == counted + 1
    told(cluster, desks, name, reason)


def told(cluster: Cluster, desks: Sessions, name: str, reason: str) -> str:
    """Wait for the Event about the session, of which there must be one, and return its note."""
    found: list[dict[str, Any]] = []

    def there() -> bool:
        found[:] = [event for event in events(cluster, desks, name) if event["reason"] == reason]
        return bool(found)

    eventually(f"an Event {reason}", there)
    [event] = found
    assert event["type"] == "Warning"
    return event["message"]


def test_a_pod_out_of_memory_is_told_with_its_limit(
    cluster: Cluster, desks: Sessions, hosts: Hosts, terminations: Callable[[str], float]
):
    name = desks.create()
    before = desks.ready(name)
    counted = terminations("OOMKilled")
    # Not in a kernel, which its host would end first: beside it, as what a debugger starts is.
    with pytest.raises(KubectlError, match="137"):
        cluster.kubectl("exec", before["podName"], "-n", desks.namespace, "--", "python", "-c", HOG, timeout=60)
    if not CGROUPS_V2.exists():  # where the whole container is not ended with the one that took the memory
        kill_host(cluster, desks.namespace, before["podName"])
    eventually("it is counted", lambda: desks.status(name)["restarts"] == 1)
    after = desks.ready(name)
    assert after["lastTermination"]["reason"] == "OOMKilled"
    assert after["lastTermination"]["memoryLimit"] == "384Mi"
    assert terminations("OOMKilled") == counted + 1
    assert "went over its memory limit (384Mi)" in told(cluster, desks, name, "OOMKilled")


@pytest.mark.parametrize(
    ("wrong", "reason", "words"),
    [
        ({"nodeSelector": {"carrel.test/no": "where"}}, "Unschedulable", "didn't match Pod's node affinity"),
        (
            {"images": [{"name": "default", "reference": "localhost:1/none/none:1"}]},
            "ImagePullFailed",
            "localhost:1/none/none:1",
        ),
    ],
)
def test_a_pod_that_cannot_start_is_told_and_starts_when_the_class_is_mended(
    cluster: Cluster, pair: Deployed, desks: Sessions, wrong: dict[str, Any], reason: str, words: str
):
    class_name = f"{pair.class_name}-{reason.lower()}"
    cluster.apply(session_class(pair, class_name, **{**LEAN, **wrong}))
    try:
        name = desks.create(className=class_name)
        assert words in desks.wait(name, reason=reason)["message"]
        assert words in told(cluster, desks, name, reason)
        cluster.apply(session_class(pair, class_name, **LEAN))
        pod = desks.status(name)["podName"]
        cluster.kubectl("delete", "pod", pod, "-n", desks.namespace, "--now")  # its spec cannot be changed
        desks.ready(name)
    finally:
        cluster.kubectl("delete", "sessionclass", class_name)


def test_a_refused_pod_is_told_and_made_when_there_is_room(cluster: Cluster, desks: Sessions):
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "none", "namespace": desks.namespace}}
    cluster.apply({**quota, "spec": {"hard": {"count/pods": "0"}}})
    try:
        counts = lambda: cluster.get("resourcequota", "none", "-n", desks.namespace).get("status", {}).get("hard")  # noqa: E731
        eventually("the quota counts", lambda: bool(counts()))
        name = desks.create()
        desks.wait(name, reason="QuotaExceeded")
        assert "the namespace's ResourceQuota none must have room" in told(cluster, desks, name, "QuotaExceeded")
    finally:
        cluster.kubectl("delete", "resourcequota", "none", "-n", desks.namespace)
    desks.ready(name)


def test_pods_that_keep_ending_are_replaced_ever_more_slowly(cluster: Cluster, desks: Sessions):
    name = desks.create()
    status = desks.ready(name)
    pauses: list[float] = []
    with watch(cluster, "pods", "-n", desks.namespace, "--selector=carrel.dev/component=kernel") as history:
        for number in (1, 2, 3):
            force_delete(cluster, desks.namespace, status["podName"])
            eventually("it is counted", lambda number=number: desks.status(name)["restarts"] == number)
            status = desks.ready(name)
            made = history.of(status["podUID"])[0]["metadata"]["creationTimestamp"]
            lost = status["lastTermination"]["time"]
            pauses.append((datetime.fromisoformat(made) - datetime.fromisoformat(lost)).total_seconds())
    assert all(pause >= 2**number - 1 for number, pause in enumerate(pauses, start=1)), pauses


def test_a_kernel_host_that_keeps_ending_is_started_ever_more_slowly(cluster: Cluster, desks: Sessions, hosts: Hosts):
    name = desks.create()
    status = desks.ready(name)
    ends = 0

    def backs_off() -> bool:
        return "back-off" in desks.condition(name)["message"]

    while not backs_off():
        assert ends < 3, desks.condition(name)
        kill_host(cluster, desks.namespace, status["podName"])
        ends += 1
        eventually("it is counted", lambda: desks.status(name)["restarts"] >= ends)  # noqa: B023 (is asked at once)
        eventually("it is up, or waits", lambda: desks.condition(name)["reason"] == "Bound" or backs_off())
    said = desks.condition(name)
    assert said["reason"] == "Crashed"
    assert "the kernel host ended with exit code" in said["message"]
    assert desks.ready(name)["restarts"] == ends
