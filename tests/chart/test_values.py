"""The values of the chart.

Plan: `helm lint` passes; every default value is in the schema and in the documentation; what is wrong is refused before
anything reaches a cluster, with a message that names the value.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from typing import Any, cast

import pytest
import yaml
from tests.chart.rendering import CHART, MINIMAL, ROOT, RenderingError, merged, render
from tools.go_tools import ensure

VALUES: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text())
SCHEMA: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text())


def leaves(value: dict[str, Any], path: str = "") -> Iterator[str]:
    for key, inner in value.items():
        if isinstance(inner, dict) and inner:
            yield from leaves(cast("dict[str, Any]", inner), f"{path}{key}.")
        else:
            yield f"{path}{key}"


def test_lint_finds_nothing() -> None:
    done = subprocess.run([str(ensure("helm")), "lint", "--strict", str(CHART)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_value_is_in_the_schema() -> None:
    for leaf in leaves(VALUES):
        node = SCHEMA
        for part in leaf.split("."):
            if "properties" not in node:  # free below here: labels, resources
                break
            assert part in node["properties"], leaf
            node = node["properties"][part]


def test_every_value_is_documented() -> None:
    page = (ROOT / "docs" / "how-to" / "helm.md").read_text()
    missing = [leaf for leaf in leaves(VALUES) if f"`{leaf}`" not in page]
    assert missing == []


def test_every_documented_value_exists() -> None:
    page = (ROOT / "docs" / "how-to" / "helm.md").read_text()
    rows = [line.split("`")[1] for line in page.splitlines() if line.startswith("| `")]
    assert sorted(set(rows) - set(leaves(VALUES))) == []


def wrong(path: str, value: Any) -> dict[str, Any]:
    """The minimal values with one of them wrong."""
    nested: Any = value
    for part in reversed(path.split(".")):
        nested = {part: nested}
    return merged(MINIMAL, nested)


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        ("gatway", {}, "gatway"),
        ("gateway.replica", 3, "replica"),
        ("gateway.replicas", 0, "replicas"),
        ("gateway.replicas", "two", "replicas"),
        ("gateway.secrets.databaseUrl", "mysql://x", "databaseUrl"),
        ("gateway.secrets.redisUrl", "bus:6379", "redisUrl"),
        ("gateway.secrets.apiKey", "short", "apiKey"),
        ("gateway.secrets.secretKeys", "k1:c2hvcnQ=", "secretKeys"),
        ("gateway.settings", {"CARREL_PORT": 1}, "CARREL_PORT"),
        ("gateway.settings", {"models": ["a"]}, "models"),
        ("gateway.service.type", "Headless", "type"),
        ("gateway.service.port", 70000, "port"),
        ("gateway.tls.secretName", "Not_A_Name", "secretName"),
        ("gateway.signing.keyId", "a b", "keyId"),
        ("sessions.namespace.name", "Carrel_Sessions", "name"),
        ("sessions.namespace.name", "", "name"),
        ("sessions.pools", [{"replicas": 2}], "name"),
        ("sessions.pools", [{"name": "a" * 53}], "name"),
        ("sessions.pools", [{"name": "a", "replicas": -1}], "replicas"),
        ("sessions.pools", [{"name": "a", "workspace": {"size": "1Gi"}}], "workspace"),
        ("images.gateway.digest", "sha256:abc", "digest"),
        ("images.gateway.repository", "", "repository"),
        ("images.pullPolicy", "Sometimes", "pullPolicy"),
        ("networkPolicy.gatewayFrom", {"podSelector": {}}, "gatewayFrom"),
        ("networkPolicy.apiServerPorts", ["https"], "apiServerPorts"),
        ("networkPolicy.apiServerPorts", [], "apiServerPorts"),
        ("operator.disruptionBudget.enabled", "yes", "enabled"),
    ],
)
def test_a_wrong_value_is_refused_by_name(path: str, value: Any, told: str) -> None:
    with pytest.raises(RenderingError, match=told):
        render(wrong(path, value))


def test_a_database_is_demanded() -> None:
    with pytest.raises(RenderingError, match=r"gateway\.secrets\.databaseUrl must be set"):
        render({"gateway": {"secrets": {"redisUrl": "redis://bus"}}})


def test_more_than_one_gateway_demands_redis() -> None:
    with pytest.raises(RenderingError, match=r"gateway\.secrets\.redisUrl must be set with more than one replica"):
        render({"gateway": {"secrets": {"databaseUrl": "postgresql://app@db/carrel"}}})


def test_an_ingress_demands_a_host() -> None:
    with pytest.raises(RenderingError, match=r"gateway\.ingress\.host must be set"):
        render(merged(MINIMAL, {"gateway": {"ingress": {"enabled": True}}}))
