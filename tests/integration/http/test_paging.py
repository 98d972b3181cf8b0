"""Lists over HTTP: walked by cursor, bounded, and cursors that are none.

Plan: each list gives all of its items over pages of one; a cursor that was made up, or belongs to another list or
session, is a 400 that says what to do; limits are bounded; the log takes its cursor as it takes `after`.
"""

from __future__ import annotations

import pytest


def walked(api, path, **params):
    items, cursor = [], None
    while True:
        page = api.get(path, params={**params, "limit": 1, **({"cursor": cursor} if cursor else {})}).json()
        assert len(page["items"]) <= 1
        items += page["items"]
        cursor = page["next_cursor"]
        if cursor is None or not page["items"]:
            return items


@pytest.fixture
def full(api, session):
    for name in ("b.csv", "a.csv", "c.csv"):
        assert api.post(f"{session}/files", files={"file": (name, b"x\n1\n", "text/csv")}).status_code == 201
    api.post(f"{session}/files", files={"file": ("a.csv", b"x\n2\n", "text/csv")})
    done = api.post(f"{session}/chat", json={"message": "What is the mean of x in a.csv?"}).json()
    assert done["status"] == "succeeded", done
    return session


def test_every_list_is_walked_by_its_cursor(api, full):
    assert [item["name"] for item in walked(api, f"{full}/files")] == ["a.csv", "b.csv", "c.csv"]
    assert [item["name"] for item in walked(api, f"{full}/artifacts", category="data")] == ["a.csv", "b.csv", "c.csv"]
    versions = walked(api, f"/api/artifacts/{walked(api, f'{full}/files')[0]['id']}/versions")
    assert [item["version"] for item in versions] == [2, 1]
    assert [item["role"] for item in walked(api, f"{full}/messages")] == ["assistant", "user"]
    events = walked(api, f"{full}/events")
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert events == api.get(f"{full}/events").json()["items"]
    api.post("/api/sessions", json={})
    ids = [item["id"] for item in walked(api, "/api/sessions")]
    assert ids == [item["id"] for item in api.get("/api/sessions").json()["items"]]


def test_foreign_cursors(api, full):
    other = f"/api/sessions/{api.post('/api/sessions', json={}).json()['id']}"
    messages = api.get(f"{full}/messages", params={"limit": 1}).json()["next_cursor"]
    for path in ("/api/sessions", f"{other}/messages", f"{full}/files", f"{full}/artifacts", f"{full}/events"):
        for cursor in (messages, "x", "AAAAAAAAAAAAAAAA", "ü"):
            refused = api.get(path, params={"cursor": cursor})
            assert (refused.status_code, refused.json()["code"]) == (400, "invalid_cursor"), path
            assert "start again without it" in refused.json()["detail"]


@pytest.mark.parametrize("path", ["/api/sessions", "{s}/messages", "{s}/files", "{s}/artifacts", "{s}/events"])
@pytest.mark.parametrize("limit", [0, -1, 1001, 10**30])
def test_limits_are_bounded(api, session, path, limit):
    refused = api.get(path.replace("{s}", session), params={"limit": limit})
    assert (refused.status_code, refused.json()["code"]) == (422, "validation_failed")


def test_nul_in_an_address_is_refused_everywhere(api, session):
    for address in (f"{session}/files/a%00b", f"{session}/artifacts?prefix=%00"):
        refused = api.get(address)
        assert (refused.status_code, refused.json()["code"]) == (400, "invalid_address")
