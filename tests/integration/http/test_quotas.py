"""Quotas over HTTP: what is refused says whose limit it is and when to come again, and has not been done."""

from __future__ import annotations

import pytest
from tests.support.serving import SALES


@pytest.fixture
def limited(api):
    """Sets limits, and takes them away at the end."""
    put = []

    def limit(**named):
        answer = api.put("/api/quotas", json=named)
        assert answer.status_code == 200, answer.text
        put.append(named)
        return answer.json()["items"]

    yield limit
    for named in put:
        api.put("/api/quotas", json={**named, "limit": None})


def refused(answer):
    problem = answer.json()
    assert (answer.status_code, problem["code"], problem["reason"]) == (429, "quota_reached", "quota")
    assert int(answer.headers["retry-after"]) > 0
    return problem


def test_executions_of_a_day(api, limited):
    session_id = api.post("/api/sessions", json={}).json()["id"]
    run = f"/api/sessions/{session_id}/kernel/execute"
    used = api.post(run, json={"code": "x = 1"})
    assert used.json()["status"] == "ok"
    me = api.get("/api/me").json()["user_id"]
    (quota,) = limited(scope="user", scope_id=me, resource="executions", limit=1)
    assert quota == {"scope": "user", "scope_id": me, "resource": "executions", "limit": 1, "used": 0}
    assert api.post(run, json={"code": "x += 1"}).json()["status"] == "ok"
    problem = refused(api.post(run, json={"code": "x += 1"}))
    assert "you may have 1 executions today" in problem["detail"]
    refused(api.post(run, json={"code": "x += 1"}, headers={"Accept": "application/x-ndjson"}))
    assert api.get("/api/me/quotas").json()["items"] == [{**quota, "used": 1}]
    api.post(f"/api/sessions/{session_id}/files", files={"file": ("sales.csv", SALES)})
    asked = api.post(f"/api/sessions/{session_id}/chat", json={"message": "What were the total units by region?"})
    assert asked.status_code == 200, asked.text
    end = next(
        event["payload"]
        for event in api.get(f"/api/sessions/{session_id}/events").json()["items"]
        if event["type"] == "run.finished"
    )
    assert (end["status"], end["code"]) == ("failed", "quota_reached")
    api.put("/api/quotas", json={"scope": "user", "scope_id": me, "resource": "executions", "limit": 9})
    shown = api.post(run, json={"code": "x"}).json()
    assert shown["outputs"][0]["data"]["text/plain"] == "2"


def test_sessions(api, limited):
    there = len(api.get("/api/sessions", params={"status": "active", "limit": 200}).json()["items"])
    limited(scope="tenant", resource="sessions", limit=there + 1)
    session_id = api.post("/api/sessions", json={}).json()["id"]
    assert "the tenant may have" in refused(api.post("/api/sessions", json={}))["detail"]
    refused(api.post(f"/api/sessions/{session_id}/fork", json={}))
    api.post(f"/api/sessions/{session_id}/archive")
    assert api.post("/api/sessions", json={}).status_code == 201


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"scope": "tenant", "resource": "sessions"}, 422, "validation_failed"),
        ({"scope": "tenant", "resource": "sessions", "limit": -1}, 422, "validation_failed"),
        ({"scope": "world", "resource": "sessions", "limit": 1}, 422, "validation_failed"),
        ({"scope": "team", "resource": "sessions", "limit": 1}, 400, "invalid_input"),
        ({"scope": "user", "resource": "sessions", "limit": None}, 404, "quota_not_found"),
    ],
)
def test_refusals(api, body, status, code):
    answer = api.put("/api/quotas", json=body)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
