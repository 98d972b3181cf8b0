"""What a pool needs next: every branch of the decision, and what must hold of all of them.

Plan: filling, scaling down, replacing what is old, restarted or over, waiting after pods that end by themselves; no
class, refusals; numbers and conditions of status. A property replaces pods of any mix of revisions and readiness step
by step: never are there more than replicas and surge together, and in the end all are new.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.carrel_operator.factories import NOW, ended, gone, pod, running, session_class, stamp, waiting

from carrel_api.session_pool import SessionPool
from carrel_operator.builders.identity import hash_of
from carrel_operator.builders.pod import pool_pod
from carrel_operator.observed import PodView, Said
from carrel_operator.plan import CreatePod, DeletePod, PoolPlan
from carrel_operator.reconcile import reconcile_pool
from carrel_operator.reconcile.pool import LONGEST_WAIT, PoolObserved
from carrel_operator.settlement import Settlement, settle_pool


def pool(replicas: int = 2, surge: int = 1, **metadata: Any) -> SessionPool:
    named = {"name": "warm", "namespace": "carrel-sessions", "uid": "pool", "generation": 4, **metadata}
    return SessionPool.parse({"metadata": named, "spec": {"replicas": replicas, "maxSurge": surge}})


def revision() -> str:
    found = settle_pool(pool().spec, session_class())
    assert isinstance(found, Settlement)
    return pool_pod(pool(), found)["metadata"]["labels"]["carrel.dev/revision"]


NEW, OLD = revision(), "old"


def one(uid: str, label: str = NEW, *, status: dict[str, Any] | None = None, age: int = 0, **more: Any) -> PodView:
    made = stamp(NOW - timedelta(seconds=age))
    labels = {"carrel.dev/revision": label}
    return pod(status=status, uid=uid, name=uid, labels=labels, creationTimestamp=made, **more)


def seen(*pods: PodView, ready: str = "", **parts: Any) -> PoolObserved:
    return PoolObserved(
        **{"class_name": "standard", "session_class": session_class(), "pods": pods, "ready": frozenset(ready), **parts}
    )


def made(plan: PoolPlan) -> int:
    return sum(isinstance(action, CreatePod) for action in plan.actions)


def taken(plan: PoolPlan) -> list[str]:
    return [action.uid for action in plan.actions if isinstance(action, DeletePod)]


def said(plan: PoolPlan, kind: str = "Ready") -> tuple[str, str]:
    assert plan.status is not None
    condition = plan.status.condition(kind)
    assert condition is not None
    return condition.status, condition.reason


def numbers(plan: PoolPlan) -> tuple[int, int, int, int]:
    assert plan.status is not None
    return plan.status.replicas, plan.status.ready, plan.status.starting, plan.status.claimed


def test_an_empty_pool_is_filled():
    plan = reconcile_pool(pool(3), seen(), NOW)
    assert (made(plan), taken(plan)) == (3, [])
    assert (said(plan), said(plan, "Exhausted")) == (("False", "Starting"), ("True", "NoneReady"))


def test_a_full_pool_needs_nothing_and_says_so():
    plan = reconcile_pool(pool(), seen(one("a"), one("b"), ready="ab", claimed=5), NOW)
    assert (plan.actions, plan.prepare) == ((), ())
    assert numbers(plan) == (2, 2, 0, 5)
    assert (said(plan), said(plan, "Exhausted")) == (("True", "Ready"), ("False", "SomeReady"))
    assert plan.status is not None
    assert plan.status.observed_generation == 4
    assert plan.status.selector == f"carrel.dev/pool={hash_of('pool')}"


def test_pods_that_run_are_asked_whether_they_are_ready_and_others_are_not():
    pods = [one("a"), one("b"), one("c", status=waiting("ContainerCreating")), one("d", OLD)]
    plan = reconcile_pool(pool(4), seen(*pods, ready="a"), NOW)
    assert [pod.uid for pod in plan.prepare] == ["b"]
    assert numbers(plan) == (4, 1, 3, 0)


def test_what_is_too_much_goes_unready_ones_first_and_then_the_youngest():
    pods = [one("a", age=9), one("b", age=5), one("c", age=1), one("d", age=20)]
    plan = reconcile_pool(pool(1), seen(*pods, ready="abc"), NOW)
    assert taken(plan) == ["d", "c", "b"]


def test_a_pool_of_none_is_emptied_and_not_called_exhausted():
    plan = reconcile_pool(pool(0), seen(one("a")), NOW)
    assert taken(plan) == ["a"]
    assert (said(plan), said(plan, "Exhausted")) == (("True", "Ready"), ("False", "NoneWanted"))


@pytest.mark.parametrize(
    "status", [{"phase": "Failed"}, {"phase": "Succeeded"}, running(last_end=ended()), waiting("X", last_end=ended())]
)
def test_a_pod_that_ended_or_was_restarted_is_replaced(status: dict[str, Any]):
    plan = reconcile_pool(pool(1), seen(one("a", status=status), ready="a"), NOW)
    assert (taken(plan), made(plan)) == (["a"], 1)


def test_a_pod_that_is_being_deleted_is_replaced_and_not_deleted_again():
    plan = reconcile_pool(pool(1), seen(one("a", deletionTimestamp=gone())), NOW)
    assert (taken(plan), made(plan), numbers(plan)) == ([], 1, (0, 0, 0, 0))


def test_pods_of_an_earlier_revision_are_replaced_within_the_surge():
    before = [one("a", OLD), one("b", OLD), one("c", OLD)]
    plan = reconcile_pool(pool(3), seen(*before, ready="abc"), NOW)
    assert (made(plan), taken(plan)) == (1, [])
    plan = reconcile_pool(pool(3), seen(*before, one("n"), ready="abc"), NOW)
    assert (made(plan), taken(plan)) == (0, [])
    plan = reconcile_pool(pool(3), seen(*before, one("n"), ready="abcn"), NOW)
    assert taken(plan) == ["a"]


def test_old_pods_that_are_not_ready_go_first():
    plan = reconcile_pool(pool(2), seen(one("a", OLD), one("b", OLD), one("n"), ready="an"), NOW)
    assert taken(plan) == ["b"]


@given(
    replicas=st.integers(0, 6),
    surge=st.integers(1, 3),
    before=st.lists(st.tuples(st.booleans(), st.booleans()), max_size=6),
    chance=st.randoms(use_true_random=False),
)
def test_replacement_ends_and_never_has_too_many(
    replicas: int, surge: int, before: list[tuple[bool, bool]], chance: Any
):
    pods = [one(f"{number}", NEW if new else OLD) for number, (new, _) in enumerate(before)]
    ready = {f"{number}" for number, (_, is_ready) in enumerate(before) if is_ready}
    most = max(replicas + surge, len(pods))
    for step in range(100):
        all_ready = ready >= {pod.uid for pod in pods}
        there = PoolObserved("standard", session_class(), pods, frozenset(ready))
        plan = reconcile_pool(pool(replicas, surge), there, NOW)
        if all_ready and not plan.actions:
            break
        pods = [pod for pod in pods if pod.uid not in taken(plan)]
        pods += [one(f"{step}-{number}") for number in range(made(plan))]
        assert len(pods) <= most
        ready |= {pod.uid for pod in pods if chance.random() < 0.5}
    assert [pod.revision for pod in pods] == [NEW] * replicas


def test_pods_that_end_by_themselves_are_replaced_less_and_less_often():
    for failures, wait in ((1, 2), (3, 8), (8, 256), (20, LONGEST_WAIT.total_seconds())):
        plan = reconcile_pool(pool(1), seen(failures=failures, failed_at=NOW), NOW)
        assert (made(plan), plan.after, said(plan)) == (0, wait, ("False", "PodsFailing"))
        later = NOW + timedelta(seconds=wait)
        assert made(reconcile_pool(pool(1), seen(failures=failures, failed_at=NOW), later)) == 1


@pytest.mark.parametrize("name", ["", "standard"])
def test_without_a_class_nothing_is_made_and_nothing_is_taken(name: str):
    plan = reconcile_pool(pool(), seen(one("a"), ready="a", class_name=name, session_class=None), NOW)
    assert plan.actions == ()
    assert said(plan) == ("False", "ClassNotFound")
    assert numbers(plan) == (1, 1, 0, 0)


def test_what_the_class_does_not_allow_is_said():
    asked = pool().model_copy(update={"spec": pool().spec.model_copy(update={"image": "rust"})})
    plan = reconcile_pool(asked, seen(), NOW)
    assert (plan.actions, said(plan)) == ((), ("False", "ImageNotInClass"))


def test_a_refusal_is_said_and_tried_again():
    plan = reconcile_pool(pool(), seen(failure=Said("QuotaExceeded", "pods")), NOW)
    assert (plan.actions, plan.retry, said(plan)) == ((), True, ("False", "QuotaExceeded"))


@pytest.mark.parametrize(
    ("status", "unproven", "reason"),
    [
        (waiting("ErrImagePull", "no"), None, "ImagePullFailed"),
        (waiting("ContainerCreating"), None, "Starting"),
        (running(), Said("NotIsolated", "it was refused"), "NotIsolated"),
    ],
)
def test_why_fewer_are_ready_is_said(status: dict[str, Any], unproven: Said | None, reason: str):
    plan = reconcile_pool(pool(1), seen(one("a", status=status), unproven=unproven), NOW)
    assert said(plan) == ("False", reason)


def test_a_pool_that_is_being_deleted_is_left_to_the_garbage_collector():
    assert reconcile_pool(pool(deletionTimestamp=stamp(NOW)), seen(one("a", OLD)), NOW) == PoolPlan()


def test_deciding_again_on_the_same_says_the_same():
    first = reconcile_pool(pool(), seen(one("a"), ready="a"), NOW)
    assert first.status is not None
    wanted = pool().model_copy(update={"status": first.status})
    assert reconcile_pool(wanted, seen(one("a"), ready="a"), NOW + timedelta(seconds=9)).status == first.status
