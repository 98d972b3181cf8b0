"""HTTPS of the gateway itself, where nothing before it speaks it.

Plan: requests, streams and WebSockets over TLS by whoever trusts the certificate; nobody else, and nobody without TLS,
gets an answer; the program of `helm test` passes with this certificate, whatever the name, and with no other one; files
that cannot be used stop the start with what to do.
"""

from __future__ import annotations

import ssl
import subprocess
import sys

import httpx
import pytest
from tests.chart.rendering import MINIMAL, merged, one, render
from tests.support.certificates import certificate
from tests.support.raw import exchange
from tests.support.serving import environment, server_events
from tests.support.serving import gateway as running_gateway
from websockets.sync.client import connect


def test_https_and_nothing_else(tmp_path):
    cert, key = certificate(tmp_path)
    files = {"CARREL_TLS_CERT_FILE": str(cert), "CARREL_TLS_KEY_FILE": str(key)}
    trusting = ssl.create_default_context(cafile=cert)
    with running_gateway(tmp_path / "data", **files) as running, running.client(verify=trusting) as api:
        assert running.url.startswith("https://")
        made = api.post("/api/sessions", json={}).json()["id"]
        assert len(api.get(f"/api/sessions/{made}/export").text.splitlines()) == 1
        with api.stream("GET", f"/api/sessions/{made}/events", headers={"Accept": "text/event-stream"}) as events:
            assert next(server_events(events))["type"] == "session.created"
        ticket = api.post("/api/tickets").json()["ticket"]
        address = f"{running.url.replace('https', 'wss', 1)}/ws/chat/{made}"
        with connect(address, ssl=trusting, subprotocols=["carrel.v1", f"carrel.ticket.{ticket}"]) as ws:
            assert ws.subprotocol == "carrel.v1"
        with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
            httpx.get(f"{running.url}/health")
        plain = exchange(running.url.replace("https", "http", 1), b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b"HTTP/" not in plain
        # Under a name that is not the certificate's, as that of a Service need not be.
        port = running.url.rpartition(":")[2]
        shown = {"GATEWAY": f"https://localhost:{port}", "CARREL_API_KEY": running.key}
        assert helm_test(shown | {"CERTIFICATE": str(cert)}) == ""
        (tmp_path / "other").mkdir()
        other, _ = certificate(tmp_path / "other")
        assert "CERTIFICATE_VERIFY_FAILED" in helm_test(shown | {"CERTIFICATE": str(other)})


def helm_test(surroundings: dict[str, str]) -> str:
    """Run what the pod of `helm test` runs; return what went wrong."""
    values = merged(MINIMAL, {"gateway": {"tls": {"secretName": "x"}}})
    [container] = one(render(values), "Pod", "-test")["spec"]["containers"]
    assert container["command"] == ["python", "-c"]
    command = [sys.executable, "-c", *container["args"]]
    return subprocess.run(command, env=surroundings, capture_output=True, text=True, timeout=60).stderr


@pytest.mark.parametrize("names", [["CERT", "KEY"], ["CERT"]])
def test_files_that_cannot_be_used(tmp_path, names):
    (tmp_path / "empty.pem").write_text("")
    files = {f"CARREL_TLS_{name}_FILE": str(tmp_path / "empty.pem") for name in names}
    done = subprocess.run(
        [sys.executable, "-m", "carrel_cli", "serve", "--port", "0"],
        cwd=tmp_path,
        env=environment(CARREL_DATA_DIR=str(tmp_path / "data"), **files),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode != 0
    assert "CARREL_TLS_KEY_FILE" in done.stderr
    assert "Traceback" not in done.stderr
