"""Two replicas: one writes at a time, the other follows within 15 s; an API server that is away costs nobody a kernel.

Plan: the leader is killed with its pod, and the leader stands still and goes on, both under load and judged by the
audit log: who wrote when, and each version of a session by one write; what both say of themselves; a rollout writes
nothing to what runs; a minute without API server, with cells running meanwhile. Two minutes at most for anything to
come about: what is asserted are orders, counts, and the time that the lease gives.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from tests.cluster.bare.containers import api_server_away, pid_of, stopped
from tests.cluster.operator.conftest import LEAN, Deployed, session_class
from tests.cluster.operator.hosts import Hosts
from tests.cluster.operator.sessions import Sessions, eventually
from tests.cluster.operator.watching import History, watch
from tests.cluster.provider.bare import BareCluster
from tests.cluster.provider.base import Cluster
from tests.support.audit import AuditLog, Mark, Write

from carrel_operator.leader import DURATION, POLL

AWAY = 60
"""Seconds without API server."""
SLOW = 5.0
"""Seconds that two polls and a write may take beyond their time on a machine that is busy."""
WAVES = 4
WAVE = 8


@dataclass(frozen=True)
class Replica:
    """One pod of the operator."""

    name: str
    address: str
    document: dict[str, Any]

    def readiness(self) -> dict[str, Any]:
        """Return what `/readyz` says."""
        return httpx.get(f"http://{self.address}:8080/readyz", trust_env=False, timeout=10).json()


@pytest.fixture(autouse=True)
def host_of_the_pods(cluster: Cluster) -> None:
    """Processes of pods are stopped and killed from here."""
    if not isinstance(cluster, BareCluster):
        pytest.skip("processes of pods are within reach on the bare host only")


def replicas(cluster: Cluster, pair: Deployed) -> list[Replica]:
    """Return both replicas, when both say that they are ready."""
    found: list[Replica] = []

    def ready() -> bool:
        pods = cluster.get("pods", "-n", pair.control, "-l=app.kubernetes.io/component=operator")["items"]
        found[:] = [
            Replica(pod["metadata"]["name"], pod["status"]["podIP"], pod)
            for pod in pods
            if "deletionTimestamp" not in pod["metadata"] and pod["status"].get("podIP")
        ]
        try:
            return len(found) == 2 and all(one.readiness()["ok"] for one in found)
        except httpx.TransportError:
            return False

    eventually("both replicas are ready", ready, seconds=300)
    return found


def leader(cluster: Cluster, pair: Deployed) -> Replica:
    """Return the one that holds the lease."""
    found: list[Replica] = []

    def holds() -> bool:
        lease = cluster.get("lease", "carrel-operator", "-n", pair.control)
        found[:] = [one for one in replicas(cluster, pair) if one.name == lease["spec"].get("holderIdentity")]
        return bool(found)

    eventually("one of the replicas leads", holds)
    return found[0]


@pytest.fixture
def nowhere(cluster: Cluster, pair: Deployed) -> Iterator[str]:
    """A class whose pods find no node: the operator writes what it always writes, and nothing starts."""
    name = f"{pair.class_name}-nowhere"
    cluster.apply(session_class(pair, name, **{**LEAN, "nodeSelector": {"carrel.test/no": "where"}}))
    yield name
    cluster.kubectl("delete", "sessionclass", name)


@contextmanager
def load(cluster: Cluster, desks: Sessions, class_name: str) -> Iterator[tuple[list[str], History]]:
    """Make sessions before and, until all are there, after what the caller does; none of them finds a node."""
    desks.create(className=class_name)  # a watch begins with something, and is to miss nothing of the others
    with watch(cluster, "agentsessions", "-n", desks.namespace) as history:
        made = desks.create_many(WAVE, className=class_name)
        yield made, history
        for _ in range(WAVES):
            made += desks.create_many(WAVE, className=class_name)
        for name in made:
            desks.wait(name, reason="Unschedulable")


def written(pair: Deployed, audit: AuditLog, mark: Mark) -> list[Write]:
    """Return what the operator's account wrote, in the order in which the API server took it."""
    return sorted((write for write in audit.since(mark) if write.user == pair.user), key=lambda write: write.received)


def check_one_writer(writes: list[Write], *, stood_still: bool = False) -> None:
    """Check that at each moment only the one wrote that had the lease: that wrote it last, and was not refused.

    A process that stood still may have had one request of each session under way, and the Event that tells of one: they
    leave when it goes on, and only their versions keep them from doing harm (`check_single_writes`). What would follow
    them, with a faulty fence, does not leave.
    """
    holder = ""
    late: list[Write] = []
    for write in writes:
        if write.resource != "leases":
            late += [write] if holder and write.source != holder else []
        elif write.accepted:
            holder = write.source
    assert stood_still or not late, late
    assert max(Counter(map(_concerns, late)).values(), default=0) <= 1, late


def _concerns(write: Write) -> tuple[str, bool]:
    """Return the session that was written for, and whether it was an Event."""
    name = write.name.partition(".")[0]
    return name.rpartition("-")[0] if write.resource == "pods" else name, write.resource == "events"


def seconds_without_leader(writes: list[Write], old: Replica, since: datetime) -> float:
    """Return the seconds from then until another one took the lease."""
    first = next(
        write
        for write in writes
        if write.resource == "leases" and write.accepted and write.source != old.address and write.received > since
    )
    return (first.received - since).total_seconds()


