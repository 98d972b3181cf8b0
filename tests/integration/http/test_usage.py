"""What was used, over HTTP: a question costs its asker something, and what is asked wrongly is said."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest


def test_a_question_is_in_the_ledger(api):
    session_id = api.post("/api/sessions", json={}).json()["id"]
    assert api.post(f"/api/sessions/{session_id}/chat", json={"message": "How many?"}).status_code == 200
    calls = [
        event
        for event in api.get(f"/api/sessions/{session_id}/events").json()["items"]
        if event["type"] == "model.call"
    ]
    assert calls
    report = api.get("/api/me/usage", params={"session_id": session_id, "by": "session,model"}).json()
    today = datetime.now(UTC).date()
    assert (report["since"], report["until"]) == (today.replace(day=1).isoformat(), today.isoformat())
    (row,) = report["items"]
    assert (row["session_id"], row["model"], row["calls"]) == (session_id, calls[0]["payload"]["model"], len(calls))
    assert row["day"] is None
    everybody = api.get("/api/usage", params={"session_id": session_id}).json()["items"]
    assert [(one["calls"], one["input_tokens"]) for one in everybody] == [(len(calls), row["input_tokens"])]
    assert everybody[0]["user_id"] == api.get("/api/me").json()["user_id"]


@pytest.mark.parametrize(
    ("query", "status", "code", "word"),
    [
        ("by=week", 400, "invalid_input", "'week'"),
        ("since=2026-02-02&until=2026-02-01", 400, "invalid_input", "after"),
        ("since=yesterday", 422, "validation_failed", "since"),
        ("session_id=mine", 422, "validation_failed", "session_id"),
    ],
)
@pytest.mark.parametrize("path", ["/api/usage", "/api/me/usage"])
def test_refusals(api, path, query, status, code, word):
    response = api.get(f"{path}?{query}")
    assert (response.status_code, response.json()["code"]) == (status, code)
    assert word in response.text
