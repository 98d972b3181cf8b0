"""Losses: each counted once and named; and how long a replacement waits."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from tests.unit.carrel_operator.factories import NOW, ended, pod, ready_status, running, session, stamp

from carrel_operator.terminations import account, lost_since_ready, replace_at


def status(**parts: Any):
    return session(status=ready_status(**parts)).status


@pytest.mark.parametrize(
    ("condition", "reason"),
    [
        ("DeletionByTaintManager", "NodeLost"),
        ("EvictionByEvictionAPI", "Evicted"),
        ("PreemptionByScheduler", "Evicted"),
        ("TerminationByKubelet", "Evicted"),
    ],
)
def test_a_disruption_is_named(condition: str, reason: str):
    disrupted = {
        "phase": "Running",
        "conditions": [{"type": "DisruptionTarget", "status": "True", "reason": condition}],
    }
    counted = account(status(), pod(status=disrupted, deletionTimestamp=stamp(NOW)), NOW)
    assert counted.last is not None
    assert counted.last.reason == reason


def test_a_pod_that_ended_because_it_was_deleted_was_deleted():
    over = {"phase": "Succeeded", "containerStatuses": [{"name": "kernel", "state": {"terminated": ended("Error", 0)}}]}
    counted = account(status(), pod(status=over, deletionTimestamp=stamp(NOW)), NOW)
    assert counted.last is not None
    assert counted.last.reason == "PodDeleted"


def test_a_pod_of_another_uid_means_that_the_known_one_is_gone():
    counted = account(status(), pod(uid="new"), NOW)
    assert (counted.restarts, counted.pod_uid) == (1, "new")
    assert counted.last is not None
    assert counted.last.reason == "PodDeleted"


def test_a_first_pod_is_no_loss():
    counted = account(session().status, pod(), NOW)
    assert (counted.restarts, counted.last) == (0, None)


def test_a_first_pod_whose_container_ended_is_one():
    counted = account(session().status, pod(status=running(last_end=ended("Error", 2))), NOW)
    assert counted.restarts == 1
    assert counted.last is not None
    assert (counted.last.reason, counted.last.exit_code) == ("Crashed", 2)


def test_a_pod_that_is_ended_and_unknown_is_none():
    assert account(session().status, pod(status={"phase": "Failed"}), NOW).restarts == 0


def test_an_end_is_counted_once_and_the_next_one_again():
    first = account(status(), pod(status=running(last_end=ended())), NOW)
    assert first.last is not None
    then = status(restarts=first.restarts, lastTermination=first.last.dump())
    assert account(then, pod(status=running(last_end=ended())), NOW) == first
    later = ended(at=NOW + timedelta(seconds=30))
    assert account(then, pod(status=running(last_end=later)), NOW).restarts == 2


def test_a_container_that_ends_its_pod_is_one_loss():
    over = {"containerStatuses": [{"name": "kernel", "state": {"terminated": ended("Completed", 0)}}]}
    first = account(status(), pod(status={"phase": "Running", **over}), NOW)
    assert first.last is not None
    then = status(restarts=first.restarts, lastTermination=first.last.dump())
    second = account(then, pod(status={"phase": "Succeeded", **over}), NOW + timedelta(seconds=1))
    assert (first.restarts, second.restarts, second.pod_uid) == (1, 1, None)
    assert second.last == first.last


def last(seconds_after_start: int, restarts: int = 1):
    began = NOW - timedelta(seconds=seconds_after_start)
    before = status(startTime=stamp(began), podUID=None, restarts=restarts,
                    lastTermination={"reason": "Crashed", "time": stamp(NOW)})  # fmt: skip
    return before, account(before, None, NOW)


@pytest.mark.parametrize(
    ("lived", "restarts", "wait"), [(60, 1, None), (59, 1, 2), (59, 3, 8), (0, 8, 256), (0, 9, 300), (0, 1000, 300)]
)
def test_what_ends_soon_is_replaced_later_each_time(lived: int, restarts: int, wait: int | None):
    at = replace_at(*last(lived, restarts))
    assert at == (None if wait is None else NOW + timedelta(seconds=wait))


def test_what_never_was_ready_waits_too():
    before = session(status={"lastTermination": {"reason": "Crashed", "time": stamp(NOW)}, "restarts": 1}).status
    assert replace_at(before, account(before, None, NOW)) == NOW + timedelta(seconds=2)


def test_only_the_first_loss_after_a_stable_time_is_replaced_at_once():
    def at(seconds: int):
        unready = ready_status()["conditions"]
        unready[0].update(status="False", reason="Starting", lastTransitionTime=stamp(NOW))
        lost = stamp(NOW + timedelta(seconds=seconds))
        before = status(conditions=unready, podUID=None, restarts=2,
                        lastTermination={"reason": "OutOfcpu", "time": lost})  # fmt: skip
        return replace_at(before, account(before, None, NOW))

    assert at(0) is None
    assert at(1) == NOW + timedelta(seconds=1 + 4)
    assert at(3600) == NOW + timedelta(seconds=3600 + 4)


def test_a_session_without_losses_waits_for_nothing():
    assert replace_at(session().status, account(session().status, None, NOW)) is None


def test_a_loss_is_news_until_the_session_is_ready_again():
    before, counted = last(60)
    assert lost_since_ready(before, counted)
    ready = status(lastTermination={"reason": "Crashed", "time": stamp(NOW - timedelta(hours=2))})
    assert not lost_since_ready(ready, account(ready, pod(), NOW))
