"""The branches of the decision for a pod that is there: it ends, is on its way, runs.

The other branches are in `test_reconcile`.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from tests.unit.carrel_operator.factories import (
    BOUND,
    NOW,
    POD_UID,
    SESSION_UID,
    ended,
    gone,
    kinds,
    observed,
    pod,
    ready_status,
    running,
    said,
    session,
    stamp,
    waiting,
)

from carrel_operator.builders.identity import pod_name
from carrel_operator.observed import Said
from carrel_operator.plan import (
    Bind,
    CreatePod,
    DeletePod,
    Plan,
)
from carrel_operator.reconcile import reconcile
from carrel_operator.reconcile.around import FORCE_AFTER
from carrel_operator.reconcile.running import BIND_AGAIN, memory_for_kernels

POD_NAME = pod_name(session())
REFUSED = "the pod failed (OutOfcpu"


# a pod that ends


def test_a_pod_that_somebody_deletes_is_waited_for():
    plan = reconcile(session(status=ready_status()), observed(pod=pod(deletionTimestamp=gone()), binding=BOUND), NOW)
    assert plan.actions == ()
    assert said(plan)[1:] == ("Starting", "the pod was deleted, and with it what was not saved; a new pod follows")
    assert plan.after == 10 + FORCE_AFTER.total_seconds()
    assert plan.status is not None
    assert (plan.status.restarts, plan.status.pod_uid) == (1, None)


def test_a_pod_on_a_node_that_does_not_answer_is_deleted_by_force():
    late = observed(pod=pod(deletionTimestamp=gone(-60)))
    plan = reconcile(session(status=ready_status(podUID=None)), late, NOW)
    assert plan.actions == (DeletePod(POD_NAME, POD_UID, force=True),)


@pytest.mark.parametrize(
    ("status", "reason", "text"),
    [
        ({"phase": "Failed", "reason": "Evicted", "message": "disk"}, "Starting", "the pod was evicted from its node"),
        ({"phase": "Failed", "reason": "NodeLost"}, "Starting", "the pod's node was lost"),
        ({"phase": "Failed"}, "Crashed", "the kernel host ended with an unknown exit code"),
        ({"phase": "Succeeded"}, "Crashed", "the kernel host ended with an unknown exit code"),
    ],
)
def test_a_pod_that_ended_is_removed_and_its_end_told(status: dict[str, Any], reason: str, text: str):
    plan = reconcile(session(status=ready_status()), observed(pod=pod(status=status)), NOW)
    assert plan.actions == (DeletePod(POD_NAME, POD_UID),)
    assert said(plan)[1:] == (reason, f"{text}, and with it what was not saved; a new pod follows")


def test_pods_that_the_kubelet_refuses_are_told_in_its_words_and_made_less_and_less_often():
    """What a session goes through whose node has no room: seen, deleted, gone, made again."""
    status, moment, made = ready_status(), NOW, list[datetime]()
    words = "Pod was rejected: Node didn't have enough resource: cpu"
    refused = {"phase": "Failed", "reason": "OutOfcpu", "message": words}
    for _ in range(4):
        plan = reconcile(session(status=status), observed(pod=pod(status=refused)), moment)
        assert kinds(plan) == [DeletePod]
        assert said(plan)[1:] == ("Starting", f"{REFUSED}: {words}), and with it what was not saved; a new pod follows")
        assert plan.status is not None
        gone_again = reconcile(session(status=plan.status.dump()), observed(), moment)
        if gone_again.after is not None:
            assert said(gone_again)[2].startswith(
                f"{REFUSED}: {words}), and with it what was not saved; a new pod follows in "
            )
            moment += timedelta(seconds=gone_again.after)
            gone_again = reconcile(session(status=plan.status.dump()), observed(), moment)
        assert kinds(gone_again)[-1] is CreatePod
        assert gone_again.status is not None
        made.append(moment)
        moment += timedelta(seconds=1)
        status = {**gone_again.status.dump(), "podUID": POD_UID}
    assert [(moment - NOW).total_seconds() for moment in made] == [0, 1 + 4, 6 + 8, 15 + 16]


# a pod on its way


def test_a_pod_without_a_node_is_unschedulable_in_the_schedulers_words():
    status = {
        "phase": "Pending",
        "conditions": [
            {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes: no memory"}
        ],
    }
    plan = reconcile(session(), observed(pod=pod(status=status)), NOW)
    assert said(plan) == ("False", "Unschedulable", "0/3 nodes: no memory")
    assert said(plan, "PodScheduled") == ("False", "Unschedulable", "0/3 nodes: no memory")


def test_a_gated_pod_is_starting():
    gated = {
        "conditions": [{"type": "PodScheduled", "status": "False", "reason": "SchedulingGated", "message": "gate"}]
    }
    assert said(reconcile(session(), observed(pod=pod(status=gated)), NOW)) == ("False", "Starting", "gate")


def test_a_pod_that_the_scheduler_has_not_seen_is_starting():
    plan = reconcile(session(), observed(pod=pod(status={})), NOW)
    assert said(plan) == ("False", "Starting", "its pod is starting")
    assert said(plan, "PodScheduled")[:2] == ("Unknown", "Pending")


@pytest.mark.parametrize("reason", ["ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"])
def test_an_image_that_cannot_be_pulled_is_told_in_the_kubelets_words(reason: str):
    plan = reconcile(session(), observed(pod=pod(status=waiting(reason, "no such image"))), NOW)
    assert said(plan) == ("False", "ImagePullFailed", f"{reason}: no such image")


def test_an_image_that_cannot_be_pulled_for_no_reason_is_told_too():
    plan = reconcile(session(), observed(pod=pod(status=waiting("ErrImagePull"))), NOW)
    assert said(plan)[2] == "ErrImagePull: the image cannot be pulled"


def test_other_trouble_of_the_kubelet_is_told():
    plan = reconcile(session(), observed(pod=pod(status=waiting("CreateContainerConfigError", "no config map"))), NOW)
    assert said(plan) == ("False", "Starting", "CreateContainerConfigError: no config map")


def test_a_container_that_is_being_made_is_starting():
    plan = reconcile(session(), observed(pod=pod(status=waiting("ContainerCreating"))), NOW)
    assert said(plan) == ("False", "Starting", "its pod is starting")
    assert plan.status is not None
    assert (plan.status.pod_uid, plan.status.pod_name, plan.status.node_name) == (POD_UID, POD_NAME, "node-1")


@pytest.mark.parametrize(
    ("end", "reason", "text"),
    [
        (ended("OOMKilled", 137), "OOMKilled", "the pod went over its memory limit (2048Mi)"),
        (ended("Error", 1), "Crashed", "the kernel host ended with exit code 1"),
    ],
)
def test_a_kernel_host_that_keeps_ending_is_told_with_its_end(end: dict[str, Any], reason: str, text: str):
    status = waiting("CrashLoopBackOff", "back-off 20s", last_end=end)
    plan = reconcile(session(status=ready_status()), observed(pod=pod(status=status)), NOW)
    assert said(plan)[1:] == (reason, f"{text}, and with it what was not saved; back-off 20s")
    assert plan.status is not None
    assert plan.status.restarts == 1
    assert plan.status.last_termination is not None
    assert plan.status.last_termination.dump() == {
        "reason": reason,
        "exitCode": end["exitCode"],
        "memoryLimit": "2048Mi",
        "time": stamp(NOW),
    }


def test_a_crash_loop_without_a_known_end_is_starting():
    plan = reconcile(session(), observed(pod=pod(status=waiting("CrashLoopBackOff", "back-off"))), NOW)
    assert said(plan) == ("False", "Starting", "back-off")


# a pod that runs


def test_a_running_pod_is_bound_with_the_sessions_environment_and_limits():
    plan = reconcile(session({"env": [{"name": "MODE", "value": "fast"}]}), observed(pod=pod()), NOW)
    [bind] = plan.actions
    assert isinstance(bind, Bind)
    assert (bind.endpoint, bind.container_id) == ("10.1.2.3:8888", "containerd://one")
    assert (bind.request.session_uid, bind.request.pod_uid) == (SESSION_UID, POD_UID)
    assert bind.request.env == {"MODE": "fast"}
    assert bind.request.memory_limit_bytes == 2**31 - 2**28
    assert bind.request.cpu_limit == 1
    assert said(plan)[1] == "Starting"


def test_a_pod_on_ipv6_is_addressed_in_brackets():
    status = running() | {"podIP": "fd00::7"}
    [bind] = reconcile(session(), observed(pod=pod(status=status)), NOW).actions
    assert isinstance(bind, Bind)
    assert bind.endpoint == "[fd00::7]:8888"


def test_a_kernel_host_that_does_not_listen_yet_is_asked_again_soon():
    plan = reconcile(session(), observed(pod=pod(), failure=Said("NotListening", "refused")), NOW)
    assert (plan.actions, plan.after, plan.retry) == ((), BIND_AGAIN, False)
    assert said(plan) == ("False", "Starting", "refused")


def test_a_kernel_host_that_refuses_is_asked_again_later():
    plan = reconcile(session(), observed(pod=pod(), failure=Said("BindRefused", "unknown key")), NOW)
    assert (plan.actions, plan.retry) == ((), True)
    assert said(plan) == ("False", "Starting", "unknown key")


def test_a_kernel_host_of_another_session_is_replaced():
    plan = reconcile(session(), observed(pod=pod(), failure=Said("BoundToAnother", "already_bound")), NOW)
    assert plan.actions == (DeletePod(POD_NAME, POD_UID),)
    assert said(plan) == ("False", "Crashed", "already_bound; the pod is replaced")


def test_a_bound_session_is_ready_with_endpoint_pod_and_time():
    plan = reconcile(session(), observed(pod=pod(), binding=BOUND), NOW)
    assert said(plan) == ("True", "Bound", "")
    assert plan.status is not None
    assert plan.status.endpoint == "10.1.2.3:8888"
    assert (plan.status.pod_uid, plan.status.pod_name) == (POD_UID, POD_NAME)
    assert plan.status.start_time == NOW
    assert (plan.actions, plan.after) == ((), None)


def test_a_ready_session_in_which_nothing_is_new_keeps_its_status():
    wanted = session(status=ready_status())
    plan = reconcile(wanted, observed(pod=pod(), binding=BOUND), NOW)
    assert plan == Plan(status=wanted.status)


def test_after_a_restart_of_the_operator_a_ready_session_is_bound_again_and_stays_ready():
    plan = reconcile(session(status=ready_status()), observed(pod=pod()), NOW)
    assert kinds(plan) == [Bind]
    assert plan.status is None


def test_a_ready_session_whose_host_does_not_answer_at_that_moment_stays_ready():
    seen = observed(pod=pod(), failure=Said("NotListening", "timeout"))
    assert reconcile(session(status=ready_status()), seen, NOW) == Plan(retry=True)


def test_a_restarted_container_is_no_longer_ready_counted_and_bound_again():
    status = running(container_id="containerd://two", last_end=ended("OOMKilled", 137))
    plan = reconcile(session(status=ready_status()), observed(pod=pod(status=status), binding=BOUND), NOW)
    assert kinds(plan) == [Bind]
    assert said(plan)[1] == "OOMKilled"
    assert plan.status is not None
    assert (plan.status.restarts, plan.status.endpoint) == (1, None)


def test_a_restart_is_counted_once():
    last = {"reason": "OOMKilled", "exitCode": 137, "memoryLimit": "2048Mi", "time": stamp(NOW)}
    wanted = session(status=ready_status(restarts=1, lastTermination=last, startTime=stamp(NOW)))
    seen = observed(pod=pod(status=running(last_end=ended())), binding=BOUND)
    plan = reconcile(wanted, seen, NOW)
    assert plan.status is not None
    assert plan.status.restarts == 1


def test_a_session_that_is_ready_again_has_a_new_start():
    last = {"reason": "OOMKilled", "exitCode": 137, "time": stamp(NOW - timedelta(seconds=5))}
    wanted = session(status=ready_status(restarts=1, lastTermination=last, endpoint=None))
    plan = reconcile(wanted, observed(pod=pod(status=running(last_end=ended(at=NOW))), binding=BOUND), NOW)
    assert plan.status is not None
    assert plan.status.start_time == NOW


def test_a_session_goes_on_without_its_class():
    plan = reconcile(session(status=ready_status()), observed(pod=pod(), binding=BOUND, session_class=None), NOW)
    assert said(plan)[:2] == ("True", "Bound")


@pytest.mark.parametrize(
    ("limit", "expected"),
    [(None, None), (2**27, 2**26), (2**30, 2**30 - 2**27), (2**33, 2**33 - 2**30)],
)
def test_the_kernel_host_keeps_memory_for_itself(limit: int | None, expected: int | None):
    assert memory_for_kernels(limit) == expected
