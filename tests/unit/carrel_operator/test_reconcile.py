"""Every branch of the decision but those of a pod: over, suspended, no pod yet, idle, egress.

The last tests hold what must be true of all of them: nothing is wanted twice, and status is left alone where nothing
is new. `test_reconcile_pods` has the branches of a pod that is there.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from tests.unit.carrel_operator.factories import (
    BOUND,
    MADE,
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
    session_class,
    stamp,
    waiting,
)

from carrel_operator.builders.identity import egress_policy_name, pod_name
from carrel_operator.observed import Activity, Said
from carrel_operator.plan import (
    ApplyEgress,
    AskState,
    CreateClaim,
    CreatePod,
    DeleteEgress,
    DeletePod,
    DeleteSession,
    Plan,
    PrepareNamespace,
)
from carrel_operator.reconcile import reconcile
from carrel_operator.reconcile.running import ASK_AGAIN

POD_NAME = pod_name(session())


# over


def test_a_session_that_is_being_deleted_is_left_to_the_garbage_collector():
    assert reconcile(session(deletionTimestamp=stamp(NOW)), observed(pod=pod()), NOW) == Plan()


@pytest.mark.parametrize(
    ("spec", "life", "message"),
    [
        ({"shutdownTime": stamp(NOW)}, {}, "shutdownTime has come"),
        ({"maxLifetimeSeconds": 3600}, {}, "older than 3600 s"),
        ({}, {"maxLifetimeSeconds": 1800}, "older than 1800 s"),
        ({"maxLifetimeSeconds": 7200}, {"maxLifetimeSeconds": 1800}, "older than 1800 s"),
    ],
)
def test_a_session_whose_time_has_come_is_retained_without_a_pod(
    spec: dict[str, Any], life: dict[str, Any], message: str
):
    plan = reconcile(session(spec), observed(pod=pod(), session_class=session_class({"life": life})), NOW)
    assert plan.actions == (DeletePod(POD_NAME, POD_UID),)
    assert said(plan, "Finished")[:2] == ("True", "Expired")
    assert message in said(plan, "Finished")[2]
    assert said(plan)[:2] == ("False", "Expired")
    assert said(plan, "PodScheduled")[1] == "NoPod"
    assert plan.status is not None
    assert (plan.status.endpoint, plan.status.pod_uid, plan.status.node_name) == (None, None, None)
    assert plan.status.restarts == 0


def test_a_session_whose_time_has_come_is_deleted_where_it_says_so():
    plan = reconcile(session({"shutdownTime": stamp(NOW), "shutdownPolicy": "Delete"}), observed(pod=pod()), NOW)
    assert plan.actions == (DeleteSession(),)


def test_a_session_is_looked_at_again_when_its_time_comes():
    at = stamp(NOW + timedelta(seconds=90))
    plan = reconcile(session({"shutdownTime": at}), observed(pod=pod(), binding=BOUND), NOW)
    assert said(plan)[0] == "True"
    assert plan.after == 90


def finished(spec: dict[str, Any] | None = None, ago: int = 100):
    condition = {
        "type": "Finished",
        "status": "True",
        "reason": "Expired",
        "lastTransitionTime": stamp(NOW - timedelta(seconds=ago)),
    }
    return session(spec, {"conditions": [condition]})


def test_a_finished_session_loses_a_pod_that_is_still_there_and_keeps_its_status():
    plan = reconcile(finished(), observed(pod=pod()), NOW)
    assert (plan.actions, plan.status) == ((DeletePod(POD_NAME, POD_UID),), None)


def test_a_finished_session_without_a_pod_needs_nothing():
    assert reconcile(finished(), observed(), NOW) == Plan()


def test_a_finished_session_is_deleted_after_its_ttl():
    assert reconcile(finished({"ttlSecondsAfterFinished": 100}), observed(), NOW).actions == (DeleteSession(),)


def test_a_finished_session_waits_for_its_ttl():
    assert reconcile(finished({"ttlSecondsAfterFinished": 160}), observed(), NOW) == Plan(after=60)


def test_a_retained_session_with_no_ttl_left_goes_at_once():
    spec = {"shutdownTime": stamp(NOW), "ttlSecondsAfterFinished": 0}
    assert DeleteSession in kinds(reconcile(session(spec), observed(pod=pod()), NOW))


# suspended


@pytest.mark.parametrize(
    ("workspace", "kept"), [("Persistent", "files in the workspace are kept"), ("Ephemeral", "so are the files")]
)
def test_suspending_takes_the_pod_away_and_says_what_is_lost(workspace: str, kept: str):
    spec = {"operatingMode": "Suspended", "workspace": {"type": workspace}}
    plan = reconcile(session(spec, ready_status()), observed(pod=pod()), NOW)
    assert plan.actions == (DeletePod(POD_NAME, POD_UID),)
    assert said(plan)[:2] == ("False", "Suspended")
    assert "variables are lost" in said(plan)[2]
    assert kept in said(plan)[2]
    assert said(plan, "Suspended")[:2] == ("False", "Suspending")
    assert plan.status is not None
    assert plan.status.pod_uid is None
    assert plan.status.restarts == 0


def test_a_session_is_suspended_when_its_pod_is_gone():
    plan = reconcile(session({"operatingMode": "Suspended"}), observed(), NOW)
    assert plan.actions == ()
    assert said(plan, "Suspended")[:2] == ("True", "Suspended")


def test_resuming_counts_no_restart():
    status = ready_status(podUID=None, podName=None, endpoint=None)
    plan = reconcile(session(status=status), observed(), NOW)
    assert kinds(plan) == [PrepareNamespace, CreatePod]
    assert plan.status is not None
    assert (plan.status.restarts, plan.status.last_termination) == (0, None)


# no pod


def test_a_new_session_gets_its_namespace_prepared_and_a_pod():
    plan = reconcile(session(), observed(), NOW)
    assert kinds(plan) == [PrepareNamespace, CreatePod]
    assert said(plan) == ("False", "Starting", "its pod is starting")
    assert said(plan, "PodScheduled")[1] == "NoPod"
    assert plan.status is not None
    assert plan.status.class_name == "standard"


def test_a_persistent_workspace_is_claimed_before_the_pod():
    plan = reconcile(session({"workspace": {"type": "Persistent"}}), observed(), NOW)
    assert kinds(plan) == [PrepareNamespace, CreateClaim, CreatePod]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("standard", "className must be an existing SessionClass, and there is no 'standard'"),
        pytest.param(
            "",
            "className must be given, because no SessionClass carries the annotation "
            'carrel.dev/is-default-class: "true"',
        ),
    ],
)
def test_without_a_class_there_is_no_pod(name: str, message: str):
    plan = reconcile(session(), observed(class_name=name, session_class=None), NOW)
    assert plan.actions == ()
    assert said(plan) == ("False", "ClassNotFound", message)


def test_what_the_class_does_not_allow_gets_no_pod():
    plan = reconcile(session({"resources": {"memory": "64Gi"}}), observed(), NOW)
    assert plan.actions == ()
    assert said(plan)[1] == "ResourcesAboveClass"


@pytest.mark.parametrize("reason", ["QuotaExceeded", "PodRefused"])
def test_a_refused_pod_is_said_and_tried_again(reason: str):
    plan = reconcile(session(), observed(failure=Said(reason, "exceeded quota: desk, used: pods=1")), NOW)
    assert said(plan) == ("False", reason, "exceeded quota: desk, used: pods=1")
    assert (plan.actions, plan.retry) == ((), True)


def test_a_pod_that_vanished_is_counted_and_replaced_at_once():
    plan = reconcile(session(status=ready_status()), observed(), NOW)
    assert kinds(plan) == [PrepareNamespace, CreatePod]
    assert said(plan)[1:] == ("Starting", "the pod was deleted, and with it what was not saved; its pod is starting")
    assert plan.status is not None
    assert plan.status.restarts == 1
    assert plan.status.last_termination is not None
    assert plan.status.last_termination.reason == "PodDeleted"
    assert (plan.status.pod_uid, plan.status.endpoint) == (None, None)


def test_a_pod_that_keeps_vanishing_is_replaced_later_each_time():
    status = ready_status(startTime=stamp(NOW - timedelta(seconds=5)), restarts=4)
    plan = reconcile(session(status=status), observed(), NOW)
    assert plan.actions == ()
    assert plan.after == 32
    assert said(plan)[2] == "the pod was deleted, and with it what was not saved; a new pod follows in 32 s at most"


# idle


IDLE = {"idleTimeoutSeconds": 600}


def ready_since(seconds: int):
    return session(IDLE, ready_status(startTime=stamp(NOW - timedelta(seconds=seconds))))


def activity(*, asked: int, active: int) -> Activity:
    return Activity(asked_at=NOW - timedelta(seconds=asked), active_at=NOW - timedelta(seconds=active))


def test_a_new_session_is_looked_at_again_when_it_could_idle():
    assert reconcile(ready_since(100), observed(pod=pod(), binding=BOUND), NOW).after == 500


def test_when_the_deadline_has_come_the_host_is_asked():
    plan = reconcile(ready_since(600), observed(pod=pod(), binding=BOUND), NOW)
    assert plan.actions == (AskState(POD_UID, "10.1.2.3:8888"),)


def test_activity_pushes_the_deadline_on():
    seen = observed(pod=pod(), binding=BOUND, activity=activity(asked=0, active=200))
    assert reconcile(ready_since(1800), seen, NOW).after == 400


def test_activity_in_the_future_counts_as_now():
    seen = observed(pod=pod(), binding=BOUND, activity=activity(asked=0, active=-9999))
    assert reconcile(ready_since(1800), seen, NOW).after == 600


def test_an_old_answer_is_asked_for_anew():
    seen = observed(pod=pod(), binding=BOUND, activity=activity(asked=500, active=600))
    assert kinds(reconcile(ready_since(1800), seen, NOW)) == [AskState]


def test_an_idle_session_ends():
    seen = observed(pod=pod(), binding=BOUND, activity=activity(asked=0, active=600))
    plan = reconcile(ready_since(1800), seen, NOW)
    assert plan.actions == (DeletePod(POD_NAME, POD_UID),)
    assert said(plan, "Finished") == ("True", "Idle", "nothing ran and nobody was connected for 600 s")
    assert said(plan)[1] == "Expired"


def test_the_class_may_set_a_lower_idle_timeout():
    seen = observed(pod=pod(), binding=BOUND, session_class=session_class({"life": {"idleTimeoutSeconds": 60}}))
    assert kinds(reconcile(ready_since(60), seen, NOW)) == [AskState]


def test_a_host_that_does_not_say_whether_it_idles_is_asked_again():
    seen = observed(pod=pod(), binding=BOUND, failure=Said("NotListening", "timeout"))
    plan = reconcile(ready_since(600), seen, NOW)
    assert (plan.actions, plan.after) == ((), ASK_AGAIN)
    assert said(plan)[0] == "True"


# egress


OPEN = {"network": {"egress": [{"cidr": "203.0.113.0/24", "ports": [443]}]}}
ALLOWING = session_class({"egress": [{"cidr": "203.0.0.0/16", "ports": [80, 443]}]})


def policy_spec() -> dict[str, Any]:
    [apply] = [a for a in reconcile(session(OPEN), observed(session_class=ALLOWING), NOW).actions
               if isinstance(a, ApplyEgress)]  # fmt: skip
    return apply.manifest["spec"]


def test_egress_is_opened_before_the_pod_is_made():
    plan = reconcile(session(OPEN), observed(session_class=ALLOWING), NOW)
    assert kinds(plan) == [PrepareNamespace, ApplyEgress, CreatePod]


def test_egress_that_is_open_as_wanted_is_left_alone():
    seen = observed(session_class=ALLOWING, pod=pod(), binding=BOUND, egress_spec=policy_spec())
    assert reconcile(session(OPEN), seen, NOW).actions == ()


def test_egress_that_somebody_changed_is_put_right():
    seen = observed(session_class=ALLOWING, pod=pod(), binding=BOUND, egress_spec={"egress": [{}]})
    assert kinds(reconcile(session(OPEN), seen, NOW)) == [ApplyEgress]


def test_egress_that_is_no_longer_wanted_is_closed():
    seen = observed(session_class=ALLOWING, pod=pod(), binding=BOUND, egress_spec=policy_spec())
    assert reconcile(session(), seen, NOW).actions == (DeleteEgress(egress_policy_name(session())),)


def test_egress_that_the_class_no_longer_allows_is_closed_under_a_running_pod():
    seen = observed(pod=pod(), binding=BOUND, egress_spec=policy_spec())
    plan = reconcile(session(OPEN), seen, NOW)
    assert kinds(plan) == [DeleteEgress]
    assert said(plan)[:2] == ("True", "Bound")
    assert "203.0.113.0/24 port 443 is not" in said(plan)[2]


def test_egress_is_closed_when_the_class_is_gone():
    seen = observed(session_class=None, pod=pod(), binding=BOUND, egress_spec=policy_spec())
    plan = reconcile(session(OPEN), seen, NOW)
    assert kinds(plan) == [DeleteEgress]
    assert said(plan)[2] == "nothing of network.egress is open, because the session's class is gone"


def test_allowed_egress_needs_no_words():
    seen = observed(session_class=ALLOWING, pod=pod(), binding=BOUND, egress_spec=policy_spec())
    assert said(reconcile(session(OPEN), seen, NOW)) == ("True", "Bound", "")


def test_a_pass_that_reports_a_failure_changes_nothing_more():
    seen = observed(session_class=ALLOWING, pod=pod(), binding=BOUND, failure=Said("PodRefused", "no"))
    assert reconcile(session(OPEN), seen, NOW).actions == ()


# all of them


@pytest.mark.parametrize(
    ("wanted", "seen"),
    [
        pytest.param(session(), observed(class_name="", session_class=None), id="no class"),
        pytest.param(session({"operatingMode": "Suspended"}), observed(), id="suspended"),
        pytest.param(session(status=ready_status()), observed(pod=pod(deletionTimestamp=gone())), id="pod deleted"),
        pytest.param(session(), observed(pod=pod(status=waiting("ContainerCreating"))), id="starting"),
        pytest.param(session(), observed(pod=pod(), binding=BOUND), id="ready"),
        pytest.param(
            session(status=ready_status()),
            observed(pod=pod(status=waiting("CrashLoopBackOff", last_end=ended()))),
            id="crashing",
        ),
    ],
)
def test_deciding_again_on_the_same_says_the_same(wanted: Any, seen: Any):
    first = reconcile(wanted, seen, NOW)
    assert first.status is not None
    again = reconcile(wanted.model_copy(update={"status": first.status}), seen, NOW + timedelta(seconds=1))
    assert again.status == first.status


def test_the_time_of_making_matters_only_for_lifetimes():
    assert reconcile(session(creationTimestamp=stamp(MADE)), observed(), NOW) == reconcile(
        session(creationTimestamp=stamp(NOW)), observed(), NOW
    )
