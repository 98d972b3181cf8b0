"""Models: defaults, camelCase both ways, unknown fields from newer schemas, wrong documents."""

import pytest
from pydantic import ValidationError

from carrel_api.names import DEFAULT_CLASS_ANNOTATION
from carrel_api.session import AgentSession
from carrel_api.session_class import SessionClass

IMAGES = [{"name": "python", "reference": "example.org/kernel@sha256:" + "0" * 64}]


def test_an_empty_session_has_the_defaults_of_the_schema():
    session = AgentSession.parse({"metadata": {"name": "s"}})
    assert session.spec.operating_mode == "Running"
    assert session.spec.workspace.type == "Ephemeral"
    assert session.spec.shutdown_policy == "Retain"
    assert session.status.restarts == 0


def test_numbers_are_taken_as_quantities():
    session = AgentSession.parse({"metadata": {"name": "s"}, "spec": {"resources": {"cpu": 2, "memory": 536870912}}})
    assert session.spec.resources.cpu == "2"
    assert session.spec.resources.memory == "536870912"


def test_documents_are_in_camel_case_without_empty_fields():
    session = AgentSession.parse({"metadata": {"name": "s"}, "status": {"podUID": "u", "podName": "p", "restarts": 1}})
    assert session.status.dump() == {"conditions": [], "podUID": "u", "podName": "p", "restarts": 1}


def test_fields_of_a_newer_schema_are_left_alone():
    assert AgentSession.parse({"metadata": {"name": "s"}, "spec": {"shape": "round"}}).spec.owner == ""


@pytest.mark.parametrize(
    "spec",
    [
        {"operatingMode": "Paused"},
        {"resources": {"cpu": "many"}},
        {"resources": {"cpu": True}},
        {"env": [{"name": "1ST"}]},
        {"idleTimeoutSeconds": 0},
        {"network": {"egress": [{"cidr": "10.0.0.0/8", "ports": []}]}},
        {"datasets": ["Not_A_Name"]},
    ],
)
def test_documents_outside_the_schema_are_refused(spec: dict[str, object]):
    with pytest.raises(ValidationError):
        AgentSession.parse({"metadata": {"name": "s"}, "spec": spec})


@pytest.mark.parametrize(("value", "expected"), [("true", True), ("false", False), ("", False)])
def test_the_annotation_makes_a_class_the_default(value: str, expected: bool):
    document = {
        "metadata": {"name": "c", "annotations": {DEFAULT_CLASS_ANNOTATION: value}},
        "spec": {"images": IMAGES},
    }
    assert SessionClass.parse(document).is_default is expected


def test_a_class_without_images_is_refused():
    with pytest.raises(ValidationError):
        SessionClass.parse({"metadata": {"name": "c"}, "spec": {"images": []}})
