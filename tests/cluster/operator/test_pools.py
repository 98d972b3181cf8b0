"""Pools on a real cluster: kept full, claimed from, scaled, renewed; no pod is ever two sessions'.

Plan: one pool filled; a claim with all that it brings, and one after it that finds nothing of it; what sends a session
to a cold start, in words; kubectl scale and a real autoscaler; a changed class replaces pods a few at a time, told by
watch; twenty sessions at once on five pods; and what claims cost in writes, told by the audit log.
"""

from __future__ import annotations

import json
import time
from typing import Any

from tests.cluster.operator.conftest import Deployed
from tests.cluster.operator.hosts import Hosts
from tests.cluster.operator.pools import Pools
from tests.cluster.operator.sessions import Sessions, eventually
from tests.cluster.operator.watching import watch
from tests.cluster.provider.base import Cluster
from tests.support.audit import AuditLog, Write, tally
from tests.support.pod_security import violations

from carrel_operator.builders.identity import hash_of

AT_ONCE = 20
KEPT = 5
SMALL = {"defaultResources": {"memory": "384Mi", "cpu": "200m"}}
"""Of which a node with two CPUs has room for twice as many, beside others."""


async def test_a_pool_is_filled_with_pods_that_are_nobodys(pools: Pools, hosts: Hosts):
    pool = pools.create(replicas=2)
    pools.wait(pool.name, replicas=2, ready=2, starting=0, claimed=0)
    assert pools.condition(pool.name, "Ready")["status"] == "True"
    assert pools.condition(pool.name, "Exhausted")["status"] == "False"
    assert pools.status(pool.name)["selector"] == pool.selector
    found = pools.pods(pool)
    assert len(found) == 2
    for pod in found:
        assert violations(pod) == []
        [owner] = pod["metadata"]["ownerReferences"]
        assert (owner["kind"], owner["uid"], owner["controller"]) == ("SessionPool", pool.uid, True)
        assert not {"carrel.dev/session", "carrel.dev/owner", "carrel.dev/tenant"} & set(pod["metadata"]["labels"])
        assert await hosts.session_of(pod) is None


async def test_a_session_claims_a_pod_and_brings_all_that_is_personal(pools: Pools, desks: Sessions, hosts: Hosts):
    pool = pools.create(replicas=1)
    pools.wait(pool.name, ready=1)
    [before] = pools.pods(pool)
    env = [{"name": "MODE", "value": "first"}, {"name": "ONLY_FIRST", "value": "x"}]
    first = desks.create(className=pool.class_name, env=env, owner="one@example.org", tenant="north")
    status = desks.ready(first)
    assert (status["pool"], status["podUID"]) == (pool.name, before["metadata"]["uid"])
    assert "coldStartReason" not in status
    pod, session = desks.pod(first), desks.get(first)
    labels, [owner] = pod["metadata"]["labels"], pod["metadata"]["ownerReferences"]
    assert labels["carrel.dev/session"] == hash_of(session["metadata"]["uid"])
    assert labels["carrel.dev/owner"] == hash_of("one@example.org")
    assert labels["carrel.dev/tenant"] == hash_of("north")
    assert labels["carrel.dev/claimed-from"] == hash_of(pool.uid)
    assert "carrel.dev/pool" not in labels
    assert (owner["kind"], owner["uid"]) == ("AgentSession", session["metadata"]["uid"])
    assert "one@example.org" not in json.dumps(pod)
    assert await hosts.of(session).run("import os; print(os.environ['MODE'])") == "first\n"

    pools.wait(pool.name, ready=1, claimed=1)
    [following] = pools.pods(pool)
    assert following["metadata"]["uid"] != before["metadata"]["uid"]
    desks.delete(first)
    pools.wait(pool.name, claimed=0)
    second = desks.create(className=pool.class_name, owner="two@example.org")
    assert desks.ready(second)["podUID"] == following["metadata"]["uid"]
    labels = desks.pod(second)["metadata"]["labels"]
    assert labels["carrel.dev/owner"] == hash_of("two@example.org")
    assert "carrel.dev/tenant" not in labels
    kernel = hosts.of(desks.get(second))
    assert await kernel.run("import os; print([n for n in ('MODE', 'ONLY_FIRST') if n in os.environ])") == "[]\n"


def test_what_no_pod_of_the_pool_is_starts_cold_and_says_why(pools: Pools, desks: Sessions):
    pool = pools.create(replicas=1)
    pools.wait(pool.name, ready=1)
    larger = desks.create(className=pool.class_name, resources={"memory": "448Mi"})
    lasting = desks.create(className=pool.class_name, workspace={"type": "Persistent", "size": "100Mi"})
    for name, why in (
        (larger, f"started cold: pods of {pool.name} have another image or other resources"),
        (lasting, "started cold: pods of a pool have no persistent workspace"),
    ):
        status = desks.ready(name)
        assert "pool" not in status
        assert status["coldStartReason"] == why
    assert pools.status(pool.name)["claimed"] == 0
    pools.cluster.kubectl("scale", "sessionpool", pool.name, "-n", pools.namespace, "--replicas=0")
    pools.wait(pool.name, replicas=0, ready=0)
    late = desks.create(className=pool.class_name)
    assert desks.ready(late)["coldStartReason"] == f"started cold: {pool.name} was exhausted"


