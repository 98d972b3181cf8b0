"""Accounts over HTTP, with mail in the outbox and the real argon2.

Plan: the whole way of a person, from the registration to the end of the last login; the cookie of browsers, which no
other route looks at; access tokens end with their login at once; what is wrong is said with its code; nobody can tell
from an answer who has an account; logs and metrics hold no address, no token and no password.
"""

from __future__ import annotations

import re

import pytest
from tests.support.mailbox import link_token, mails
from tests.support.serving import gateway as running_gateway
from tests.support.serving import until

PASSWORD = "correct horse battery"
COOKIE = "__Host-carrel-refresh"


@pytest.fixture(scope="module")
def gateway(tmp_path_factory):
    folder = tmp_path_factory.mktemp("accounts")
    with running_gateway(folder / "data", CARREL_REGISTRATION="open", CARREL_LOG_LEVEL="debug") as started:
        yield started


@pytest.fixture
def http(gateway):
    with gateway.client(key=None) as client:
        yield client


def bearer(tokens) -> dict[str, str]:
    return {"Authorization": f"Bearer {tokens['access_token']}"}


def mailed(gateway, email, count=1):
    until(lambda: len(mails(gateway.data_dir, email)) >= count)
    return mails(gateway.data_dir, email)[-1]


def set_up(gateway, http, email, **more):
    assert http.post("/api/auth/register", json={"email": email}).status_code == 202
    token = link_token(mailed(gateway, email), "setup")
    answer = http.post("/api/auth/verify", json={"token": token, "name": "Ada", "password": PASSWORD, **more})
    assert answer.status_code == 201, answer.text
    return answer


def refused(answer, status, code):
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text


def test_the_way_of_a_person(gateway, http):
    email = "ada@example.org"
    first = set_up(gateway, http, email).json()
    me = http.get("/api/me", headers=bearer(first)).json()
    assert (me["email"], me["name"], me["role"]) == (email, "Ada", "admin")
    assert me["tenants"] == [{"id": first["tenant_id"], "name": "Ada", "role": "admin"}]
    session = http.post("/api/sessions", json={"title": "mine"}, headers=bearer(first))
    assert session.status_code == 201
    with gateway.client() as owner:  # the installation's key is of another tenant
        assert owner.get(f"/api/sessions/{session.json()['id']}").status_code == 404
    second = http.post("/api/auth/login", json={"email": "Ada@Example.ORG", "password": PASSWORD}).json()
    logins = http.get("/api/auth/logins", headers=bearer(second)).json()["items"]
    assert [login["id"] for login in logins] == [second["login_id"], first["login_id"]]
    assert [login["current"] for login in logins] == [True, False]
    changed = http.put("/api/me", json={"name": "Ada Lovelace"}, headers=bearer(second))
    assert changed.json()["name"] == "Ada Lovelace"
    kept = {"preferences": {"theme": "dark"}}
    assert http.put("/api/me/preferences", json=kept, headers=bearer(second)).json() == kept
    assert http.get("/api/me/preferences", headers=bearer(first)).json() == kept
    third = http.post("/api/auth/refresh", json={"refresh_token": second["refresh_token"]}).json()
    assert third["login_id"] == second["login_id"]
    new = {"current": PASSWORD, "new": "another long password"}
    assert http.put("/api/auth/password", json=new, headers=bearer(third)).status_code == 204
    refused(http.get("/api/me", headers=bearer(first)), 401, "revoked")
    assert http.get("/api/me", headers=bearer(third)).status_code == 200
    refused(http.post("/api/auth/login", json={"email": email, "password": PASSWORD}), 401, "wrong_login")
    assert http.post("/api/auth/forgot", json={"email": email}).status_code == 202
    token = link_token(mailed(gateway, email, 3), "reset")
    assert http.post("/api/auth/reset", json={"token": token, "password": PASSWORD}).status_code == 204
    refused(http.post("/api/auth/reset", json={"token": token, "password": PASSWORD}), 400, "link_not_valid")
    refused(http.get("/api/me", headers=bearer(third)), 401, "revoked")
    last = http.post("/api/auth/login", json={"email": email, "password": PASSWORD}).json()
    assert http.post("/api/auth/logout", headers=bearer(last)).status_code == 204
    refused(http.get("/api/me", headers=bearer(last)), 401, "revoked")
    refused(http.post("/api/auth/refresh", json={"refresh_token": last["refresh_token"]}), 401, "login_ended")


def test_an_invitation_is_taken_back(gateway, http):
    admin, email = bearer(set_up(gateway, http, "host@example.org").json()), "guest@example.org"
    for _ in range(2):
        sent = http.post("/api/invitations", json={"email": email, "role": "readonly"}, headers=admin)
        assert sent.status_code == 202
    link = link_token(mailed(gateway, email, 2), "invite")
    first = http.get("/api/invitations", params={"limit": 1}, headers=admin).json()
    (last,) = http.get("/api/invitations", params={"cursor": first["next_cursor"]}, headers=admin).json()["items"]
    assert [(one["email"], one["role"]) for one in (*first["items"], last)] == [(email, "readonly")] * 2
    for one in (*first["items"], last):
        assert http.delete(f"/api/invitations/{one['id']}", headers=admin).status_code == 204
    refused(http.delete(f"/api/invitations/{last['id']}", headers=admin), 404, "invitation_not_found")
    assert http.get("/api/invitations", headers=admin).json()["items"] == []
    accepting = {"token": link, "name": "Grace", "password": PASSWORD}
    refused(http.post("/api/auth/accept", json=accepting), 400, "link_not_valid")
    refused(http.get("/api/invitations", params={"cursor": "x"}, headers=admin), 400, "invalid_cursor")


