"""Views of pods: what is read of a document, and that nothing in it can be missing or odd enough to fail."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.carrel_operator.factories import BOUND, CONTAINER, NOW, POD_UID, ended, pod, pod_document, running

from carrel_operator.observed import Binding, Ended, Observed, PodView, Said


def test_a_new_pod_has_nothing_but_its_name():
    view = PodView.of({"metadata": {"name": "p", "uid": "u"}})
    assert view == PodView(name="p", uid="u")
    assert view.live


def test_a_running_pod():
    view = pod()
    assert (view.ip, view.node, view.running, view.container_id) == ("10.1.2.3", "node-1", True, CONTAINER)
    assert (view.scheduled, view.live, view.over) == (True, True, False)
    assert (view.cpu_limit, view.memory_limit) == (1, 2**31)


def test_a_container_that_ended_and_runs_again():
    assert pod(status=running(last_end=ended())).ended == Ended("OOMKilled", 137, NOW)


def test_a_container_that_has_just_ended():
    state = {"terminated": ended("Error", 1)}
    status = {"containerStatuses": [{"name": "kernel", "state": state, "lastState": {"terminated": ended()}}]}
    assert pod(status=status).ended == Ended("Error", 1, NOW)


def test_an_end_without_a_time_is_no_end():
    lost = {"reason": "ContainerStatusUnknown", "exitCode": 137, "finishedAt": None}
    assert pod(status=running(last_end=lost)).ended is None


def test_other_containers_are_not_looked_at():
    other = {"name": "injected", "state": {"waiting": {"reason": "ErrImagePull"}}}
    assert pod(status={"containerStatuses": [other]}).waiting is None


def test_a_disruption_that_did_not_come_is_none():
    conditions = [{"type": "DisruptionTarget", "status": "False", "reason": "x"}]
    assert pod(status={"conditions": conditions}).disruption is None
    conditions[0]["status"] = "True"
    assert pod(status={"conditions": conditions}).disruption == Said("x")


@pytest.mark.parametrize(
    ("limits", "cpu", "memory"),
    [
        ({"cpu": "250m", "memory": "128Mi"}, 0.25, 2**27),
        ({"cpu": "2", "memory": "1000"}, 2, 1000),
        ({"cpu": "1e3", "memory": "1Ei"}, 1000, None),
        ({"cpu": "much"}, None, None),
        ({}, None, None),
    ],
)
def test_limits_are_read_as_the_cluster_writes_them(limits: dict[str, str], cpu: float | None, memory: int | None):
    document: dict[str, Any] = pod_document()
    document["spec"]["containers"][0]["resources"]["limits"] = limits
    view = PodView.of(document)
    assert (view.cpu_limit, view.memory_limit) == (cpu, memory)


@pytest.mark.parametrize(
    ("seen", "bound"),
    [
        (Observed(), False),
        (Observed(pod=pod()), False),
        (Observed(binding=BOUND), False),
        (Observed(pod=pod(), binding=BOUND), True),
        (Observed(pod=pod(), binding=Binding("other", CONTAINER)), False),
        (Observed(pod=pod(), binding=Binding(POD_UID, "containerd://two")), False),
        (Observed(pod=pod(status={"phase": "Running"}), binding=Binding(POD_UID, None)), False),
    ],
)
def test_bound_is_the_running_container_of_the_very_pod(seen: Observed, bound: bool):
    assert seen.bound is bound
