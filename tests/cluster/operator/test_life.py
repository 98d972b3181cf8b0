"""When a session's pod ends by its own terms, and that its state is saved first. The tests play the gateway.

Plan: idle, asked, saved, suspended, woken with its variables; a long cell and an open client keep it from idling, told
by every version of the object meanwhile; a failure to save is told and keeps the pod; a suspension with kubectl waits
for the snapshot of that very pod; what lost its owner is swept.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

from tests.cluster.operator.hosts import Hosts
from tests.cluster.operator.sessions import Sessions, eventually
from tests.cluster.operator.watching import History, watch
from tests.cluster.provider.base import Cluster

IDLE = 3
"""Seconds."""
LONG = 5 * IDLE
IDLES = json.dumps({"idleTimeoutSeconds": IDLE})


def asked(history: History) -> list[str]:
    """Return the reasons for which a gateway was asked to save, in all versions of the session."""
    found: list[str] = []
    for _, session in history.events:
        conditions = session.get("status", {}).get("conditions", [])
        found += [one["reason"] for one in conditions if one["type"] == "SnapshotRequested" and one["status"] == "True"]
    return found


def suspend(desks: Sessions, name: str, snapshot: dict[str, str]) -> None:
    desks.patch(name, json.dumps({"snapshot": snapshot, "operatingMode": "Suspended"}))


async def test_an_idle_session_is_saved_suspended_and_comes_back_with_its_variables(desks: Sessions, hosts: Hosts):
    name = desks.create(idleTimeoutSeconds=IDLE)
    before = desks.ready(name)
    kernel = hosts.of(desks.get(name))
    await kernel.run("kept = 41")
    said = desks.wait(name, kind="SnapshotRequested", reason="Idle")
    assert said["status"] == "True"
    assert said["message"].startswith(f"nothing ran and nobody was connected for {IDLE} s; ")
    assert desks.condition(name)["reason"] == "Bound"
    saved = await kernel.save()
    await kernel.seal(saved)
    suspend(desks, name, saved.reference)
    assert desks.wait(name, kind="Suspended", reason="Suspended")["status"] == "True"
    assert not desks.exists("pod", before["podName"])
    assert desks.condition(name, "SnapshotRequested")["status"] == "False"
    assert "its state is saved" in desks.condition(name)["message"]
    assert desks.condition(name, "Finished")["status"] == "False"

    desks.patch(name, '{"operatingMode": "Running"}')
    after = desks.ready(name)
    assert after["podUID"] != before["podUID"]
    assert after["restarts"] == 0
    woken = hosts.of(desks.get(name))
    await woken.restore(saved)
    assert await woken.run("print(kept + 1)") == "42\n"


async def test_a_cell_keeps_its_session_for_as_long_as_it_runs(cluster: Cluster, desks: Sessions, hosts: Hosts):
    name = desks.create()
    desks.ready(name)
    kernel = hosts.of(desks.get(name))
    cell = asyncio.create_task(kernel.run(f"import time; time.sleep({LONG}); print('over')"))
    while not (await kernel.state()).busy:  # noqa: ASYNC110 (is asked of the host)
        await asyncio.sleep(0.1)
    with watch(cluster, "agentsession", name, "-n", desks.namespace) as history:
        desks.patch(name, IDLES)  # from here on only the cell keeps it
        assert await cell == "over\n"
        await seen(desks, name, history)
        assert asked(history) == []
        desks.wait(name, kind="SnapshotRequested", reason="Idle")


async def test_an_open_client_keeps_its_session(cluster: Cluster, desks: Sessions, hosts: Hosts):
    name = desks.create()
    desks.ready(name)
    client = await hosts.of(desks.get(name)).connect()
    with watch(cluster, "agentsession", name, "-n", desks.namespace) as history:
        desks.patch(name, IDLES)
        await asyncio.sleep(LONG)  # what is to be shown is that nothing happens meanwhile
        await seen(desks, name, history)
        assert asked(history) == []
        await client.close()
        desks.wait(name, kind="SnapshotRequested", reason="Idle")


async def seen(desks: Sessions, name: str, history: History) -> None:
    """Wait until the watch has the present version."""
    version = desks.get(name)["metadata"]["resourceVersion"]
    await asyncio.to_thread(
        eventually,
        "the watch is there",
        lambda: any(found["metadata"]["resourceVersion"] == version for _, found in history.events),
    )


async def test_work_after_the_request_withdraws_it(desks: Sessions, hosts: Hosts):
    name = desks.create(idleTimeoutSeconds=IDLE)
    desks.ready(name)
    desks.wait(name, kind="SnapshotRequested", reason="Idle")
    client = await hosts.of(desks.get(name)).connect()
    desks.wait(name, kind="SnapshotRequested", reason="Active")
    await client.close()


def test_a_failure_to_save_is_told_and_the_pod_stays(cluster: Cluster, desks: Sessions):
    name = desks.create()
    status = desks.ready(name)
    desks.patch(name, '{"operatingMode": "Suspended"}')
    desks.wait(name, kind="SnapshotRequested", reason="Suspending")
    annotate(cluster, desks, name, "carrel.dev/snapshot-failure=the object store is full")
    told = "it could not be saved yet: the object store is full"
    eventually("it is told", lambda: desks.condition(name, "SnapshotRequested").get("message", "").endswith(told))
    assert desks.condition(name, "Suspended")["status"] == "False"
    assert "deletionTimestamp" not in desks.pod(name)["metadata"]
    assert desks.status(name)["endpoint"] == status["endpoint"]
    annotate(cluster, desks, name, "carrel.dev/snapshot-failure-")
    again = "a gateway is to save its state"
    eventually("it is asked again", lambda: desks.condition(name, "SnapshotRequested")["message"].endswith(again))
    suspend(desks, name, {"podUID": status["podUID"]})
    desks.wait(name, kind="Suspended", reason="Suspended")


def annotate(cluster: Cluster, desks: Sessions, name: str, what: str) -> None:
    cluster.kubectl("annotate", "agentsession", name, "-n", desks.namespace, "--overwrite", what)


def test_a_suspension_with_kubectl_waits_for_the_snapshot_of_that_very_pod(cluster: Cluster, desks: Sessions):
    name = desks.create()
    status = desks.ready(name)
    with watch(cluster, "pod", status["podName"], "-n", desks.namespace) as history:
        desks.patch(name, '{"operatingMode": "Suspended"}')
        said = desks.wait(name, kind="Suspended", reason="Suspending")
        assert said["message"] == "operatingMode is Suspended, and its pod ends when its state is saved"
        suspend(desks, name, {"podUID": "00000000-0000-4000-8000-000000000000", "ref": "another"})
        generation = desks.get(name)["metadata"]["generation"]
        observed = lambda: desks.condition(name, "SnapshotRequested").get("observedGeneration")  # noqa: E731
        eventually("the other pod's snapshot is seen", lambda: observed() == generation)
        assert not deleted(history)
        suspend(desks, name, {"podUID": status["podUID"], "ref": "its own"})
        desks.wait(name, kind="Suspended", reason="Suspended")
        eventually("the pod's end is seen", lambda: bool(deleted(history)))
    [event] = [event for event in events(cluster, desks, name) if event["reason"] == "Suspended"]
    assert event["type"] == "Normal"


def deleted(history: History) -> list[dict[str, Any]]:
    return [found for kind, found in history.events if kind == "DELETED" or "deletionTimestamp" in found["metadata"]]


def events(cluster: Cluster, desks: Sessions, name: str) -> list[dict[str, Any]]:
    """Return the Kubernetes Events about a session."""
    uid = desks.get(name)["metadata"]["uid"]
    return cluster.get("events", "-n", desks.namespace, f"--field-selector=involvedObject.uid={uid}")["items"]


def test_what_lost_its_owner_is_swept(cluster: Cluster, desks: Sessions):
    name = desks.create(network={"egress": [{"cidr": "203.0.113.0/25", "ports": [443]}]})
    pod = desks.ready(name)["podName"]
    cluster.kubectl("delete", "agentsession", name, "-n", desks.namespace, "--cascade=orphan")
    assert "ownerReferences" not in cluster.get("pod", pod, "-n", desks.namespace)["metadata"]
    eventually("the pod is gone", lambda: not desks.exists("pod", pod), seconds=240)
    eventually("its policy is gone", lambda: not desks.exists("networkpolicy", f"{pod}-egress"), seconds=60)
