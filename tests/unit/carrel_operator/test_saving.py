"""State is saved before a pod ends: who is asked, what is waited for, and what happens where nobody saves.

Plan: a suspended session that was ready asks a gateway and keeps its pod, also when saving failed, which is told; the
pod goes once `spec.snapshot` names this very pod. Nothing is asked of a pod that nobody can have used, or that is
over. An idle session asks too, and takes it back when it was active again. Without gateways it is all as before.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from tests.unit.carrel_operator.factories import (
    BOUND,
    NOW,
    POD_UID,
    ended,
    gone,
    kinds,
    observed,
    pod,
    ready_status,
    said,
    session,
    stamp,
    waiting,
)

from carrel_api.names import CLAIMED_ANNOTATION, SNAPSHOT_FAILURE_ANNOTATION
from carrel_operator.observed import Activity, PodView
from carrel_operator.plan import AskState, DeletePod, Plan
from carrel_operator.reconcile import reconcile
from carrel_operator.reconcile.running import ASK_AGAIN
from carrel_operator.saving import nothing_to_save, was_ready

SUSPENDED = {"operatingMode": "Suspended"}
BEFORE = NOW - timedelta(minutes=30)
"""Since when the session of `ready_status` is ready."""


def has(plan: Plan, kind: str) -> bool:
    assert plan.status is not None
    return plan.status.condition(kind) is not None


def bound(**parts: Any) -> Any:
    return observed(**{"pod": pod(), "binding": BOUND, "saves": True, **parts})


def test_a_suspended_session_asks_for_its_state_to_be_saved_and_stays_as_it_is():
    plan = reconcile(session(SUSPENDED, ready_status()), bound(), NOW)
    assert plan.actions == ()
    assert said(plan)[:2] == ("True", "Bound")
    assert said(plan, "Suspended")[:2] == ("False", "Suspending")
    assert said(plan, "SnapshotRequested")[:2] == ("True", "Suspending")
    assert said(plan, "SnapshotRequested")[2].endswith("a gateway is to save its state")
    assert plan.status is not None
    assert plan.status.endpoint == "10.1.2.3:8888"


def test_what_keeps_a_gateway_from_saving_is_told_and_the_pod_stays():
    wanted = session(SUSPENDED, ready_status(), annotations={SNAPSHOT_FAILURE_ANNOTATION: "x" * 600})
    plan = reconcile(wanted, bound(), NOW)
    assert plan.actions == ()
    assert said(plan, "SnapshotRequested")[2].endswith(f"it could not be saved yet: {'x' * 500}")


def test_the_pod_goes_only_when_its_own_state_is_saved():
    other = session({**SUSPENDED, "snapshot": {"podUID": "another"}}, ready_status())
    assert DeletePod not in kinds(reconcile(other, bound(), NOW))
    saved = session({**SUSPENDED, "snapshot": {"podUID": POD_UID, "ref": "s1"}}, ready_status())
    plan = reconcile(saved, bound(), NOW)
    assert kinds(plan) == [DeletePod]
    assert said(plan)[1] == "Suspended"
    assert "its state is saved" in said(plan)[2]


def test_a_session_that_was_suspended_asks_for_nothing_more():
    before = reconcile(session(SUSPENDED, ready_status()), bound(), NOW).status
    assert before is not None
    saved = {**SUSPENDED, "snapshot": {"podUID": POD_UID}}
    plan = reconcile(session(saved, before.dump()), observed(saves=True), NOW)
    assert said(plan, "SnapshotRequested")[:2] == ("False", "Suspended")
    assert said(plan, "Suspended")[:2] == ("True", "Suspended")


def test_a_session_that_is_resumed_before_it_was_saved_goes_on_and_asks_no_more():
    asked = reconcile(session(SUSPENDED, ready_status()), bound(), NOW).status
    assert asked is not None
    plan = reconcile(session(status=asked.dump()), bound(), NOW)
    assert plan.actions == ()
    assert said(plan)[:2] == ("True", "Bound")
    assert said(plan, "SnapshotRequested")[:2] == ("False", "Active")


def test_without_gateways_a_suspended_pod_goes_at_once():
    plan = reconcile(session(SUSPENDED, ready_status()), bound(saves=False), NOW)
    assert kinds(plan) == [DeletePod]
    assert "variables are lost" in said(plan)[2]
    assert not has(plan, "SnapshotRequested")


def test_a_suspended_session_whose_host_crashes_waits_until_it_can_be_asked():
    crashed = pod(status=waiting("CrashLoopBackOff", "back-off", last_end=ended()))
    plan = reconcile(session(SUSPENDED, ready_status()), bound(pod=crashed), NOW)
    assert plan.actions == ()
    assert said(plan, "SnapshotRequested")[0] == "True"
    assert said(plan)[0] == "False"


@pytest.mark.parametrize(
    ("view", "status"),
    [
        (None, ready_status()),
        (pod(status={"phase": "Failed"}), ready_status()),
        (pod(deletionTimestamp=gone()), ready_status()),
        (pod(), {}),
        (pod(), ready_status(podUID="another")),
        (pod(), ready_status(startTime=None)),
        (pod(creationTimestamp=stamp(NOW)), ready_status()),
        (pod(annotations={CLAIMED_ANNOTATION: stamp(NOW)}), ready_status()),
    ],
)
def test_there_is_nothing_to_save_in_a_pod_that_is_over_or_was_never_ready(
    view: PodView | None, status: dict[str, Any]
):
    assert nothing_to_save(session(SUSPENDED, status), view, saves=True)


@pytest.mark.parametrize("annotations", [{}, {CLAIMED_ANNOTATION: stamp(BEFORE)}, {CLAIMED_ANNOTATION: "today"}])
def test_a_pod_that_was_ready_since_the_session_has_it_has_something_to_save(annotations: dict[str, str]):
    view = pod(creationTimestamp=stamp(BEFORE), annotations=annotations)
    assert was_ready(session(status=ready_status()), view)
    assert not nothing_to_save(session(SUSPENDED, ready_status()), view, saves=True)
    assert nothing_to_save(session(SUSPENDED, ready_status()), view, saves=False)


# idle


IDLE = {"idleTimeoutSeconds": 600}


def idle(asked: int = 0, active: int = 1800) -> Activity:
    return Activity(asked_at=NOW - timedelta(seconds=asked), active_at=NOW - timedelta(seconds=active))


def test_an_idle_session_asks_and_is_asked_again_meanwhile():
    plan = reconcile(session(IDLE, ready_status()), bound(activity=idle(asked=10)), NOW)
    assert (plan.actions, plan.after) == ((), ASK_AGAIN - 10)
    assert said(plan)[:2] == ("True", "Bound")
    assert said(plan, "SnapshotRequested")[:2] == ("True", "Idle")


def asked_status() -> dict[str, Any]:
    status = reconcile(session(IDLE, ready_status()), bound(activity=idle()), NOW).status
    assert status is not None
    return status.dump()


def test_while_it_is_asked_again_the_request_stands():
    plan = reconcile(session(IDLE, asked_status()), bound(activity=idle(asked=int(ASK_AGAIN))), NOW)
    assert kinds(plan) == [AskState]
    assert plan.status is None


def test_a_session_that_was_active_again_takes_the_request_back():
    plan = reconcile(session(IDLE, asked_status()), bound(activity=idle(active=5)), NOW)
    assert said(plan, "SnapshotRequested")[:2] == ("False", "Active")
    assert plan.after == 595


def test_without_gateways_an_idle_session_ends():
    plan = reconcile(session(IDLE, ready_status()), bound(activity=idle(), saves=False), NOW)
    assert kinds(plan) == [DeletePod]
    assert said(plan, "Finished")[:2] == ("True", "Idle")