def check_single_writes(writes: list[Write], history: History, desks: Sessions, made: list[str]) -> None:
    """Check that each session has one pod, and each version of its status came about by one write.

    What the API server answered with 5xx it may have done.
    """
    here = [write for write in writes if write.namespace == desks.namespace]
    done = Counter((write.verb, write.resource, write.name) for write in here if write.accepted)
    unknown = Counter((write.verb, write.resource, write.name) for write in here if write.code >= 500)
    for name in made:
        session = desks.get(name)
        versions = [one for one in history.of(session["metadata"]["uid"]) if one.get("status")]
        told = [repr(one["status"]) for one in versions]
        assert len(set(told)) == len(told), told
        number = len({one["metadata"]["resourceVersion"] for one in versions})
        status, pod = ("patch", "agentsessions/status", name), ("create", "pods", session["status"]["podName"])
        assert done[status] <= number <= done[status] + unknown[status], name
        assert done[pod] <= 1 <= done[pod] + unknown[pod], name


def test_a_leader_that_is_killed_is_followed_in_time_and_nothing_is_written_twice(
    cluster: Cluster, pair: Deployed, audit: AuditLog, desks: Sessions, nowhere: str
):
    old = leader(cluster, pair)
    mark = audit.mark()
    with load(cluster, desks, nowhere) as (made, history):
        made.extend(desks.create_many(WAVE, className=nowhere))  # these are in its hands
        killed = datetime.now(UTC)
        pid = pid_of(old.document)
        with stopped(pid):  # else its kubelet would start it anew before its pod is gone
            cluster.kubectl("delete", "pod", old.name, "-n", pair.control, "--grace-period=0", "--force")
            os.kill(pid, signal.SIGKILL)
    writes = written(pair, audit, mark)
    check_one_writer(writes)
    seconds = seconds_without_leader(writes, old, killed)
    print(f"taken over {seconds:.1f} s after the kill")
    assert seconds <= DURATION + 2 * POLL + SLOW
    check_single_writes(writes, history, desks, made)
    assert leader(cluster, pair).name != old.name


def test_a_leader_that_stood_still_writes_nothing_after_another_has_begun(
    cluster: Cluster, pair: Deployed, audit: AuditLog, desks: Sessions, nowhere: str
):
    old = leader(cluster, pair)
    mark = audit.mark()

    def followed() -> bool:
        """Another one leads; on a machine so slow that it does not, the kubelet has replaced what stood still."""
        lease = cluster.get("lease", "carrel-operator", "-n", pair.control)["spec"]
        return lease["holderIdentity"] not in {old.name, ""} or restarts(cluster, pair, old) > before

    before = restarts(cluster, pair, old)
    with load(cluster, desks, nowhere) as (made, history), stopped(pid_of(old.document)):
        made.extend(desks.create_many(WAVE, className=nowhere))
        eventually("it is followed", followed)
    replicas(cluster, pair)
    writes = written(pair, audit, mark)
    check_one_writer(writes, stood_still=True)
    check_single_writes(writes, history, desks, made)


def restarts(cluster: Cluster, pair: Deployed, replica: Replica) -> int:
    (container,) = cluster.get("pod", replica.name, "-n", pair.control)["status"]["containerStatuses"]
    return container["restartCount"]


def test_each_replica_tells_how_it_stands(cluster: Cluster, pair: Deployed, desks: Sessions, nowhere: str):
    leading = leader(cluster, pair).name
    desks.wait(desks.create(className=nowhere), reason="Unschedulable")
    for replica in replicas(cluster, pair):
        eventually(
            "it has heard of the session", lambda replica=replica: replica.readiness()["lastWatchEventSeconds"] < 60
        )
        said = replica.readiness()
        assert said["ok"] is True
        assert said["leader"] == (replica.name == leading)


def test_a_rollout_of_both_replicas_writes_nothing_to_what_runs(
    cluster: Cluster, pair: Deployed, audit: AuditLog, desks: Sessions
):
    name = desks.create()
    pod = desks.ready(name)["podName"]
    desks.wait(name, kind="Isolated", reason="Enforced")
    before, mark = desks.get(name), audit.mark()
    old = {replica.address for replica in replicas(cluster, pair)}
    cluster.kubectl("rollout", "restart", "deployment/operator", "-n", pair.control)
    cluster.kubectl("rollout", "status", "deployment/operator", "-n", pair.control, "--timeout=180s")
    desks.ready(desks.create())  # one of the new ones works
    after = desks.get(name)
    assert after["metadata"]["resourceVersion"] == before["metadata"]["resourceVersion"]
    writes = written(pair, audit, mark)
    assert [write for write in writes if write.name in {name, pod}] == []
    assert {write.source for write in writes if write.resource == "leases" and write.accepted} - old


async def test_a_minute_without_api_server_costs_nobody_a_kernel(
    cluster: Cluster, pair: Deployed, desks: Sessions, hosts: Hosts
):
    made = [desks.create(), desks.create(idleTimeoutSeconds=600)]
    before = {name: desks.ready(name) for name in made}
    kernels = [hosts.of(desks.get(name)) for name in made]
    ends, steps = time.monotonic() + AWAY, [0] * len(made)

    async def work(number: int) -> None:
        await kernels[number].run("total = 0")
        while time.monotonic() < ends:
            steps[number] += 1
            assert await kernels[number].run("total += 1; print(total)") == f"{steps[number]}\n"
            await asyncio.sleep(0.2)

    with api_server_away():
        await asyncio.gather(*(work(number) for number in range(len(made))))
    assert min(steps) > 5
    desks.ready(desks.create())
    for name, kernel, count in zip(made, kernels, steps, strict=True):
        assert desks.status(name)["podUID"] == before[name]["podUID"]
        assert desks.ready(name)["restarts"] == 0
        assert await kernel.run("print(total)") == f"{count}\n"
    leader(cluster, pair)
