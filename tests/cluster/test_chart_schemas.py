"""The rendered chart against the schemas of the cluster's own API server, with kubeconform in strict mode.

Plan: schemas are made from the server's OpenAPI document, so no network is needed and they are those of the version
under test. Every object of the chart is valid; misspelt and mistyped fields are found, else it would prove nothing.
Custom resources are skipped here: the API server judges them when the chart is installed.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.chart.rendering import merged, of_kind, render
from tests.cluster.provider.base import Cluster
from tools.go_tools import ensure

CUSTOM = ("CustomResourceDefinition", "SessionClass", "SessionPool")
EVERYTHING: dict[str, Any] = {
    "gateway": {
        "secrets": {"databaseUrl": "postgresql://app@db/carrel", "redisUrl": "redis://bus"},
        "ingress": {"enabled": True, "host": "carrel.test", "className": "nginx", "tlsSecret": "tls"},
        "service": {"type": "NodePort", "nodePort": 30800},
        "tolerations": [{"key": "a", "operator": "Exists"}],
        "nodeSelector": {"a": "b"},
    },
    "images": {"pullSecrets": ["registry"]},
    "sessions": {"pools": [{"name": "small", "replicas": 2}]},
    "networkPolicy": {"metricsFrom": [{"podSelector": {}}], "gatewayEgress": [{"ports": [{"port": 5432}]}]},
}


def prepared(node: dict[str, Any]) -> dict[str, Any]:
    """Return one object of the document as kubeconform needs it: strict, and with either form of a port."""
    if node.get("format") == "int-or-string":
        return {"type": ["integer", "string"]}
    return {"additionalProperties": False, **node} if "properties" in node else node


@pytest.fixture(scope="module")
def schemas(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("schemas")
    document = json.loads(cluster.kubectl("get", "--raw", "/openapi/v2"), object_hook=prepared)
    definitions: dict[str, Any] = document["definitions"]
    definitions["io.k8s.apimachinery.pkg.api.resource.Quantity"] = {"type": ["string", "number"]}
    for name, schema in definitions.items():
        for kind in schema.get("x-kubernetes-group-version-kind", []):
            group = kind["group"].split(".")[0]
            version = "-".join(part for part in (group, kind["version"]) if part)
            whole = {"$ref": f"#/definitions/{name}", "definitions": definitions}
            if kind["group"] in {
                "",
                "apps",
                "policy",
                "networking.k8s.io",
                "rbac.authorization.k8s.io",
                "admissionregistration.k8s.io",
            }:
                (folder / f"{kind['kind'].lower()}-{version}.json").write_text(json.dumps(whole))
    return folder


def kubeconform(schemas: Path, objects: list[dict[str, Any]]) -> dict[str, Any]:
    location = f"{schemas}/{{{{.ResourceKind}}}}{{{{.KindSuffix}}}}.json"
    command = [str(ensure("kubeconform")), "-strict", "-summary", "-output=json", f"-schema-location={location}"]
    done = subprocess.run(
        [*command, f"-skip={','.join(CUSTOM)}"], input=yaml.safe_dump_all(objects), capture_output=True, text=True
    )
    return json.loads(done.stdout)


@pytest.mark.parametrize("values", [None, EVERYTHING], ids=["minimal", "everything"])
def test_every_object_is_valid(schemas: Path, values: dict[str, Any] | None) -> None:
    objects = render(values)
    found = kubeconform(schemas, objects)
    assert found.get("resources", []) == []
    assert found["summary"]["valid"] == len(objects) - found["summary"]["skipped"] > 15
    assert found["summary"]["skipped"] == len(of_kind(objects, *CUSTOM)) > 3


@pytest.mark.parametrize("change", [{"replica": 2}, {"replicas": "two"}, {"paused": 1}])
def test_wrong_fields_are_found(schemas: Path, change: dict[str, Any]) -> None:
    deployment = next(found for found in render() if found["kind"] == "Deployment")
    found = kubeconform(schemas, [merged(deployment, {"spec": change})])
    assert found["summary"]["invalid"] == 1, found
