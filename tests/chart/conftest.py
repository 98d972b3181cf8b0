"""An API server that holds what an earlier installation left, for templates that look objects up."""

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
from tests.chart.rendering import CHART, MINIMAL, NAMESPACE, RELEASE, merged
from tools.go_tools import ensure

GROUP = {"groupVersion": "carrel.dev/v1alpha1", "version": "v1alpha1"}
CLASSES = {"name": "sessionclasses", "singularName": "", "namespaced": False, "kind": "SessionClass", "verbs": ["get"]}
POOLS = {
    "name": "sessionpools",
    "singularName": "",
    "namespaced": True,
    "kind": "SessionPool",
    "verbs": ["get", "list"],
}
SECRETS = {"name": "secrets", "singularName": "", "namespaced": True, "kind": "Secret", "verbs": ["get"]}
Documents = dict[str, dict[str, Any]]
Upgrade = Callable[[dict[str, Any]], list[dict[str, Any]]]


@pytest.fixture
def documents() -> Documents:
    """What the API server answers, by path: discovery, and objects that a test puts there."""
    groups = [{"name": "carrel.dev", "versions": [GROUP], "preferredVersion": GROUP}]
    return {
        "/api": {"kind": "APIVersions", "versions": ["v1"]},
        "/apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups},
        "/api/v1": {"kind": "APIResourceList", "groupVersion": "v1", "resources": [SECRETS]},
        "/apis/carrel.dev/v1alpha1": {"kind": "APIResourceList", **GROUP, "resources": [CLASSES, POOLS]},
    }


@pytest.fixture
def upgrade(documents: Documents, tmp_path: Path) -> Generator[Upgrade]:
    """Render the chart with values of `sessions`, as an upgrade on that server would."""

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

    def rendered(sessions: dict[str, Any]) -> list[dict[str, Any]]:
        values = merged(MINIMAL, {"sessions": sessions})
        command = [str(ensure("helm")), "template", RELEASE, str(CHART), f"--namespace={NAMESPACE}", "--values=-"]
        command += ["--is-upgrade", "--dry-run=server", f"--kubeconfig={kubeconfig}", "--kube-version=1.35.0"]
        command += [f"--api-versions=carrel.dev/v1alpha1/{kind}" for kind in ("SessionClass", "SessionPool")]
        done = subprocess.run(command, input=json.dumps(values), capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return [found for found in yaml.safe_load_all(done.stdout) if found]

    yield rendered
    server.shutdown()
    server.server_close()
