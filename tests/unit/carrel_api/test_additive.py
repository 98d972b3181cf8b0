"""Today's CustomResourceDefinitions are additive over those that are installed somewhere already.

Plan: each state that landed lies in tests/data/crds; against each of them nothing is removed, retyped, narrowed, newly
required or newly refused, but for exceptions that are named here with their reason. The comparison itself finds each
kind of change. What the API server makes of it is in tests/cluster/test_schema_upgrade.py.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.support.schema_changes import faults

from carrel_api.crds import definitions

LANDED = Path(__file__).parents[2] / "data" / "crds"
FILES = sorted(LANDED.glob("*/*.yaml"))
EXCEPTIONS: dict[tuple[str, str], str] = {}
"""By file and fault: why stored objects are not harmed."""


@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parent.name}/{file.stem}")
def test_stored_objects_stay_valid_and_read_the_same(file: Path) -> None:
    old, new = yaml.safe_load(file.read_text()), definitions()[file.name]
    assert [fault for fault in faults(old, new) if (file.name, fault) not in EXCEPTIONS] == []


def test_every_exception_is_one() -> None:
    found = {(file.name, fault) for file in FILES for fault in faults(yaml.safe_load(file.read_text()),
                                                                      definitions()[file.name])}  # fmt: skip
    assert set(EXCEPTIONS) <= found


def test_there_is_something_to_compare_with() -> None:
    assert {file.stem for file in FILES} >= {"agentsessions", "sessionclasses"}


OLD: dict[str, Any] = {
    "spec": {
        "group": "carrel.dev",
        "scope": "Namespaced",
        "names": {"kind": "Thing"},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "subresources": {"status": {}},
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "required": ["a"],
                        "properties": {
                            "a": {"type": "string", "maxLength": 9, "minLength": 1, "enum": ["x", "y"], "default": "x"},
                            "b": {"type": "integer", "format": "int64", "maximum": 9},
                            "c": {
                                "type": "array",
                                "items": {"type": "object", "properties": {"d": {"type": "string"}}},
                            },
                            "e": {"type": "object", "additionalProperties": {"type": "string"}, "maxProperties": 3},
                        },
                        "x-kubernetes-validations": [{"rule": "true", "message": "it must be"}],
                    }
                },
            }
        ],
    }
}
Change = Callable[[dict[str, Any]], Any]


def root(crd: dict[str, Any]) -> dict[str, Any]:
    return crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]


def field(crd: dict[str, Any], name: str) -> dict[str, Any]:
    return root(crd)["properties"][name]


HARMFUL: list[tuple[Change, str]] = [
    (lambda crd: root(crd)["properties"].pop("b"), ".b: removed"),
    (lambda crd: field(crd, "c")["items"]["properties"].pop("d"), ".c[].d: removed"),
    (lambda crd: field(crd, "b").update(type="string"), ".b: type changed"),
    (lambda crd: field(crd, "b").update(format="int32"), ".b: format changed"),
    (lambda crd: field(crd, "a").update(pattern="^x"), ".a: pattern changed"),
    (lambda crd: field(crd, "a").update(enum=["x"]), ".a: enum narrowed"),
    (lambda crd: field(crd, "b").update(enum=[1]), ".b: enum narrowed"),
    (lambda crd: field(crd, "a").update(maxLength=8), ".a: maxLength tightened"),
    (lambda crd: field(crd, "a").update(minLength=2), ".a: minLength tightened"),
    (lambda crd: field(crd, "b").update(maximum=8), ".b: maximum tightened"),
    (lambda crd: field(crd, "b").update(minimum=0), ".b: minimum tightened"),
    (lambda crd: field(crd, "c").update(maxItems=3), ".c: maxItems tightened"),
    (lambda crd: field(crd, "e").update(maxProperties=2), ".e: maxProperties tightened"),
    (lambda crd: field(crd, "e").pop("additionalProperties"), ".e: additionalProperties changed"),
    (lambda crd: field(crd, "c").update({"x-kubernetes-list-type": "set"}), ".c: x-kubernetes-list-type changed"),
    (lambda crd: field(crd, "a").update(default="y"), ".a: default changed"),
    (lambda crd: field(crd, "b").update(default=1), ".b: default changed"),
    (lambda crd: root(crd)["required"].append("b"), ": b required"),
    (
        lambda crd: root(crd)["x-kubernetes-validations"].append({"rule": "false", "message": "it must be so"}),
        ": rule added: it must be so",
    ),
    (lambda crd: crd["spec"].update(scope="Cluster"), "scope: changed"),
    (lambda crd: crd["spec"]["versions"][0].update(name="v2"), "v1: no longer served"),
    (lambda crd: crd["spec"]["versions"][0].update(served=False), "v1: no longer served"),
    (lambda crd: crd["spec"]["versions"][0].update(storage=False), "v1: storage version changed"),
    (lambda crd: crd["spec"]["versions"][0]["subresources"].clear(), "v1: subresource status removed"),
]
HARMLESS: list[Change] = [
    lambda crd: root(crd)["properties"].update(new={"type": "string", "maxLength": 3, "default": "z"}),
    lambda crd: field(crd, "a").update(enum=["x", "y", "z"], maxLength=99, minLength=0),
    lambda crd: field(crd, "b").pop("maximum"),
    lambda crd: root(crd)["required"].clear(),
    lambda crd: root(crd)["x-kubernetes-validations"].clear(),
    lambda crd: field(crd, "a").update(description="another"),
    lambda crd: crd["spec"]["versions"].append({"name": "v2", "served": True, "storage": False}),
]


@pytest.mark.parametrize(("change", "fault"), HARMFUL, ids=[fault for _, fault in HARMFUL])
def test_what_would_harm_stored_objects_is_found(change: Change, fault: str) -> None:
    new = copy.deepcopy(OLD)
    change(new)
    assert faults(OLD, new) == [fault]


@pytest.mark.parametrize("change", HARMLESS)
def test_what_harms_nothing_is_let_pass(change: Change) -> None:
    new = copy.deepcopy(OLD)
    change(new)
    assert new != OLD
    assert faults(OLD, new) == []
