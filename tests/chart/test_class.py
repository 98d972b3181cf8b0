"""When an upgrade makes the default SessionClass anew.

Plan: Helm renders the chart against an API server that holds the class of the last time, with what the server filled
in. The same values leave it alone; a changed value, one that was taken away, and a change by hand make it anew.
"""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Callable, Generator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.chart.rendering import CHART, MINIMAL, NAMESPACE, RELEASE, merged, of_kind, one
from tools.go_tools import ensure

GROUP = {"groupVersion": "carrel.dev/v1alpha1", "version": "v1alpha1"}
CLASSES = {"name": "sessionclasses", "singularName": "", "namespaced": False, "kind": "SessionClass", "verbs": ["get"]}
SECRETS = {"name": "secrets", "singularName": "", "namespaced": True, "kind": "Secret", "verbs": ["get"]}
CLASS = "/apis/carrel.dev/v1alpha1/sessionclasses/default"
Render = Callable[[dict[str, Any]], list[dict[str, Any]]]


@pytest.fixture
def documents() -> dict[str, dict[str, Any]]:
    """What the API server answers, by path: discovery, and objects that a test puts there."""
    groups = [{"name": "carrel.dev", "versions": [GROUP], "preferredVersion": GROUP}]
    return {
        "/api": {"kind": "APIVersions", "versions": ["v1"]},
        "/apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups},
        "/api/v1": {"kind": "APIResourceList", "groupVersion": "v1", "resources": [SECRETS]},
        "/apis/carrel.dev/v1alpha1": {"kind": "APIResourceList", **GROUP, "resources": [CLASSES]},
    }


@pytest.fixture
def upgrade(documents: dict[str, dict[str, Any]], tmp_path: Path) -> Generator[Render]:
    """Render the chart with a spec of the default class, as an upgrade on that server would."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = documents.get(self.path.partition("?")[0])
            missing = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404}
            body = json.dumps(found or missing).encode()
            self.send_response(200 if found else 404)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    kubeconfig = tmp_path / "kubeconfig"
    address = f"http://127.0.0.1:{server.server_port}"
    context = {"name": "test", "context": {"cluster": "test", "user": "test"}}
    clusters = [{"name": "test", "cluster": {"server": address}}]
    document = {"apiVersion": "v1", "kind": "Config", "clusters": clusters, "contexts": [context]}
    kubeconfig.write_text(json.dumps({**document, "current-context": "test"}))

    def rendered(spec: dict[str, Any]) -> list[dict[str, Any]]:
        values = merged(MINIMAL, {"sessions": {"defaultClass": {"spec": spec}}})
        command = [str(ensure("helm")), "template", RELEASE, str(CHART), f"--namespace={NAMESPACE}", "--values=-"]
        command += ["--is-upgrade", "--dry-run=server", f"--kubeconfig={kubeconfig}", "--kube-version=1.35.0"]
        command += ["--api-versions=carrel.dev/v1alpha1/SessionClass"]
        done = subprocess.run(command, input=json.dumps(values), capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return [found for found in yaml.safe_load_all(done.stdout) if found]

    yield rendered
    server.shutdown()
    server.server_close()


WEB = {"egress": [{"cidr": "192.0.2.0/24"}], "maximumResources": {"cpu": "4"}}


@pytest.fixture
def held(documents: dict[str, dict[str, Any]], upgrade: Render) -> dict[str, Any]:
    """The class as the last upgrade left it, with a default that the server filled in."""
    made = one(upgrade(WEB), "SessionClass", "default")
    documents[CLASS] = merged(made, {"spec": {"gpuResourceName": "nvidia.com/gpu"}})
    return documents[CLASS]


@pytest.mark.usefixtures("held")
def test_the_same_values_leave_the_class_alone(upgrade: Render) -> None:
    assert of_kind(upgrade(WEB), "SessionClass") == []


@pytest.mark.usefixtures("held")
@pytest.mark.parametrize("without", ["egress", "maximumResources"])
def test_what_was_taken_away_is_taken_from_the_class(upgrade: Render, without: str) -> None:
    left = {key: value for key, value in WEB.items() if key != without}
    assert without not in one(upgrade(left), "SessionClass", "default")["spec"]


@pytest.mark.usefixtures("held")
def test_a_changed_value_changes_the_class(upgrade: Render) -> None:
    changed = one(upgrade(merged(WEB, {"maximumResources": {"cpu": "5"}})), "SessionClass", "default")
    assert changed["spec"]["maximumResources"] == {"cpu": "5"}


def test_a_change_by_hand_is_put_back(upgrade: Render, held: dict[str, Any]) -> None:
    held["spec"]["maximumResources"]["cpu"] = "64"
    assert one(upgrade(WEB), "SessionClass", "default")["spec"]["maximumResources"] == {"cpu": "4"}
