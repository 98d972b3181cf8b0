"""When an upgrade makes the default SessionClass anew.

Plan: Helm renders the chart against an API server that holds the class of the last time, with what the server filled
in. The same values leave it alone; a changed value, one that was taken away, and a change by hand make it anew.
"""

from __future__ import annotations

from typing import Any

import pytest
from tests.chart.conftest import Documents, Upgrade
from tests.chart.rendering import merged, of_kind, one

CLASS = "/apis/carrel.dev/v1alpha1/sessionclasses/default"
WEB = {"egress": [{"cidr": "192.0.2.0/24"}], "maximumResources": {"cpu": "4"}}


def spec(changes: dict[str, Any]) -> dict[str, Any]:
    """Values of `sessions` with this spec of the default class."""
    return {"defaultClass": {"spec": changes}}


@pytest.fixture
def held(documents: Documents, upgrade: Upgrade) -> dict[str, Any]:
    """The class as the last upgrade left it, with a default that the server filled in."""
    made = one(upgrade(spec(WEB)), "SessionClass", "default")
    documents[CLASS] = merged(made, {"spec": {"gpuResourceName": "nvidia.com/gpu"}})
    return documents[CLASS]


@pytest.mark.usefixtures("held")
def test_the_same_values_leave_the_class_alone(upgrade: Upgrade) -> None:
    assert of_kind(upgrade(spec(WEB)), "SessionClass") == []


@pytest.mark.usefixtures("held")
@pytest.mark.parametrize("without", ["egress", "maximumResources"])
def test_what_was_taken_away_is_taken_from_the_class(upgrade: Upgrade, without: str) -> None:
    left = {key: value for key, value in WEB.items() if key != without}
    assert without not in one(upgrade(spec(left)), "SessionClass", "default")["spec"]


@pytest.mark.usefixtures("held")
def test_a_changed_value_changes_the_class(upgrade: Upgrade) -> None:
    changed = one(upgrade(spec(merged(WEB, {"maximumResources": {"cpu": "5"}}))), "SessionClass", "default")
    assert changed["spec"]["maximumResources"] == {"cpu": "5"}


def test_what_the_chart_sets_can_be_taken_away(documents: Documents, upgrade: Upgrade) -> None:
    without = spec({"runAsUser": None})
    made = one(upgrade(without), "SessionClass", "default")
    assert "runAsUser" not in made["spec"]
    documents[CLASS] = made
    assert of_kind(upgrade(without), "SessionClass") == []


def test_a_change_by_hand_is_put_back(upgrade: Upgrade, held: dict[str, Any]) -> None:
    held["spec"]["maximumResources"]["cpu"] = "64"
    assert one(upgrade(spec(WEB)), "SessionClass", "default")["spec"]["maximumResources"] == {"cpu": "4"}
