"""The SessionPools of `sessions.pools`: when they are made, made anew, and taken away.

Plan: on a new cluster each is a hook that comes after the definitions. Helm then renders against an API server that
holds the pool of the last time. The same values and an autoscaler's number leave it alone; a changed value and a change
by hand make it anew; one that is in the values no more is deleted, but never another's; an uninstall deletes all.
"""

from __future__ import annotations

from typing import Any

import pytest
from tests.chart.conftest import Documents, Upgrade
from tests.chart.rendering import MINIMAL, RenderingError, merged, of_kind, render

from carrel_api.session_pool import SessionPool

POOLS = "/apis/carrel.dev/v1alpha1/namespaces/carrel-sessions/sessionpools"
DELETED = "before-hook-creation,hook-succeeded"
SMALL = {"name": "small", "replicas": 2, "resources": {"memory": "1Gi"}}


def hooks(objects: list[dict[str, Any]]) -> dict[tuple[str, str], dict[str, Any]]:
    """Return the pools by their name and the moment when Helm makes them."""
    pools = of_kind(objects, "SessionPool")
    return {(pool["metadata"]["name"], pool["metadata"]["annotations"]["helm.sh/hook"]): pool for pool in pools}


def values(*pools: dict[str, Any]) -> dict[str, Any]:
    return {"pools": list(pools)}


@pytest.fixture
def held(documents: Documents, upgrade: Upgrade) -> dict[str, Any]:
    """The pool as the last upgrade left it, with defaults that the server filled in."""
    listed: dict[str, Any] = {
        "kind": "SessionPoolList",
        "apiVersion": "carrel.dev/v1alpha1",
        "metadata": {},
        "items": [],
    }
    documents[POOLS] = listed
    made = hooks(upgrade(values(SMALL)))["small", "post-install,post-upgrade"]
    listed["items"] = [merged(made, {"spec": {"className": "", "image": "", "maxSurge": 1}})]
    return listed["items"][0]


def test_pools_come_after_their_definition_in_the_session_namespace() -> None:
    assert of_kind(render(), "SessionPool") == []
    found = hooks(render(merged(MINIMAL, {"sessions": values(SMALL, {"name": "plain"})})))
    assert {name for name, _ in found} == {"small", "plain"}
    pool = found["small", "post-install,post-upgrade"]
    assert pool["metadata"]["namespace"] == "carrel-sessions"
    assert pool["metadata"]["annotations"]["helm.sh/hook-delete-policy"] == "before-hook-creation"
    parsed = SessionPool.parse(pool).spec
    assert (parsed.replicas, parsed.resources.memory) == (2, "1Gi")
    assert SessionPool.parse(found["plain", "post-install,post-upgrade"]).spec.replicas == 1


def test_an_uninstall_takes_pools_away() -> None:
    found = hooks(render(merged(MINIMAL, {"sessions": values(SMALL)})))["small", "pre-delete"]
    assert found["metadata"]["annotations"]["helm.sh/hook-delete-policy"] == DELETED
    assert found["spec"] == {"replicas": 0}


@pytest.mark.usefixtures("held")
def test_the_same_values_leave_a_pool_alone(upgrade: Upgrade) -> None:
    assert set(hooks(upgrade(values(SMALL)))) == {("small", "pre-delete")}


def test_what_an_autoscaler_says_is_left_alone(upgrade: Upgrade, held: dict[str, Any]) -> None:
    held["spec"]["replicas"] = 17
    assert set(hooks(upgrade(values(SMALL)))) == {("small", "pre-delete")}


@pytest.mark.usefixtures("held")
@pytest.mark.parametrize("change", [{"replicas": 5}, {"className": "other"}, {"resources": {}}])
def test_a_changed_value_makes_a_pool_anew(upgrade: Upgrade, change: dict[str, Any]) -> None:
    made = hooks(upgrade(values({**SMALL, **change})))["small", "post-install,post-upgrade"]
    assert made["spec"].items() >= change.items()


def test_a_change_by_hand_is_put_back(upgrade: Upgrade, held: dict[str, Any]) -> None:
    held["spec"]["resources"]["memory"] = "64Gi"
    made = hooks(upgrade(values(SMALL)))["small", "post-install,post-upgrade"]
    assert made["spec"]["resources"] == {"memory": "1Gi"}


@pytest.mark.usefixtures("held")
def test_a_pool_that_is_in_the_values_no_more_is_taken_away(upgrade: Upgrade) -> None:
    [(where, pool)] = hooks(upgrade(values())).items()
    assert where == ("small", "post-upgrade")
    assert pool["metadata"]["annotations"]["helm.sh/hook-delete-policy"] == DELETED
    assert pool["spec"] == {"replicas": 0}


@pytest.mark.parametrize("labels", [{}, {"app.kubernetes.io/instance": "another"}])
def test_pools_of_others_are_left_alone(upgrade: Upgrade, held: dict[str, Any], labels: dict[str, str]) -> None:
    held["metadata"]["labels"] = labels
    assert hooks(upgrade(values())) == {}


def test_two_pools_of_one_name_are_refused() -> None:
    with pytest.raises(RenderingError, match=r"sessions\.pools must have different names, and small is there twice"):
        render(merged(MINIMAL, {"sessions": values(SMALL, SMALL)}))