def test_a_pool_is_scaled_by_kubectl_and_by_an_autoscaler(cluster: Cluster, pools: Pools):
    pool = pools.create(replicas=1)
    where = ("-n", pools.namespace)
    cluster.kubectl("scale", "sessionpool", pool.name, *where, "--replicas=2")
    pools.wait(pool.name, replicas=2, ready=2)
    scaler = {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": pool.name, "namespace": pools.namespace},
        "spec": {
            "scaleTargetRef": {"apiVersion": "carrel.dev/v1alpha1", "kind": "SessionPool", "name": pool.name},
            "minReplicas": 1,
            "maxReplicas": 3,
            "metrics": [
                {
                    "type": "Resource",
                    "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}},
                }
            ],
        },
    }
    cluster.apply(scaler)
    try:
        said: list[Any] = [None]

        def scales() -> bool:
            said[0] = cluster.get("hpa", pool.name, *where).get("status", {})
            found = {one["type"]: one for one in said[0].get("conditions", [])}
            able = found.get("AbleToScale", {})
            return (able.get("status"), able.get("reason")) == ("True", "SucceededGetScale")

        eventually("the autoscaler reads the pool's scale", scales)
        assert said[0]["currentReplicas"] == 2
        above = '--patch={"spec": {"minReplicas": 3}}'
        cluster.kubectl("patch", "hpa", pool.name, *where, above)
        eventually("the autoscaler has scaled", lambda: pools.get(pool.name)["spec"]["replicas"] == 3)
        pools.wait(pool.name, replicas=3, ready=3)
    finally:
        cluster.kubectl("delete", "hpa", pool.name, *where)


def test_a_changed_class_replaces_the_pods_a_few_at_a_time(cluster: Cluster, pools: Pools):
    pool = pools.create(replicas=3, maxSurge=1)
    pools.wait(pool.name, replicas=3, ready=3)
    old = {pod["metadata"]["uid"] for pod in pools.pods(pool)}
    with watch(cluster, "pods", "-n", pools.namespace, f"--selector={pool.selector}") as history:
        pools.change_class(pool.class_name, {"defaultResources": {"memory": "384Mi", "cpu": "250m"}})

        def replaced() -> bool:
            found = {pod["metadata"]["uid"] for pod in pools.pods(pool)}
            return not found & old and pools.status(pool.name).get("ready") == 3

        eventually("every pod is a new one", replaced)
    assert 3 < history.most_at_once() <= 4
    for pod in pools.pods(pool):
        assert pod["spec"]["containers"][0]["resources"]["limits"]["cpu"] == "250m"


async def test_of_twenty_sessions_at_once_none_shares_a_pod(
    cluster: Cluster, pools: Pools, desks: Sessions, hosts: Hosts
):
    pool = pools.create(SMALL, replicas=KEPT, maxSurge=KEPT)
    pools.wait(pool.name, ready=KEPT)
    with watch(cluster, "pods", "-n", pools.namespace, "--selector=carrel.dev/component=kernel") as history:
        made = desks.create_many(AT_ONCE, className=pool.class_name)
        for name in made:
            desks.ready(name)
    found = [desks.get(name) for name in made]
    pods = {session["status"]["podUID"]: session["metadata"]["uid"] for session in found}
    assert len(pods) == AT_ONCE
    for session in found:
        state = await hosts.of(session).state()
        assert state.session_uid == session["metadata"]["uid"]
    for pod, session in pods.items():
        labelled = {version["metadata"]["labels"].get("carrel.dev/session") for version in history.of(pod)} - {None}
        assert labelled == {hash_of(session)}
    warm = [session for session in found if session["status"].get("pool") == pool.name]
    assert len(warm) >= KEPT
    for session in found:
        if session not in warm:
            assert session["status"]["coldStartReason"].startswith("started cold: ")
    pools.wait(pool.name, ready=KEPT, claimed=len(warm))


def test_a_claim_costs_three_writes_and_six_with_the_replacement(
    pair: Deployed, audit: AuditLog, pools: Pools, desks: Sessions
):
    pool = pools.create(replicas=2)
    pools.wait(pool.name, ready=2, claimed=0)
    claims = 3
    mark = quiet(pair, audit)
    for number in range(claims):
        name = desks.create(className=pool.class_name)
        status = desks.ready(name)
        assert status["pool"] == pool.name
        pools.wait(pool.name, ready=2, claimed=number + 1)
        written = [write for write in of(pair, audit, mark) if write.name in {name, status["podName"]}]
        assert 0 < len(written) <= 3, tally(written)
        assert all(write.accepted for write in written), written
    every = of(pair, audit, mark)
    assert len(every) <= 6 * claims, tally(every)


def quiet(pair: Deployed, audit: AuditLog) -> Any:
    """Return a mark at which the operator has no more to write of what was before: class, policies, keys."""
    marks = [audit.mark()]

    def holds() -> bool:
        marks.append(audit.mark())
        time.sleep(1.0)
        return not of(pair, audit, marks[-1])

    eventually("nothing is written", holds)
    return marks[-1]


def of(pair: Deployed, audit: AuditLog, mark: Any) -> list[Write]:
    """What the operator wrote about this namespace's pods, sessions and pools."""
    return [write for write in audit.since(mark) if write.user == pair.user and write.namespace == pair.sessions]
