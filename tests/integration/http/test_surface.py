"""What the whole surface has in common.

Plan: every route of the application wants a key, but for a list of exceptions, each named here; every route is on the
page of the API; the page and its parts carry a strict policy and name no other server; security headers everywhere;
metrics on their own port alone; health, info and models; what is there at the start costs no collection of garbage.
"""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from starlette.routing import Route, WebSocketRoute
from tests.support.serving import ROOT, environment
from tests.support.serving import gateway as running_gateway

from carrel_gateway.main import create_app
from carrel_gateway.settings import Settings

WITHOUT_A_KEY = {
    "/",
    "/account",
    "/docs",
    "/openapi.json",
    "/page/{name}",
    "/health",
    "/health/ready",
    "/info",
    "/api/objects/{token}",
    "/api/shared/{token}",
    "/api/shared/{token}/messages",
    "/api/shared/{token}/notebook",
    "/api/shared/{token}/artifacts",
    "/api/shared/{token}/artifacts/{artifact_id}",
    "/api/auth/register",
    "/api/auth/verify",
    "/api/auth/login",
    "/api/auth/refresh",
    "/api/auth/forgot",
    "/api/auth/reset",
    "/api/auth/accept",
    "/api/auth/oidc/login",
    "/api/auth/oidc/callback",
}
APP = create_app(Settings(data_dir=Path("/nonexistent")))
UNKNOWN = "0190aaaa-bbbb-7ccc-8ddd-eeeeeeeeeeee"


def routes():
    found = []
    for route in APP.routes:
        if isinstance(route, Route):
            found += [(method, route.path) for method in sorted(route.methods - {"HEAD"})]
        elif isinstance(route, WebSocketRoute):
            found.append(("WS", route.path))
    return found


ROUTES = routes()


def concrete(path):
    filled = re.sub(r"\{(session_id|artifact_id)\}", UNKNOWN, path)
    return re.sub(r"\{\w+(:path)?\}", "x", filled)


def test_there_are_routes():
    assert len(ROUTES) > 35


@pytest.mark.parametrize(("method", "path"), [route for route in ROUTES if route[0] != "WS"])
def test_every_route_wants_a_key(gateway, method, path):
    with gateway.client(key=None) as client:
        response = client.request(method, concrete(path))
    if path.replace(":path", "") in WITHOUT_A_KEY:
        assert response.status_code != 401
    else:
        assert (response.status_code, response.json()["code"]) == (401, "unauthenticated")


@pytest.mark.parametrize(
    ("method", "path"), [route for route in ROUTES if "/api/" in route[1] or route[1] not in WITHOUT_A_KEY]
)
def test_every_route_is_on_the_page_of_the_api(method, path):
    page = (ROOT / "docs" / "reference" / "http-api.md").read_text("utf-8")
    assert f"| `{method} {path.replace(':path', '')}` |" in page


def test_no_row_about_what_is_not_there():
    page = (ROOT / "docs" / "reference" / "http-api.md").read_text("utf-8")
    rows = set(re.findall(r"^\| `(GET|POST|PUT|PATCH|DELETE|WS) (/\S*)` \|", page, re.MULTILINE))
    assert rows <= {(method, path.replace(":path", "")) for method, path in ROUTES}


@pytest.mark.parametrize(
    "path", ["/", "/account", "/docs", "/page/app.js", "/page/account.js", "/page/carrel.css", "/page/icon.svg"]
)
def test_page(api, path):
    response = api.get(path)
    assert response.status_code == 200
    policy = response.headers["content-security-policy"]
    assert "default-src 'none'; script-src 'self'; style-src 'self'" in policy
    assert "unsafe" not in policy
    namespaces = {"http://www.w3.org/2000/svg"}
    assert set(re.findall(r"https?://[^\s\"'<>)]+", response.text)) <= namespaces


@pytest.mark.parametrize("path", ["/", "/account", "/docs"])
def test_page_has_no_inline_script_or_style(api, path):
    text = api.get(path).text
    assert not re.search(r"<script(?![^>]*\ssrc=)", text)
    assert not re.search(r"<style|\sstyle=|\son\w+=", text)


