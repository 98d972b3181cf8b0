"""Stored agents over HTTP: every route, sessions that begin with one, and what is asked wrongly."""

from __future__ import annotations

import pytest

UNKNOWN = "0190aaaa-bbbb-7ccc-8ddd-eeeeeeeeeeee"
CONFIG = {"system_prompt": "Answer in one sentence.", "max_steps": 4}


def test_a_session_begins_with_what_the_agent_is_now(api):
    made = api.post("/api/agents", json={"name": "Brief", "config": CONFIG})
    assert made.status_code == 201, made.text
    agent = made.json()
    assert (agent["model"], agent["version"], agent["shares"]) == ("demo/analyst", 1, [])
    path = f"/api/agents/{agent['id']}"
    first = api.post("/api/sessions", json={"agent_id": agent["id"], "config": {"max_steps": 3}}).json()
    changed = api.put(path, json={"config": {"max_retries": 1}, "version": 1}).json()
    assert (changed["version"], changed["config"]["system_prompt"]) == (2, None)
    second = api.post("/api/sessions", json={"agent_id": agent["id"]}).json()
    configs = [api.get(f"/api/sessions/{session['id']}/config").json() for session in (first, second)]
    assert [(item["system_prompt"], item["max_steps"], item["max_retries"]) for item in configs] == [
        (CONFIG["system_prompt"], 3, 3),
        (None, 20, 1),
    ]
    began = [
        api.get(f"/api/sessions/{session['id']}/events").json()["items"][0]["payload"] for session in (first, second)
    ]
    assert [(item["agent_id"], item["agent_version"]) for item in began] == [(agent["id"], 1), (agent["id"], 2)]
    assert api.put(path, json={"name": "x", "version": 1}).json()["code"] == "agent_changed"
    team = api.post("/api/teams", json={"name": "Agents"}).json()["id"]
    shared = api.put(f"{path}/teams/{team}", json={"access": "write"}).json()
    assert [(item["team_name"], item["access"]) for item in shared["shares"]] == [("Agents", "write")]
    assert api.get(path).json() == shared
    assert api.get("/api/agents").json()["items"] == [shared]
    assert api.delete(f"{path}/teams/{team}").status_code == 204
    assert api.delete(f"{path}/teams/{team}").json()["code"] == "share_not_found"
    assert api.delete(path).status_code == 204
    gone = api.post("/api/sessions", json={"agent_id": agent["id"]})
    assert (gone.status_code, gone.json()["code"]) == (404, "agent_not_found")
    assert api.get(f"/api/sessions/{first['id']}/config").json() == configs[0]


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("POST", "/api/agents", {"name": "x", "model": "gpt-9"}, 400, "invalid_input"),
        ("POST", "/api/agents", {"name": "x", "config": {"api_base": "http://127.0.0.1/"}}, 422, "validation_failed"),
        ("POST", "/api/agents", {"name": "x", "config": {"system_prompt": "x" * 20_001}}, 422, "validation_failed"),
        ("POST", "/api/agents", {"name": "x", "description": "a\0b"}, 422, "validation_failed"),
        ("PUT", f"/api/agents/{UNKNOWN}", {"model": "gpt-9"}, 400, "invalid_input"),
        ("PUT", f"/api/agents/{UNKNOWN}", {"name": "x"}, 404, "agent_not_found"),
        ("PUT", f"/api/agents/{UNKNOWN}/teams/{UNKNOWN}", {"access": "own"}, 422, "validation_failed"),
        ("DELETE", f"/api/agents/{UNKNOWN}", None, 404, "agent_not_found"),
    ],
)
def test_refusals(api, method, path, body, status, code):
    response = api.request(method, path, json=body)
    assert (response.status_code, response.json()["code"]) == (status, code)
