"""What the chart lets gateway and operator do in a cluster.

Plan: all rights together equal a golden file, so that a new one is seen in review; beside it, what may never be granted
is looked for by rule, so that a thoughtless update of the golden file does not pass either.
"""

from __future__ import annotations

from typing import Any

import yaml
from tests.chart.rendering import ROOT, of_kind, render
from tests.cluster.operator.conftest import RULES

GOLDEN = ROOT / "tests" / "chart" / "data" / "rbac.yaml"
KINDS = ("Role", "ClusterRole", "RoleBinding", "ClusterRoleBinding")


def rights() -> list[dict[str, Any]]:
    """Roles and bindings without their labels."""
    return [
        {
            "kind": found["kind"],
            "name": found["metadata"]["name"],
            "namespace": found["metadata"].get("namespace"),
            **{key: found[key] for key in ("rules", "roleRef", "subjects") if key in found},
        }
        for found in of_kind(render(), *KINDS)
    ]


def test_the_rights_are_those_of_the_golden_file() -> None:
    assert rights() == yaml.safe_load(GOLDEN.read_text())


def test_nothing_is_granted_that_would_be_a_way_to_more() -> None:
    forbidden_verbs = {"*", "escalate", "bind", "impersonate", "deletecollection"}
    forbidden_resources = {"*", "secrets", "pods/exec", "pods/attach", "pods/portforward", "pods/ephemeralcontainers",
                           "nodes", "nodes/proxy", "serviceaccounts/token", "roles", "clusterroles"}  # fmt: skip
    rules = [rule for right in rights() for rule in right.get("rules", [])]
    assert rules
    for rule in rules:
        assert not forbidden_verbs & set(rule["verbs"]), rule
        assert not forbidden_resources & set(rule["resources"]), rule
        assert "*" not in rule["apiGroups"], rule


def test_only_classes_are_cluster_wide_and_only_to_read() -> None:
    rules = [rule for right in rights() if right["kind"] == "ClusterRole" for rule in right["rules"]]
    assert rules == [{"apiGroups": ["carrel.dev"], "resources": ["sessionclasses"], "verbs": ["get", "list", "watch"]}]


def test_the_gateway_has_no_rights_in_its_own_namespace() -> None:
    for right in rights():
        subjects = {subject["name"] for subject in right.get("subjects", [])}
        if any(name.endswith("-gateway") for name in subjects):
            assert right["namespace"] == "carrel-sessions"


def test_the_gateway_says_what_is_wanted_and_the_operator_what_is() -> None:
    granted = {
        (right["name"].rpartition("-")[2], resource): set(rule["verbs"])
        for right in rights()
        for rule in right.get("rules", [])
        for resource in rule["resources"]
    }
    assert granted["gateway", "agentsessions"] >= {"create", "patch"}
    assert ("gateway", "agentsessions/status") not in granted
    assert granted["operator", "agentsessions/status"] == granted["operator", "sessionpools/status"] == {"patch"}
    for resource in ("agentsessions", "sessionpools"):
        assert not granted["operator", resource] & {"create", "update", "patch"}, resource


def test_the_operator_is_tried_on_the_cluster_with_the_charts_rights() -> None:
    def granted(rules: list[dict[str, Any]]) -> set[tuple[str, str, str]]:
        return {
            (group, resource, verb)
            for rule in rules
            for group in rule["apiGroups"]
            for resource in rule["resources"]
            for verb in rule["verbs"]
        }

    in_chart: dict[str, set[tuple[str, str, str]]] = {"sessions": set(), "lease": set(), "classes": set()}
    for right in rights():
        if right["name"].endswith(("-operator", "-operator-lease")) and "rules" in right:
            where = (
                "classes"
                if right["kind"] == "ClusterRole"
                else "lease"
                if right["name"].endswith("lease")
                else "sessions"
            )
            in_chart[where] |= granted(right["rules"])
    # asked for on OpenShift alone
    in_chart["sessions"] -= {
        ("carrel.dev", f"{name}/finalizers", "update") for name in ("agentsessions", "sessionpools")
    }
    assert in_chart == {where: granted(rules) for where, rules in RULES.items()}
