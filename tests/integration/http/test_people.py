"""Users and teams over HTTP: every route once as it should be, and what is asked wrongly."""

from __future__ import annotations

import pytest

UNKNOWN = "0190aaaa-bbbb-7ccc-8ddd-eeeeeeeeeeee"


def test_users_and_teams(api):
    robot = api.post("/api/users", json={"kind": "service", "name": "nightly", "role": "user"})
    assert robot.status_code == 201
    robot_id = robot.json()["id"]
    changed = api.put(f"/api/users/{robot_id}", json={"role": "readonly", "disabled": True}).json()
    assert (changed["role"], changed["kind"], changed["disabled_at"] is None) == ("readonly", "service", False)
    listed = api.get("/api/users").json()
    assert [item["name"] for item in listed["items"]][-1] == "nightly"
    team = api.post("/api/teams", json={"name": "Numbers"})
    assert (team.status_code, team.json()["role"]) == (201, "admin")
    path = f"/api/teams/{team.json()['id']}"
    assert api.put(f"{path}/members/{robot_id}", json={"role": "user"}).json()["role"] == "user"
    assert api.put(path, json={"name": "Figures"}).json()["name"] == "Figures"
    assert len(api.get(path).json()["members"]) == 2
    assert [item["name"] for item in api.get("/api/teams").json()["items"]] == ["Figures"]
    me = next(item["id"] for item in listed["items"] if item["id"] != robot_id)
    last = api.delete(f"{path}/members/{me}")
    assert (last.status_code, last.json()["code"]) == (409, "last_administrator")
    assert api.post("/api/teams", json={"name": "Figures"}).json()["code"] == "team_exists"
    assert api.delete(f"{path}/members/{robot_id}").status_code == 204
    assert api.delete(path).status_code == 204
    assert api.get(path).json()["code"] == "team_not_found"
    alone = api.put(f"/api/users/{me}", json={"disabled": True})
    assert (alone.status_code, alone.json()["code"]) == (409, "last_administrator")


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("POST", "/api/users", {"kind": "person", "name": "x"}, 422, "validation_failed"),
        ("POST", "/api/users", {"kind": "service", "name": "x", "role": "owner"}, 422, "validation_failed"),
        ("PUT", f"/api/users/{UNKNOWN}", {"role": "user"}, 404, "user_not_found"),
        ("PUT", f"/api/users/{UNKNOWN}", {"tenant_id": UNKNOWN}, 422, "validation_failed"),
        ("POST", "/api/teams", {"name": " "}, 422, "validation_failed"),
        ("PUT", f"/api/teams/{UNKNOWN}/members/{UNKNOWN}", {}, 404, "team_not_found"),
        ("GET", "/api/users?cursor=x", None, 400, "invalid_cursor"),
    ],
)
def test_refusals(api, method, path, body, status, code):
    response = api.request(method, path, json=body)
    assert (response.status_code, response.json()["code"]) == (status, code)