def test_the_cookie_of_browsers(gateway, http):
    answer = set_up(gateway, http, "browser@example.org", cookie=True)
    tokens = answer.json()
    assert tokens["refresh_token"] is None
    said = answer.headers["set-cookie"]
    assert re.fullmatch(rf"{COOKIE}=crf_[\w-]+; HttpOnly; Max-Age=2592000; Path=/; SameSite=strict; Secure", said)
    cookie = {"Cookie": said.partition(";")[0]}
    refused(http.get("/api/me", headers=cookie), 401, "unauthenticated")
    as_key = {"Authorization": f"Bearer {cookie['Cookie'].partition('=')[2]}"}
    refused(http.get("/api/me", headers=as_key), 401, "wrong_key")
    both = http.post("/api/auth/refresh", json={"refresh_token": "crf_x"}, headers=cookie)
    refused(both, 400, "invalid_input")
    foreign = http.post("/api/auth/refresh", headers={**cookie, "Origin": "https://evil.example"})
    refused(foreign, 403, "origin_not_allowed")
    renewed = http.post("/api/auth/refresh", headers=cookie)
    assert renewed.status_code == 200
    assert renewed.headers["set-cookie"].startswith(f"{COOKIE}=crf_")
    assert renewed.headers["set-cookie"] != said
    gone = http.post("/api/auth/logout", headers=bearer(renewed.json()))
    assert f'{COOKIE}=""' in gone.headers["set-cookie"]
    assert "Max-Age=0" in gone.headers["set-cookie"]


def test_a_stolen_cookie_is_good_for_nothing_elsewhere(gateway, http):
    answer = set_up(gateway, http, "victim@example.org", cookie=True)
    stolen = answer.headers["set-cookie"].partition(";")[0].partition("=")[2]
    refused(http.post("/api/auth/refresh", json={"refresh_token": stolen}), 401, "login_ended")
    refused(http.post("/api/auth/refresh", headers={"Cookie": f"{COOKIE}={stolen}"}), 401, "login_ended")
    refused(http.get("/api/me", headers=bearer(answer.json())), 401, "revoked")


def test_what_is_wrong_is_said(gateway, http):
    refused(http.post("/api/auth/refresh"), 400, "no_refresh_token")
    refused(http.post("/api/auth/refresh", json={"refresh_token": "x" * 100}), 401, "login_ended")
    refused(http.post("/api/auth/register", json={"email": "no address"}), 422, "validation_failed")
    verify = {"token": "x", "name": "n", "password": PASSWORD}
    refused(http.post("/api/auth/verify", json=verify), 400, "link_not_valid")
    refused(http.post("/api/auth/login", json={"email": "a@example.org"}), 422, "validation_failed")
    with gateway.client() as owner:
        refused(owner.post("/api/auth/logout"), 409, "not_a_login")
        refused(owner.put("/api/auth/password", json={"current": "x", "new": PASSWORD}), 409, "not_a_login")
        assert owner.get("/api/me").json()["role"] == "admin"


def test_nobody_can_tell_who_has_an_account(gateway, http):
    set_up(gateway, http, "known@example.org")
    for path, more in (("register", {}), ("forgot", {})):
        answers = [
            http.post(f"/api/auth/{path}", json={"email": email, **more})
            for email in ("known@example.org", f"unknown-{path}@example.org")
        ]
        assert answers[0].status_code == answers[1].status_code == 202
        assert answers[0].content == answers[1].content
    logins = [
        http.post("/api/auth/login", json={"email": email, "password": "x" * 12})
        for email in ("known@example.org", "unknown@example.org")
    ]
    for answer in logins:
        refused(answer, 401, "wrong_login")
    assert logins[0].json()["detail"] == logins[1].json()["detail"]


def test_logs_hold_no_address_no_token_and_no_password(gateway, http):
    email = "secretive@example.org"
    tokens = set_up(gateway, http, email).json()
    http.post("/api/auth/login", json={"email": email, "password": "the wrong password"})
    http.post("/api/auth/refresh", json={"refresh_token": tokens["refresh_token"]})
    http.post("/api/auth/logout", headers=bearer(tokens))
    log = (gateway.data_dir.parent / f"{gateway.data_dir.name}.log").read_text()
    assert "logged in" in log
    for secret in (email, "secretive", PASSWORD, "the wrong password", *tokens["access_token"].split(".")[1:]):
        assert secret not in log
    assert tokens["refresh_token"] not in log
    assert tokens["user_id"] in log


def test_registration_is_closed_unless_it_was_opened(tmp_path):
    with running_gateway(tmp_path / "data") as closed, closed.client(key=None) as http:
        refused(http.post("/api/auth/register", json={"email": "a@example.org"}), 403, "registration_closed")
        assert not (closed.data_dir / "outbox").exists()
