"""The history over HTTP: search."""

from __future__ import annotations


def test_search(api, session):
    ran = api.post(f"{session}/kernel/execute", json={"code": "zebra_count = 1 + 1"})
    assert ran.status_code == 200, ran.text
    found = api.get("/api/search", params={"q": "ZEBRA cou"}).json()
    (hit,) = found["items"]
    assert (hit["kind"], hit["status"], hit["session_id"]) == ("code", "ok", session.rpartition("/")[2])
    assert [hit["snippet"]["text"][start:end] for start, end in hit["snippet"]["matches"]] == ["zebra", "cou"]
    assert found["next_cursor"] is None
    assert api.get("/api/search", params={"q": "zebra", "kind": "message"}).json()["items"] == []
    refused = api.get("/api/search", params={"q": "***"})
    assert (refused.status_code, refused.json()["code"]) == (400, "invalid_query")
    elsewhere = {"q": "zebra", "session_id": "00000000-0000-7000-8000-00000000dead"}
    assert api.get("/api/search", params=elsewhere).status_code == 404
