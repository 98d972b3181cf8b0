"""The operator on a real API server with real kernel pods: the way up, every reason, the way down.

Plan: one session's whole life; what the cluster or people do to its pod; every reason that a cluster can bring about;
suspension, ends of life; what somebody changes behind the operator's back; a second replica takes over.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.cluster.operator.conftest import Deployed, session_class
from tests.cluster.operator.sessions import Sessions, eventually
from tests.cluster.provider.base import Cluster
from tests.support.pod_security import violations

from carrel_operator.builders.identity import hash_of

DOCUMENTATION = {"egress": [{"cidr": "203.0.113.0/25", "ports": [443]}]}


def test_a_session_comes_up_and_leaves_nothing_behind(sessions: Sessions):
    name = sessions.create(
        workspace={"type": "Persistent", "size": "100Mi"},
        network=DOCUMENTATION,
        env=[{"name": "MODE", "value": "fast"}],
        owner="person@example.org",
    )
    status = sessions.ready(name)
    sessions.wait(name, kind="Isolated", reason="Enforced")
    pod = sessions.pod(name)
    uid = sessions.get(name)["metadata"]["uid"]
    assert status["podUID"] == pod["metadata"]["uid"]
    assert status["endpoint"] == f"{pod['status']['podIP']}:8888"
    assert status["className"] == sessions.class_name
    assert status["restarts"] == 0
    assert violations(pod) == []
    labels = pod["metadata"]["labels"]
    assert labels["carrel.dev/component"] == "kernel"
    assert labels["carrel.dev/session"] == hash_of(uid)
    assert labels["carrel.dev/owner"] == hash_of("person@example.org")
    assert "person@example.org" not in json.dumps(pod)
    assert not any("serviceAccountToken" in json.dumps(volume) for volume in pod["spec"]["volumes"])
    claim, policy = f"{pod['metadata']['name']}-workspace", f"{pod['metadata']['name']}-egress"
    for kind, made in (("networkpolicy", policy), ("pvc", claim), ("networkpolicy", "carrel-kernel-deny-all")):
        assert sessions.exists(kind, made)
    sessions.delete(name)
    for kind, made in (("pod", pod["metadata"]["name"]), ("networkpolicy", policy), ("pvc", claim)):
        eventually(f"{kind} {made} is gone", lambda kind=kind, made=made: not sessions.exists(kind, made))


def test_hosts_get_the_public_keys_with_the_operators_scopes_limited(cluster: Cluster, sessions: Sessions):
    sessions.ready(sessions.create())
    document = cluster.get("configmap", "carrel-kernel-keys", "-n", sessions.namespace)
    keys = {key["kid"]: key["scopes"] for key in json.loads(document["data"]["keys.json"])["keys"]}
    assert keys == {"gateway-1": ["bind", "execute", "files", "state"], "operator-1": ["bind", "state"]}
    assert "PRIVATE" not in json.dumps(document)


def test_a_deleted_pod_is_replaced_and_the_reason_kept(cluster: Cluster, sessions: Sessions):
    name = sessions.create()
    before = sessions.ready(name)
    cluster.kubectl("delete", "pod", before["podName"], "-n", sessions.namespace, "--now")
    eventually("another pod is ready", lambda: replaced(sessions, name, before))
    after = sessions.status(name)
    assert after["restarts"] == 1
    assert after["lastTermination"]["reason"] == "PodDeleted"


def replaced(sessions: Sessions, name: str, before: dict[str, Any]) -> bool:
    now = sessions.status(name)
    return now.get("endpoint") is not None and now["podUID"] != before["podUID"]


def test_a_kernel_host_that_ends_is_replaced_and_the_reason_kept(cluster: Cluster, sessions: Sessions):
    name = sessions.create()
    before = sessions.ready(name)
    end = "import os, signal; os.kill(1, signal.SIGTERM)"
    cluster.kubectl("exec", before["podName"], "-n", sessions.namespace, "--", "python", "-c", end)
    eventually("it is counted", lambda: sessions.status(name)["restarts"] == 1)
    assert sessions.status(name)["lastTermination"]["reason"] == "Crashed"
    assert sessions.ready(name)["restarts"] == 1


def test_a_session_without_its_class_waits_for_it(cluster: Cluster, deployed: Deployed, sessions: Sessions):
    late = f"{deployed.class_name}-late"
    name = sessions.create(className=late)
    said = sessions.wait(name, reason="ClassNotFound")
    assert said["message"] == f"className must be an existing SessionClass, and there is no '{late}'"
    try:
        cluster.apply(session_class(deployed, late))
        sessions.ready(name)
    finally:
        cluster.kubectl("delete", "sessionclass", late)


def test_what_the_class_does_not_offer_gets_no_pod(sessions: Sessions):
    large = sessions.create(resources={"memory": "64Gi"})
    other = sessions.create(image="rust")
    far = sessions.create(network={"egress": [{"cidr": "0.0.0.0/0", "ports": [443]}]})
    assert sessions.wait(large, reason="ResourcesAboveClass")["message"] == (
        f"resources.memory must be at most 4Gi in class {sessions.class_name}, not 64Gi"
    )
    sessions.wait(other, reason="ImageNotInClass")
    sessions.wait(far, reason="EgressAboveClass")
    for name in (large, other, far):
        assert "podName" not in sessions.status(name)


def test_a_quota_is_told_and_the_session_comes_up_when_there_is_room(cluster: Cluster, sessions: Sessions):
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "none", "namespace": sessions.namespace}}

    def used() -> dict[str, str] | None:
        return cluster.get("resourcequota", "none", "-n", sessions.namespace).get("status", {}).get("used")

    cluster.apply({**quota, "spec": {"hard": {"count/pods": "0"}}})
    try:
        eventually(
            "pods of earlier sessions are gone, and the quota counts none", lambda: used() == {"count/pods": "0"}
        )
        name = sessions.create()
        told = "the namespace's ResourceQuota none must have room, and has not (count/pods: 0 of 0 used, 1 needed); "
        assert told in sessions.wait(name, reason="QuotaExceeded")["message"]
    finally:
        cluster.kubectl("delete", "resourcequota", "none", "-n", sessions.namespace)
    sessions.ready(name)


def test_a_pod_without_a_node_is_told_in_the_schedulers_words(cluster: Cluster, deployed: Deployed, sessions: Sessions):
    nowhere = f"{deployed.class_name}-nowhere"
    cluster.apply(session_class(deployed, nowhere, nodeSelector={"carrel.test/no": "where"}))
    try:
        name = sessions.create(className=nowhere)
        said = sessions.wait(name, reason="Unschedulable")
        assert "node(s) didn't match Pod's node affinity/selector" in said["message"]
        assert sessions.condition(name, "PodScheduled")["status"] == "False"
    finally:
        cluster.kubectl("delete", "sessionclass", nowhere)


def test_an_image_that_is_nowhere_is_told_in_the_kubelets_words(
    cluster: Cluster, deployed: Deployed, sessions: Sessions
):
    broken = f"{deployed.class_name}-broken"
    images = [{"name": "default", "reference": "localhost:1/none/none:1"}]
    cluster.apply(session_class(deployed, broken, images=images))
    try:
        name = sessions.create(className=broken)
        assert "localhost:1/none/none:1" in sessions.wait(name, reason="ImagePullFailed")["message"]
    finally:
        cluster.kubectl("delete", "sessionclass", broken)


def test_a_suspended_session_has_no_pod_and_keeps_its_workspace(sessions: Sessions):
    name = sessions.create(workspace={"type": "Persistent", "size": "100Mi"})
    before = sessions.ready(name)
    sessions.patch(name, '{"operatingMode": "Suspended"}')
    sessions.wait(name, reason="Suspended", kind="Suspended")
    assert not sessions.exists("pod", before["podName"])
    assert sessions.exists("pvc", f"{before['podName']}-workspace")
    assert "variables are lost, files in the workspace are kept" in sessions.condition(name)["message"]
    sessions.patch(name, '{"operatingMode": "Running"}')
    after = sessions.ready(name)
    assert after["podUID"] != before["podUID"]
    assert after["restarts"] == 0


def test_a_session_ends_at_its_time_and_is_deleted(sessions: Sessions):
    name = sessions.create(shutdownPolicy="Delete")
    sessions.ready(name)
    at = (datetime.now(UTC) + timedelta(seconds=3)).strftime("%Y-%m-%dT%H:%M:%SZ")
    sessions.patch(name, f'{{"shutdownTime": "{at}"}}')
    eventually("the session is gone", lambda: sessions.gone(name))
    assert datetime.now(UTC) >= datetime.fromisoformat(at)


def test_a_session_ends_at_its_age_and_is_retained_for_a_while(sessions: Sessions):
    name = sessions.create(ttlSecondsAfterFinished=4)
    pod = sessions.ready(name)["podName"]
    age = datetime.now(UTC) - datetime.fromisoformat(sessions.get(name)["metadata"]["creationTimestamp"])
    sessions.patch(name, f'{{"maxLifetimeSeconds": {int(age.total_seconds()) + 3}}}')
    assert sessions.wait(name, reason="Expired", kind="Finished")["status"] == "True"
    eventually("the pod is gone", lambda: not sessions.exists("pod", pod))
    eventually("the session is gone", lambda: sessions.gone(name))


def test_an_idle_session_ends(sessions: Sessions):
    name = sessions.create()
    sessions.ready(name)
    sessions.patch(name, '{"idleTimeoutSeconds": 3}')
    said = sessions.wait(name, reason="Idle", kind="Finished")
    assert said["message"] == "nothing ran and nobody was connected for 3 s"


def test_a_policy_that_somebody_deletes_is_put_back(cluster: Cluster, sessions: Sessions):
    sessions.ready(sessions.create())
    for policy in ("carrel-kernel-deny-all", "carrel-kernel-port"):
        before = cluster.get("networkpolicy", policy, "-n", sessions.namespace)["metadata"]["uid"]
        cluster.kubectl("delete", "networkpolicy", policy, "-n", sessions.namespace)
        eventually(f"{policy} is back", lambda policy=policy: sessions.exists("networkpolicy", policy))
        assert cluster.get("networkpolicy", policy, "-n", sessions.namespace)["metadata"]["uid"] != before


def test_egress_that_somebody_widens_is_narrowed_again(cluster: Cluster, sessions: Sessions):
    name = sessions.create(network=DOCUMENTATION)
    policy = f"{sessions.ready(name)['podName']}-egress"
    wide = '[{"op": "replace", "path": "/spec/egress", "value": [{}]}]'
    cluster.kubectl("patch", "networkpolicy", policy, "-n", sessions.namespace, "--type=json", f"--patch={wide}")

    def narrow() -> bool:
        [rule] = cluster.get("networkpolicy", policy, "-n", sessions.namespace)["spec"]["egress"]
        return rule.get("to") == [{"ipBlock": {"cidr": "203.0.113.0/25"}}]

    eventually("the policy is as it was", narrow)


def test_a_ready_session_costs_no_writes_and_survives_the_operator(
    cluster: Cluster, deployed: Deployed, sessions: Sessions
):
    name = sessions.create()
    sessions.ready(name)
    sessions.wait(name, kind="Isolated", reason="Enforced")
    before = sessions.get(name)
    cluster.kubectl("rollout", "restart", "deployment/operator", "-n", deployed.control)
    cluster.kubectl("rollout", "status", "deployment/operator", "-n", deployed.control, "--timeout=120s")
    sessions.ready(sessions.create())  # the new one works
    after = sessions.get(name)
    assert after["status"] == before["status"]
    assert after["metadata"]["resourceVersion"] == before["metadata"]["resourceVersion"]


def test_a_second_replica_takes_over_from_one_that_is_killed(cluster: Cluster, deployed: Deployed, sessions: Sessions):
    scale = ("scale", "deployment/operator", "-n", deployed.control)
    cluster.kubectl(*scale, "--replicas=2")
    try:
        cluster.kubectl("rollout", "status", "deployment/operator", "-n", deployed.control, "--timeout=120s")
        leader = holder(cluster, deployed)
        cluster.kubectl("delete", "pod", leader, "-n", deployed.control, "--grace-period=0", "--force")
        eventually("another replica leads", lambda: holder(cluster, deployed) not in {leader, ""})
        sessions.ready(sessions.create())
    finally:
        cluster.kubectl(*scale, "--replicas=1")


def holder(cluster: Cluster, deployed: Deployed) -> str:
    return cluster.get("lease", "carrel-operator", "-n", deployed.control)["spec"].get("holderIdentity", "")
