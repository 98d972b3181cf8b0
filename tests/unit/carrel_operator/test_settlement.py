"""A session against its class: what it gets, and every reason why it gets nothing, in the words that it is told."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.carrel_operator.factories import DIGEST, session, session_class

from carrel_api.session import EnvironmentVariable
from carrel_operator.settlement import Refusal, Settlement, settle


def test_a_session_that_asks_for_nothing_gets_the_defaults_and_the_first_image():
    found = settle(session().spec, session_class())
    assert isinstance(found, Settlement)
    assert (found.cpu, found.memory, found.ephemeral_storage, found.gpu) == ("1", "2Gi", "4Gi", 0)
    assert (found.image, found.workspace_size) == (f"example.org/kernel@{DIGEST}", "2Gi")


def test_a_session_gets_what_it_asks_for_within_the_class():
    spec = {
        "image": "gpu",
        "resources": {"cpu": 2, "memory": "4Gi", "ephemeralStorage": "8Gi"},
        "workspace": {"size": "1Gi"},
        "datasets": ["weather"],
    }
    datasets = {"datasets": [{"name": "other", "claimName": "o"}, {"name": "weather", "claimName": "w"}]}
    found = settle(session(spec).spec, session_class(datasets))
    assert isinstance(found, Settlement)
    assert (found.cpu, found.memory, found.ephemeral_storage) == ("2", "4Gi", "8Gi")
    assert (found.image, found.workspace_size) == (f"example.org/kernel-gpu@{DIGEST}", "1Gi")
    assert [dataset.claim_name for dataset in found.datasets] == ["w"]


EGRESS_MESSAGE = (
    "network.egress must be within what the class allows, and 203.0.113.0/24 port 443 is not; "
    "leave it out, or have the class widened"
)
REFUSED: list[tuple[dict[str, Any], dict[str, Any], str, str]] = [
    ({"image": "rust"}, {}, "ImageNotInClass", "image must be one of the class's images (python, gpu), not 'rust'"),
    ({"resources": {"cpu": 3}}, {}, "ResourcesAboveClass", "resources.cpu must be at most 2 in class standard, not 3"),
    (
        {"resources": {"memory": "4097Mi"}},
        {},
        "ResourcesAboveClass",
        "resources.memory must be at most 4Gi in class standard, not 4097Mi",
    ),
    (
        {"resources": {"ephemeralStorage": "9Gi"}},
        {},
        "ResourcesAboveClass",
        "resources.ephemeralStorage must be at most 8Gi in class standard, not 9Gi",
    ),
    ({"resources": {"gpu": 1}}, {}, "ResourcesAboveClass", "resources.gpu must be at most 0 in class standard, not 1"),
    (
        {"workspace": {"type": "Persistent"}},
        {"workspace": {"allowPersistent": False}},
        "ResourcesAboveClass",
        "workspace.type must be Ephemeral in class standard",
    ),
    (
        {"workspace": {"size": "11Gi"}},
        {},
        "ResourcesAboveClass",
        "workspace.size must be at most 10Gi in class standard, not 11Gi",
    ),
    (
        {"workspace": {"size": "5Gi"}},
        {},
        "ResourcesAboveClass",
        "workspace.size must be at most resources.ephemeralStorage (4Gi) when the workspace is ephemeral, not 5Gi",
    ),
    ({"datasets": ["a", "b"]}, {}, "DatasetNotInClass", "datasets must be of the class's (none), not a, b"),
    (
        {"datasets": ["a"]},
        {"datasets": [{"name": "c", "claimName": "c"}]},
        "DatasetNotInClass",
        "datasets must be of the class's (c), not a",
    ),
    (
        {"network": {"egress": [{"cidr": "203.0.113.0/24", "ports": [443]}]}},
        {},
        "EgressAboveClass",
        EGRESS_MESSAGE,
    ),
]


@pytest.mark.parametrize(("spec", "allowed", "reason", "message"), REFUSED)
def test_what_the_class_does_not_allow_is_refused_in_clear_words(
    spec: dict[str, Any], allowed: dict[str, Any], reason: str, message: str
):
    assert settle(session(spec).spec, session_class(allowed)) == Refusal(reason, message)


def test_a_persistent_workspace_may_be_larger_than_the_node_storage():
    assert isinstance(
        settle(session({"workspace": {"type": "Persistent", "size": "10Gi"}}).spec, session_class()), Settlement
    )


def test_environment_that_an_older_schema_let_in_is_refused():
    wanted = session()
    env = [EnvironmentVariable(name="LD_PRELOAD", value="/x.so"), EnvironmentVariable(name="MODE")]
    wanted = wanted.model_copy(update={"spec": wanted.spec.model_copy(update={"env": env})})
    assert settle(wanted.spec, session_class()) == Refusal(
        "EnvironmentRefused", "env must not set LD_PRELOAD; choose other names"
    )


CEILING = {"egress": [{"cidr": "203.0.0.0/16", "ports": [80, 443]}, {"cidr": "2001:db8::/32", "ports": [443]}]}


@pytest.mark.parametrize(
    ("cidr", "ports", "allowed"),
    [
        ("203.0.0.0/16", [80, 443], True),
        ("203.0.113.7/32", [443], True),
        ("2001:db8:1::/48", [443], True),
        ("203.0.0.0/15", [443], False),
        ("0.0.0.0/0", [443], False),
        ("203.1.0.0/24", [443], False),
        ("203.0.113.0/24", [443, 22], False),
        ("2001:db8::/32", [80], False),
        ("::/0", [443], False),
        ("::ffff:203.0.113.0/120", [443], False),
    ],
)
def test_egress_must_lie_within_one_of_the_classs_ranges_and_its_ports(cidr: str, ports: list[int], allowed: bool):
    wanted = session({"network": {"egress": [{"cidr": cidr, "ports": ports}]}})
    found = settle(wanted.spec, session_class(CEILING))
    assert isinstance(found, Settlement) is allowed
    assert allowed or (isinstance(found, Refusal) and found.reason == "EgressAboveClass")
