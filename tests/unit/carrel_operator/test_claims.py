"""Which pods of pools a session may have, in which order, and the words that say why there is none.

Plan: a pod fits when it was made from the very spec that the session's own would be made from, is live and ready; who
has waited longest is first; each reason for a cold start has its words; a class that wants isolation gets no pod that
was not seen to be isolated; a claim changes the pod only in the version that was seen.
"""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from tests.unit.carrel_operator.factories import NOW, POD_UID, gone, pod, running, session, session_class, stamp

from carrel_api.session_pool import SessionPool
from carrel_operator.builders.pod import claim_patch, pod_spec, revision_of
from carrel_operator.claims import Choice, Pooled, choose
from carrel_operator.isolation import Sight
from carrel_operator.observed import PodView
from carrel_operator.readiness import Readiness
from carrel_operator.settlement import Settlement, settle

DATASETS = {"datasets": [{"name": "weather", "claimName": "w"}]}


def settled(spec: dict[str, Any] | None = None) -> Settlement:
    found = settle(session(spec).spec, session_class(DATASETS))
    assert isinstance(found, Settlement)
    return found


FITTING = revision_of(pod_spec(settled()))


def pooled(*pods: PodView, name: str = "warm") -> Pooled:
    return Pooled(SessionPool.parse({"metadata": {"name": name, "namespace": "n", "uid": name}}), pods)


def pod_of(uid: str = POD_UID, revision: str = FITTING, *, since: int = 0, **more: Any) -> PodView:
    status = running()
    started = stamp(NOW - timedelta(seconds=since))
    status["containerStatuses"][0]["state"]["running"]["startedAt"] = started
    return pod(status=status, uid=uid, name=uid, labels={"carrel.dev/revision": revision}, **more)


def chosen(pools: list[Pooled], spec: dict[str, Any] | None = None, *, ready: bool = True) -> Choice:
    return choose(session(spec), settled(spec), pools, lambda _: ready)


def test_the_pod_that_has_waited_longest_is_first_of_all_pools():
    pools = [pooled(pod_of("young", since=1), pod_of("old", since=9)), pooled(pod_of("middle", since=5), name="other")]
    assert [one.uid for one in chosen(pools).candidates] == ["old", "middle", "young"]
    assert chosen(pools).cold_start_reason is None


def test_without_a_pool_nothing_is_said():
    assert chosen([]) == Choice()


@pytest.mark.parametrize(
    ("pods", "spec", "ready", "reason"),
    [
        ([], {}, True, "warm was exhausted"),
        ([pod_of()], {}, False, "no pod of warm was ready"),
        ([pod_of(revision="other")], {}, True, "pods of warm have another image or other resources"),
        ([pod_of()], {"image": "gpu"}, True, "pods of warm have another image or other resources"),
        ([pod_of()], {"resources": {"memory": "1Gi"}}, True, "pods of warm have another image or other resources"),
        ([pod_of()], {"workspace": {"type": "Persistent"}}, True, "pods of a pool have no persistent workspace"),
        ([pod_of()], {"datasets": ["weather"]}, True, "pods of a pool have no data sets"),
        ([pod_of(deletionTimestamp=gone())], {}, True, "warm was exhausted"),
    ],
)
def test_each_cold_start_has_its_reason(pods: list[PodView], spec: dict[str, Any], ready: bool, reason: str):
    found = chosen([pooled(*pods)], spec, ready=ready)
    assert found == Choice(cold_start_reason=f"started cold: {reason}")


def test_what_is_a_sessions_own_by_bind_alone_does_not_keep_it_from_a_pod():
    spec = {"env": [{"name": "MODE", "value": "x"}], "owner": "o", "tenant": "t", "idleTimeoutSeconds": 60}
    assert len(chosen([pooled(pod_of())], spec).candidates) == 1


def test_a_reason_with_many_pools_fits_into_status():
    pools = [pooled(name=f"pool-{number:02}-{'x' * 40}") for number in range(20)]
    reason = chosen(pools).cold_start_reason
    assert reason is not None
    assert (len(reason), reason[-1]) == (253, "…")


@pytest.mark.parametrize("isolation", [True, False])
def test_where_isolation_is_wanted_a_pod_that_was_not_seen_isolated_is_not_offered(isolation: bool):
    readiness = Readiness()
    readiness.note(pod_of(), Sight("connected", "connected", "timeout", NOW))
    found = choose(session(), settled(), [pooled(pod_of())], partial(readiness.is_ready, isolation=isolation))
    assert bool(found.candidates) is not isolation


def test_a_claim_holds_only_for_the_pod_as_it_was_seen_and_makes_it_the_sessions():
    labels = {"carrel.dev/pool": "hash", "carrel.dev/class": "standard"}
    seen = pod(labels=labels, resourceVersion="9")
    patch = {operation["path"]: operation for operation in claim_patch(session({"tenant": "t"}), seen, NOW)}
    assert [(op["op"], op["path"], op["value"]) for op in patch.values()][:2] == [
        ("test", "/metadata/uid", POD_UID),
        ("test", "/metadata/resourceVersion", "9"),
    ]
    made = patch["/metadata/labels"]["value"]
    assert "carrel.dev/pool" not in made
    assert (made["carrel.dev/claimed-from"], made["carrel.dev/class"]) == ("hash", "standard")
    assert {"carrel.dev/session", "carrel.dev/tenant"} <= made.keys()
    [owner] = patch["/metadata/ownerReferences"]["value"]
    assert (owner["kind"], owner["controller"]) == ("AgentSession", True)
    assert patch["/metadata/annotations/cluster-autoscaler.kubernetes.io~1safe-to-evict"]["value"] == "false"
    assert patch["/metadata/annotations/carrel.dev~1claimed-time"]["value"] == stamp(NOW)
