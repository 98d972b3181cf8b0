"""Reads that a caller has already, and writes of what a caller has seen.

Plan: every conditional read answers a tag, and 304 without a body while it is the same, as part of a list, weak, or
`*`; another tag, and a change, get the whole answer with a new tag; a document without the tag is whole. Writes under
`If-Match` are done when it names the tag of now, in a list too, or is `*`; under any other one, and a weak one, they
are refused and nothing is done; answers have the new tag; writes that compare nothing refuse tags; which take them is
in the API's description. Races of two writers are in `tests/integration/storage/test_seen.py`.
"""

from __future__ import annotations

import re

import pytest

from carrel_gateway.web.conditional import GUARDED
from carrel_gateway.web.conditional import PATHS as CONDITIONAL

KEY = "sk-0123456789abcdefghij"
PATHS = ["", "/config", "/mcp", "/files", "/files/a.csv", "/artifacts?category=data", "/notebook", "/export"]


@pytest.fixture
def full(api, session):
    api.post(f"{session}/files", files={"file": ("a.csv", b"x\n1\n", "text/csv")})
    return session


def test_what_has_not_changed_is_not_sent_again(api, full):
    artifact = api.get(f"{full}/files").json()["items"][0]["id"]
    for path in [f"{full}{path}" for path in PATHS] + ["/api/sessions", f"/api/artifacts/{artifact}"]:
        first = api.get(path)
        assert "etag" in first.headers, (path, first.status_code)
        tag = first.headers["etag"]
        for known in (tag, f"W/{tag}", f'"other", {tag}', "*"):
            again = api.get(path, headers={"If-None-Match": known})
            assert (again.status_code, again.content, again.headers.get("etag")) == (304, b"", tag), (path, known)
        for other in ('"other"', "nothing", ""):
            assert api.get(path, headers={"If-None-Match": other}).content == first.content


def test_what_has_changed_is_sent(api, full):
    before = {path: api.get(f"{full}{path}").headers["etag"] for path in ("", "/files", "/files/a.csv", "/export")}
    api.post(f"{full}/files", files={"file": ("a.csv", b"x\n2\n", "text/csv")})
    for path, tag in before.items():
        now = api.get(f"{full}{path}", headers={"If-None-Match": tag})
        assert now.status_code == 200
        assert now.headers["etag"] != tag


# ---------------------------------------------------------------------- writes


@pytest.fixture
def things(api, full):
    """Path → body of a change; a body of none is a deletion."""
    agent = api.post("/api/agents", json={"name": "of a test"}).json()["id"]
    team = api.post("/api/teams", json={"name": f"of a test {agent}"}).json()["id"]
    user = api.post("/api/users", json={"kind": "service", "name": "of a test"}).json()["id"]
    member = f"/api/teams/{team}/members/{user}"
    assert api.put(member, json={"role": "user"}).is_success
    shares = f"{full}/teams/{team}", f"/api/agents/{agent}/teams/{team}"
    assert all(api.put(share, json={"access": "read"}).is_success for share in shares)
    provider = f"/api/provider-keys/of-{agent[-12:]}"
    assert api.put(provider, json={"key": KEY}).is_success
    assert api.post(f"{full}/mcp", json={"template": "time"}).is_success
    name, kept = api.get("/api/me").json()["name"], api.get("/api/me/preferences").json()
    yield {
        full: {"title": "Another"},
        f"{full}/config": {"max_steps": 3},
        f"{full}/mcp/time": {"permission": "deny"},
        f"{full}/files/a.csv": None,
        shares[0]: {"access": "write"},
        shares[1]: {"access": "write"},
        provider: {"key": f"{KEY}-changed"},
        f"/api/agents/{agent}": {"description": "changed"},
        f"/api/users/{user}": {"name": "changed"},
        member: {"role": "readonly"},
        f"/api/teams/{team}": {"name": f"changed {agent}"},
        "/api/me": {"name": f"changed {agent}"[:40]},
        "/api/me/preferences": {"preferences": {"of": agent}},
    }
    api.put("/api/me", json={"name": name})
    api.put("/api/me/preferences", json=kept)


