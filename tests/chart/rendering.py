"""Rendering the chart with the pinned Helm, as `helm install` would, without a cluster."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any, cast

import yaml
from tools.go_tools import ensure

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts" / "carrel"
RELEASE = "release-name"
NAMESPACE = "carrel"
MINIMAL: dict[str, Any] = {
    "gateway": {"secrets": {"databaseUrl": "postgresql://app@db/carrel", "redisUrl": "redis://bus"}}
}
"""The least that an installation has to say."""


class RenderingError(Exception):
    """Helm refused; the message is its own."""


def render(
    values: dict[str, Any] | None = None, release: str = RELEASE, namespace: str = NAMESPACE
) -> list[dict[str, Any]]:
    """Return the objects of the chart; `values` replaces the minimal ones."""
    command = [str(ensure("helm")), "template", release, str(CHART), f"--namespace={namespace}", "--values=-"]
    command.append("--kube-version=1.35.0")
    given = json.dumps(MINIMAL if values is None else values)
    done = subprocess.run(command, input=given, capture_output=True, text=True)
    if done.returncode:
        raise RenderingError(done.stderr)
    return [document for document in yaml.safe_load_all(done.stdout) if document]


def merged(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """Return the second over the first, as Helm merges values."""
    result = dict(first)
    for key, value in second.items():
        old = result.get(key)
        both = isinstance(old, dict) and isinstance(value, dict)
        result[key] = merged(cast("dict[str, Any]", old), cast("dict[str, Any]", value)) if both else value
    return result


def of_kind(objects: list[dict[str, Any]], *kinds: str) -> list[dict[str, Any]]:
    """Return the objects of some kinds."""
    return [one for one in objects if one["kind"] in kinds]


def one(objects: list[dict[str, Any]], kind: str, name: str) -> dict[str, Any]:
    """Return the one object of a kind whose name ends so."""
    found = [found for found in of_kind(objects, kind) if found["metadata"]["name"].endswith(name)]
    assert len(found) == 1, [found["metadata"]["name"] for found in of_kind(objects, kind)]
    return found[0]


def pod_specs(objects: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return every pod spec of the chart, by the name of what holds it."""
    found: dict[str, dict[str, Any]] = {}
    for document in objects:
        if document["kind"] == "Pod":
            found[document["metadata"]["name"]] = document["spec"]
        elif "template" in document.get("spec", {}):
            found[document["metadata"]["name"]] = document["spec"]["template"]["spec"]
    return found