@pytest.mark.parametrize("path", ["/health", "/api/models", "/api/nothing", "/"])
def test_headers_everywhere(api, path):
    headers = api.get(path).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["x-frame-options"] == "DENY"
    assert "default-src 'none'" in headers["content-security-policy"]
    assert "server" not in headers


def test_request_id(api):
    assert api.get("/health", headers={"X-Request-Id": "mine-1"}).headers["x-request-id"] == "mine-1"
    made = api.get("/health", headers={"X-Request-Id": "a b\tc"}).headers["x-request-id"]
    assert re.fullmatch(r"[0-9a-f]{32}", made)


def test_health_and_info(api):
    assert api.get("/health").json() == {"status": "ok"}
    ready = api.get("/health/ready").json()
    assert ready["status"] == "ok"
    assert set(ready["parts"]) == {"database", "bus", "object_store", "executor", "jobs", "model_provider"}
    assert all(part["status"] == "ok" and part["latency_milliseconds"] >= 0 for part in ready["parts"].values())
    info = api.get("/info").json()
    assert (info["name"], info["executor"], info["isolated"]) == ("carrel", "local", False)
    assert (info["database"], info["storage"], info["bus"]) == ("sqlite", "local", "in_process")


def test_models(api):
    (model,) = api.get("/api/models").json()["items"]
    assert model == {"name": "demo/analyst", "provider": "demo", "default": True, "key_present": True}
    checked = api.get("/api/models/demo/analyst/validate").json()
    assert checked == {"name": "demo/analyst", "valid": True, "code": None, "message": None}


def test_metrics_have_their_own_port(tmp_path):
    port = free_port()
    with running_gateway(tmp_path / "data", CARREL_METRICS_PORT=str(port)) as running, running.client() as api:
        api.get("/api/models")
        api.get("/api/nothing/with/a/secret")
        text = httpx.get(f"http://127.0.0.1:{port}/metrics").text
        assert 'carrel_http_requests_total{method="GET",route="/api/models",status="2xx"} 1.0' in text
        assert 'route="unmatched",status="4xx"' in text
        assert "secret" not in text
        assert api.get("/metrics").status_code == 404


COUNT_OBJECTS = """
import gc, os, signal, sys
from carrel_gateway import serving
from carrel_gateway.settings import Settings

def count(*_):
    print(len(gc.get_objects()), gc.get_freeze_count(), flush=True)
    os.kill(os.getpid(), signal.SIGTERM)

serving._Announcement.say = count
raise SystemExit(serving.serve(Settings(port=0, data_dir=sys.argv[1])))
"""


def test_the_garbage_collector_leaves_alone_what_was_there_at_the_start(tmp_path):
    command = [sys.executable, "-c", COUNT_OBJECTS, str(tmp_path / "data")]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=120)
    assert done.returncode == -signal.SIGTERM, done.stderr
    looked_at, left_alone = map(int, done.stdout.split()[-2:])
    assert left_alone > 100_000
    assert looked_at < left_alone / 50


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


def test_missing_model_key_is_said_at_once(tmp_path):
    with running_gateway(tmp_path / "data", LLM_MODEL="openai/gpt-4o-mini") as running, running.client() as api:
        (model,) = [item for item in api.get("/api/models").json()["items"] if item["default"]]
        assert (model["name"], model["key_present"]) == ("openai/gpt-4o-mini", False)
        checked = api.get("/api/models/openai/gpt-4o-mini/validate").json()
        assert (checked["valid"], checked["code"]) == (False, "model_failed")
        assert "set LLM_API_KEY" in checked["message"]
        session = f"/api/sessions/{api.post('/api/sessions', json={}).json()['id']}"
        refused = api.post(f"{session}/chat", json={"message": "hello"})
        assert (refused.status_code, refused.json()["code"]) == (502, "model_failed")
        assert api.get("/health/ready").json()["status"] == "degraded"
