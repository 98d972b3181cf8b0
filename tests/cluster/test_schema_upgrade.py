"""An upgrade of the schemas on a real API server: what was stored under an older one stays and can be changed.

Plan: the definitions are the cluster's and shared, so copies of them under a group of their own are upgraded. Objects
are stored under a schema that landed; then today's takes its place. Each object reads the same, its status and its spec
can be written, and what today's schema adds can be used.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Generator
from pathlib import Path
from typing import Any, cast

import pytest
import yaml
from tests.cluster.operator.sessions import eventually
from tests.cluster.operator.test_crd_rules import GOOD_CLASSES, GOOD_SESSIONS
from tests.cluster.provider.base import Cluster

ROOT = Path(__file__).resolve().parents[2]
LANDED = sorted(path for path in (ROOT / "tests" / "data" / "crds").iterdir() if path.is_dir())
STATUS = {
    "conditions": [
        {"type": "Ready", "status": "True", "reason": "Bound", "lastTransitionTime": "2026-11-21T12:00:00Z"},
    ],
    "className": "standard",
    "podUID": "one",
    "endpoint": "10.0.0.1:8888",
    "restarts": 2,
    "lastTermination": {"reason": "OOMKilled", "exitCode": 137, "time": "2026-11-21T11:00:00Z"},
}


class Copies:
    """Definitions and objects under a group that nobody else uses."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self.cluster, self.namespace = cluster, namespace
        self.group = f"upgrade-{secrets.token_hex(4)}.carrel.dev"
        self.names: set[str] = set()

    def define(self, folder: Path) -> None:
        """Bring the definitions of a folder, as an upgrade of the chart does."""
        for file in sorted(folder.glob("*.yaml")):
            crd = yaml.safe_load(file.read_text())
            crd["spec"]["group"] = self.group
            crd["metadata"]["name"] = f"{crd['spec']['names']['plural']}.{self.group}"
            self.cluster.apply(crd)
            self.names.add(crd["metadata"]["name"])
        self.cluster.kubectl(
            "wait", "--for=condition=Established", "--timeout=60s", *(f"crd/{name}" for name in sorted(self.names))
        )

    def create(self, kind: str, name: str, spec: dict[str, Any]) -> None:
        """Store an object."""
        where = {"namespace": self.namespace} if kind == "AgentSession" else {}
        document = {
            "apiVersion": f"{self.group}/v1alpha1",
            "kind": kind,
            "metadata": {"name": name, **where},
            "spec": spec,
        }
        self.cluster.kubectl("create", "--filename=-", stdin=json.dumps(document))

    def patch(self, kind: str, name: str, change: dict[str, Any], *more: str) -> str:
        """Change an object, and return what kubectl prints."""
        patch = f"--patch={json.dumps(change)}"
        return self.cluster.kubectl("patch", self._plural(kind), name, *self._where(kind), "--type=merge", patch, *more)

    def get(self, kind: str) -> dict[str, dict[str, Any]]:
        """Return all objects of a kind, by name."""
        items = self.cluster.get(self._plural(kind), *self._where(kind))["items"]
        return {item["metadata"]["name"]: item for item in items}

    def _plural(self, kind: str) -> str:
        return f"{'agentsessions' if kind == 'AgentSession' else 'sessionclasses'}.{self.group}"

    def _where(self, kind: str) -> tuple[str, ...]:
        return (f"--namespace={self.namespace}",) if kind == "AgentSession" else ()


@pytest.fixture
def copies(cluster: Cluster, namespace: str) -> Generator[Copies]:
    made = Copies(cluster, namespace)
    yield made
    cluster.kubectl("delete", "crd", *made.names, "--ignore-not-found", "--wait=false")


def missing(before: Any, after: Any, path: str = "") -> list[str]:
    """Return where something of the first is not in the second as it was."""
    if isinstance(before, dict) and isinstance(after, dict):
        old, new = cast("dict[str, Any]", before), cast("dict[str, Any]", after)
        return [fault for key, value in old.items() for fault in missing(value, new.get(key), f"{path}.{key}")]
    return [] if before == after else [f"{path}: {before} became {after}"]


@pytest.mark.parametrize("landed", LANDED, ids=lambda folder: folder.name)
def test_what_is_stored_outlives_an_upgrade(copies: Copies, landed: Path) -> None:
    copies.define(landed)
    for number, spec in enumerate(GOOD_SESSIONS):
        copies.create("AgentSession", f"desk-{number}", spec or {})
        copies.patch("AgentSession", f"desk-{number}", {"status": STATUS}, "--subresource=status")
    for number, spec in enumerate(GOOD_CLASSES):
        copies.create("SessionClass", f"class-{number}", spec)
    before = {kind: copies.get(kind) for kind in ("AgentSession", "SessionClass")}
    assert all(item["status"]["restarts"] == 2 for item in before["AgentSession"].values())

    copies.define(ROOT / "crds")
    saved = {"spec": {"snapshot": {"podUID": "one", "ref": "kept"}}}
    eventually("today's schema is served", lambda: is_taken(copies, saved), 60)
    after = {kind: copies.get(kind) for kind in before}
    assert missing(before, after) == []
    for kind, items in before.items():
        for name in items:
            copies.patch(kind, name, {"metadata": {"annotations": {"upgraded": "yes"}}})
    for name in before["AgentSession"]:
        copies.patch("AgentSession", name, {"status": {"restarts": 3, "pool": "small"}}, "--subresource=status")
        copies.patch("AgentSession", name, {"spec": {"operatingMode": "Suspended", **saved["spec"]}})
    for name, session in copies.get("AgentSession").items():
        assert (session["status"]["restarts"], session["status"]["pool"]) == (3, "small")
        assert missing({**before["AgentSession"][name]["spec"], "operatingMode": "Suspended"}, session["spec"]) == []
    for name in before["SessionClass"]:
        copies.patch("SessionClass", name, {"spec": {"isolation": "Required", "caBundle": "corporate-ca"}})


def is_taken(copies: Copies, change: dict[str, Any]) -> bool:
    """Return whether fields that today's schema adds are known: an older one drops them."""
    tried = json.loads(copies.patch("AgentSession", "desk-0", change, "--dry-run=server", "--output=json"))
    return missing(change["spec"], tried["spec"]) == []
