"""The MCP servers of a session over HTTP: of templates and of one's own, their secrets in no answer, log or event.

Plan: templates as everybody sees them; a server from its making to its end, with what each answer says; what cannot be
taken is refused with what to do and not repeated; nothing of a canary is in any answer, event, export or the log.
Rights are in `test_matrix.py`, tags in `test_etags.py`.
"""

from __future__ import annotations

import pytest

CANARY = "canary-of-a-server-0123456789"
UNKNOWN = "0190aaaa-bbbb-7ccc-8ddd-eeeeeeeeeeee"
OWN = {"name": "notes", "command": ["uvx", "notes"], "env": {"NOTES_TOKEN": CANARY}}
REMOTE = {"name": "far", "url": "https://tools.example.org/mcp", "headers": {"Authorization": f"Bearer {CANARY}"}}


def test_templates(api):
    templates = {item["name"]: item for item in api.get("/api/mcp/templates").json()["items"]}
    assert list(templates) == sorted(templates)
    assert templates["postgres"] == {
        "name": "postgres",
        "description": templates["postgres"]["description"],
        "transport": "stdio",
        "command": ["uvx", "postgres-mcp", "--access-mode=restricted"],
        "url": None,
        "env": ["DATABASE_URI"],
        "headers": None,
    }
    assert (templates["github"]["transport"], templates["github"]["headers"]) == ("http", ["Authorization"])


def test_a_server_of_a_template(api, session):
    refused = api.post(f"{session}/mcp", json={"template": "postgres"})
    assert (refused.status_code, refused.json()["code"]) == (422, "validation_failed")
    assert "this template needs DATABASE_URI in `env`" in refused.json()["detail"]
    uri = f"postgres://ada:{CANARY}@db.example/sales"
    made = api.post(f"{session}/mcp", json={"template": "postgres", "env": {"DATABASE_URI": uri}})
    assert (made.status_code, made.json()["name"], made.json()["env"]) == (201, "postgres", {"DATABASE_URI": True})
    assert made.json()["command"] == ["uvx", "postgres-mcp", "--access-mode=restricted"]
    assert (made.json()["permission"], made.json()["enabled"]) == ("ask", True)
    assert api.get(f"{session}/mcp").json() == {"items": [made.json()]}
    second = api.post(f"{session}/mcp", json={"template": "time", "name": "clock", "permission": "allow"})
    assert [item["name"] for item in api.get(f"{session}/mcp").json()["items"]] == ["clock", "postgres"]
    assert (second.json()["env"], second.json()["permission"]) == ({}, "allow")