def test_what_somebody_else_has_changed_is_not_written_over(api, things):
    for path, body in things.items():
        method = "DELETE" if body is None else "PUT"
        tag = api.get(path).headers["etag"]
        for seen in ('"other"', f"W/{tag}", "nothing", "", f'"a", W/{tag}'):
            refused = api.request(method, path, json=body, headers={"If-Match": seen})
            assert (refused.status_code, refused.json()["code"]) == (412, "precondition_failed"), (path, seen)
            assert api.get(path).headers["etag"] == tag, (path, "nothing was changed")
        changed = api.request(method, path, json=body, headers={"If-Match": f'"other", {tag}'})
        assert changed.is_success, (path, changed.text)
        if body is not None:
            now = api.get(path).headers["etag"]
            assert now != tag, path
            assert changed.headers.get("etag") in (now, None), path
            assert ("etag" in changed.headers) == (re.fullmatch("/api/teams/[^/]+", path) is None), path
            assert api.request(method, path, json=body, headers={"If-Match": tag}).status_code == 412, path
            assert api.request(method, path, json=body, headers={"If-Match": "*"}).is_success, path


def test_what_somebody_has_not_seen_is_not_deleted(api, things):
    kept = ("/api/me", "/api/users", "/config", "a.csv")
    deepest_first = sorted(things, key=lambda path: path.count("/"), reverse=True)
    for path in (path for path in deepest_first if not any(part in path for part in kept)):
        tag = api.get(path).headers["etag"]
        refused = api.delete(path, headers={"If-Match": '"other"'})
        assert (refused.status_code, refused.json()["code"]) == (412, "precondition_failed"), path
        headers = {"If-Match": tag, "Idempotency-Key": path}
        first, second = (api.delete(path, headers=headers) for _ in range(2))
        assert (first.is_success, second.status_code, second.content) == (True, first.status_code, first.content)
        assert api.get(path).status_code == 404


def test_what_is_not_there_any_more_is_not_made_by_whoever_has_seen_it(api, things):
    kinds = {"/members/": "member_not_found", "/teams/[^/]+$": "share_not_found", "provider": "provider_key_not_found"}
    gone = [(path, code) for path in things for kind, code in kinds.items() if re.search(f"[^i]{kind}", path)]
    assert len(gone) == 4
    for path, code in gone:
        tag = api.get(path).headers["etag"]
        assert api.delete(path, headers={"If-Match": tag}).status_code == 204, path
        for seen in (tag, "*", ""):
            refused = api.put(path, json=things[path], headers={"If-Match": seen})
            assert (refused.status_code, refused.json()["code"]) == (412, "precondition_failed"), (path, seen)
        assert api.get(path).json()["code"] == code, path
        assert api.delete(path, headers={"If-Match": tag}).status_code == 404, path


def test_what_is_only_ever_revoked_is_so_by_whoever_has_seen_it_in_force(api, full):
    link = f"{full}/share/{api.post(f'{full}/share', json={}).json()['id']}"
    key = f"/api/keys/{api.post('/api/keys', json={'name': 'of a test'}).json()['id']}"
    for path in (link, key):
        shown = api.get(path)
        tag = shown.headers["etag"]
        assert not {"token", "key"} & shown.json().keys(), "what it is, is shown once"
        for seen in ('"other"', f"W/{tag}", ""):
            refused = api.delete(path, headers={"If-Match": seen})
            assert (refused.status_code, refused.json()["code"]) == (412, "precondition_failed"), (path, seen)
        assert api.get(path, headers={"If-None-Match": tag}).status_code == 304, (path, "nothing was changed")
        assert api.delete(path, headers={"If-Match": tag}).status_code == 204, path
        assert api.get(path).json()["revoked_at"], path
        assert api.delete(path, headers={"If-Match": tag}).status_code == 412, path
    assert api.get(f"{full}/share/{key[-36:]}").json()["code"] == "share_not_found"
    assert api.get(f"/api/keys/{link[-36:]}").json()["code"] == "key_not_found"


def test_a_tag_that_nothing_would_compare_is_refused(api, full):
    for method, path, body in (
        ("POST", "/api/sessions", {}),
        ("POST", f"{full}/chat", {"message": "hello"}),
        ("POST", f"{full}/archive", None),
        ("POST", f"{full}/kernel/execute", {"code": "1"}),
    ):
        refused = api.request(method, path, json=body, headers={"If-Match": '"a"'})
        assert (refused.status_code, refused.json()["code"]) == (412, "precondition_failed"), path
    assert api.get(f"{full}/messages").json()["items"] == []
    assert api.post(f"{full}/archive", headers={"If-Match": "*"}).status_code == 200


def test_guarded_writes_say_so(api):
    paths = api.get("/openapi.json").json()["paths"]
    takes = {
        (method.upper(), path)
        for path, operations in paths.items()
        for method, operation in operations.items()
        if "if-match" in {parameter["name"].lower() for parameter in operation.get("parameters", [])}
    }
    assert takes == GUARDED
    assert {path for _, path in GUARDED} <= CONDITIONAL, "a tag to send back"
