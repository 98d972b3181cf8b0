"""Sharing of sessions over HTTP: teams, links, and what a link shows to whoever has it.

Plan: a link shows title, messages, cells and artifacts of its session without a key, and of no other; it changes
nothing; revoked it shows nothing; its token is shown once, in no log, and kept under no idempotency key.
"""

from __future__ import annotations

import pytest

CODE = "print('seen'); open('made.txt', 'w').write('a')"


@pytest.fixture
def link(api, session):
    made = api.post(f"{session}/share", json={"expires_in_seconds": 600}, headers={"Idempotency-Key": session[-12:]})
    assert made.status_code == 201, made.text
    assert made.headers["cache-control"] == "no-store"
    return made.json()


def test_a_link_shows_its_session(gateway, api, session, link):
    assert api.post(f"{session}/kernel/execute", json={"code": CODE}).json()["status"] == "ok"
    api.post(f"{session}/files", files={"file": ("mine.csv", b"a\n1\n", "text/csv")})
    other = api.post("/api/sessions", json={"title": "Other"}).json()["id"]
    api.post(f"/api/sessions/{other}/kernel/execute", json={"code": CODE})
    path = f"/api/shared/{link['token']}"
    with gateway.client(key=None) as anybody:
        shown = anybody.get(path).json()
        assert (shown["title"], shown["expires_at"]) == ("Sales", link["expires_at"])
        assert anybody.get(f"{path}/messages").json()["items"] == api.get(f"{session}/messages").json()["items"]
        cells = anybody.get(f"{path}/notebook").json()["cells"]
        assert [cell["source"] for cell in cells if cell["cell_type"] == "code"] == [CODE]
        (file,) = anybody.get(f"{path}/artifacts").json()["items"]
        assert file["name"] == "made.txt"
        download = anybody.get(f"{path}/artifacts/{file['id']}")
        assert (download.text, download.headers["content-disposition"][:10]) == ("a", "attachment")
        for foreign in (
            api.get(f"/api/sessions/{other}/artifacts").json()["items"][0]["id"],
            api.get(f"{session}/files").json()["items"][0]["id"],
        ):
            assert anybody.get(f"{path}/artifacts/{foreign}").json()["code"] == "artifact_not_found"
        for method in ("POST", "PUT", "DELETE"):
            assert anybody.request(method, path).status_code == 405
        assert anybody.get(session, headers={"Authorization": f"Bearer {link['token']}"}).status_code == 401
        assert api.delete(f"{session}/share/{link['id']}").status_code == 204
        for part in ("", "/messages", "/notebook", "/artifacts", f"/artifacts/{file['id']}"):
            answer = anybody.get(path + part)
            assert (answer.status_code, answer.json()["code"]) == (404, "share_not_found")
    log = (gateway.data_dir.parent / f"{gateway.data_dir.name}.log").read_text()
    assert "/api/shared/{token}" in log
    assert link["token"] not in log
    assert link["token"][4:40] not in log


def test_a_token_is_shown_once(api, session, link):
    listed = api.get(f"{session}/share").json()["items"]
    assert [item["id"] for item in listed] == [link["id"]]
    assert link["token"] not in str(listed)
    again = api.post(f"{session}/share", json={"expires_in_seconds": 600}, headers={"Idempotency-Key": session[-12:]})
    assert (again.status_code, again.json()["code"]) == (409, "idempotency_answer_not_kept")
    assert len(api.get(f"{session}/share").json()["items"]) == 1


def test_teams(api, session):
    team = api.post("/api/teams", json={"name": session[-12:]}).json()["id"]
    shared = api.put(f"{session}/teams/{team}", json={"access": "write"}).json()
    assert [(item["team_id"], item["access"]) for item in shared["items"]] == [(team, "write")]
    assert api.get(f"{session}/teams").json() == shared
    assert api.delete(f"{session}/teams/{team}").status_code == 204
    assert api.delete(f"{session}/teams/{team}").json()["code"] == "share_not_found"


@pytest.mark.parametrize("seconds", [0, 59, 90 * 86_400 + 1, "soon"])
def test_lives_of_links_are_bounded(api, session, seconds):
    assert api.post(f"{session}/share", json={"expires_in_seconds": seconds}).status_code == 422