def test_from_first_to_last(api, session):
    path = f"{session}/mcp/far"
    made = api.post(f"{session}/mcp", json=REMOTE)
    assert made.status_code == 201
    assert made.json() == {
        "name": "far",
        "transport": "http",
        "command": None,
        "url": REMOTE["url"],
        "env": None,
        "headers": {"Authorization": True},
        "permission": "ask",
        "enabled": True,
        "created_at": made.json()["created_at"],
        "updated_at": made.json()["created_at"],
    }
    read = api.get(path)
    assert (read.json(), read.headers["etag"]) == (made.json(), made.headers["etag"])
    again = api.post(f"{session}/mcp", json=REMOTE)
    assert (again.status_code, again.json()["code"]) == (409, "mcp_server_exists")
    changed = api.put(path, json={"enabled": False, "permission": "deny"}).json()
    assert changed == {**made.json(), "enabled": False, "permission": "deny", "updated_at": changed["updated_at"]}
    elsewhere = {"url": "https://thief.example.org/mcp"}
    refused = api.put(path, json=elsewhere)
    assert (refused.status_code, refused.json()["code"]) == (422, "mcp_server_refused")
    assert "send them again in `headers`" in refused.json()["detail"]
    assert api.put(path, json={**elsewhere, "headers": {}}).json()["headers"] == {}
    assert api.put(path, json={"command": ["x"]}).json()["code"] == "mcp_server_refused"
    assert api.put(path, json={"headers": changed["headers"]}).status_code == 422, "a mark is no value"
    assert api.delete(path).status_code == 204
    for method in ("GET", "PUT", "DELETE"):
        gone = api.request(method, path, json={} if method == "PUT" else None)
        assert (gone.status_code, gone.json()["code"]) == (404, "mcp_server_not_found")
    events = api.get(f"{session}/events").json()["items"]
    told = [event["payload"]["changes"] for event in events if event["type"] == "session.changed"]
    assert told == [{"mcp_servers": {"far": what}} for what in ("added", "changed", "changed", "removed")]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({**REMOTE, "url": f"https://ada:{CANARY}@tools.example.org"}, "url: an address is shown"),
        ({**REMOTE, "url": f"ftp://{CANARY}"}, "url: an address is https://host/path"),
        ({**REMOTE, "headers": {"Authorization": f"{CANARY}\n"}}, "headers: a header's value is printable ASCII"),
        ({**OWN, "env": {"NOTES_TOKEN": f"{CANARY}\0"}}, "env: a variable's value must not hold"),
        ({**OWN, "env": {"NOTES_TOKEN": [CANARY]}}, "env.NOTES_TOKEN: Input should be a valid string"),
        ({**OWN, "command": ["x", f"a://b:{CANARY}@c"]}, "command: a command is shown"),
        ({**OWN, "name": f"{CANARY} "}, "name: String should match pattern"),
        ({**OWN, **REMOTE}, "body: Value error"),
        ({**OWN, "token": CANARY}, "token: there is no such field"),
    ],
)
def test_what_cannot_be_taken_is_refused_and_not_repeated(api, session, body, said):
    refused = api.post(f"{session}/mcp", json=body)
    assert (refused.status_code, refused.json()["code"]) == (422, "validation_failed")
    assert refused.json()["detail"].startswith(said.replace("Value error", "a server has a command"))
    assert CANARY not in refused.text
    assert api.get(f"{session}/mcp").json() == {"items": []}


def test_what_is_given_is_in_no_answer_event_or_line_of_the_log(gateway, api, session):
    answers = [api.post(f"{session}/mcp", json=body) for body in (OWN, REMOTE)]
    keyed = {"Idempotency-Key": "of-a-server"}
    body = {**OWN, "name": "keyed"}
    answers += [api.post(f"{session}/mcp", json=body, headers=keyed) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [201] * 4
    assert answers[3].headers["idempotent-replayed"] == "true"
    answers += [api.put(f"{session}/mcp/notes", json={"env": {"OTHER": CANARY}, "command": ["other"]})]
    answers += [api.post(f"{session}/mcp", json=OWN), api.put(f"{session}/mcp/notes", json={"command": ["third"]})]
    answers += [api.get(f"{session}{path}") for path in ("", "/mcp", "/mcp/notes", "/mcp/far", "/events", "/export")]
    answers += [api.get("/api/audit"), api.get("/api/mcp/templates"), api.delete(f"{session}/mcp/notes")]
    assert sum("true" in answer.text and "OTHER" in answer.text for answer in answers) >= 3, "that it is set is said"
    for answer in answers:
        assert CANARY not in answer.text + str(answer.headers)
    files = [path for path in gateway.data_dir.rglob("*") if path.is_file()]
    files.append(gateway.data_dir.parent / f"{gateway.data_dir.name}.log")
    assert len(files) >= 3
    assert any(b"mcp_servers" in path.read_bytes() for path in files), "the database is one of them"
    for path in files:
        assert CANARY.encode() not in path.read_bytes(), path


def test_of_a_session_that_is_not_there(api):
    for method, path in (("GET", ""), ("POST", ""), ("GET", "/x"), ("PUT", "/x"), ("DELETE", "/x")):
        body = {"template": "time"} if method == "POST" else {} if method == "PUT" else None
        gone = api.request(method, f"/api/sessions/{UNKNOWN}/mcp{path}", json=body)
        assert (gone.status_code, gone.json()["code"]) == (404, "session_not_found"), (method, path)
    assert api.get(f"/api/sessions/{UNKNOWN}/mcp/No%20name").status_code in {404, 422}
