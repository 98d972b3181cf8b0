"""Writes that are sent again over HTTP.

Plan: every operation that writes takes `Idempotency-Key`, and says so; the second request gets the answer of the first
and does nothing, whatever the kind of write; another body, path or file under the key is refused; a request that was
refused leaves its key; a second request while the first goes on is told to wait; keys that are none are refused.
"""

from __future__ import annotations

import sqlite3
import threading
from contextlib import closing
from uuid import uuid4

import pytest
from tests.support.serving import server_events, until

from carrel_gateway.idempotency.routes import NAMED, REPEATABLE, SECRET, WRITES


@pytest.fixture
def key():
    return {"Idempotency-Key": str(uuid4())}


def upload(content=b"x\n1\n", name="a.csv"):
    return {"files": {"file": (name, content, "text/csv")}}


def twice(api, method, path, key, **options):
    first, second = (api.request(method, path, headers=key, **options) for _ in range(2))
    assert (second.status_code, second.content) == (first.status_code, first.content)
    assert "idempotent-replayed" not in first.headers
    assert second.headers["idempotent-replayed"] == "true"
    assert second.headers.get("content-type") == first.headers.get("content-type")
    return first


def test_every_write_takes_a_key(api):
    document = api.get("/openapi.json").json()
    without = [
        (method, path)
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
        if method.upper() in WRITES
        and not path.startswith("/api/auth/")  # they are about who calls, and their answers hold secrets
        and "idempotency-key" not in {parameter["name"] for parameter in operation.get("parameters", [])}
    ]
    assert without == []
    posts = {path for path, operations in document["paths"].items() if "post" in operations}
    assert posts >= NAMED | REPEATABLE | SECRET


def test_a_session_is_opened_once(api, key):
    made = twice(api, "POST", "/api/sessions", key, json={"title": "Once"}).json()
    titles = [item["title"] for item in api.get("/api/sessions").json()["items"]]
    assert titles.count("Once") == 1
    refused = api.post("/api/sessions", headers=key, json={"title": "Twice"})
    assert (refused.status_code, refused.json()["code"]) == (422, "idempotency_key_reused")
    api.delete(f"/api/sessions/{made['id']}")


def test_a_secret_is_shown_once_and_not_kept(api, key):
    body = {"name": "of a test"}
    assert api.post("/api/keys", headers=key, json=body).status_code == 201
    again = api.post("/api/keys", headers=key, json=body)
    assert (again.status_code, again.json()["code"]) == (409, "idempotency_answer_not_kept")
    assert again.json()["first_status"] == 201


def test_a_deletion_answers_the_same(api, key):
    made = api.post("/api/keys", json={"name": "of a test"}).json()
    assert twice(api, "DELETE", f"/api/keys/{made['id']}", key).status_code == 204
    key = {"Idempotency-Key": str(uuid4())}
    session = f"/api/sessions/{api.post('/api/sessions', json={}).json()['id']}"
    assert twice(api, "DELETE", session, key).status_code == 200
    assert api.delete(session).status_code == 404


def test_a_change_is_made_once(api, session, key):
    twice(api, "PUT", session, key, json={"title": "New"})
    events = api.get(f"{session}/events").json()["items"]
    assert [event["type"] for event in events].count("session.changed") == 1


def test_files_are_stored_once(api, session, key):
    (stored,) = twice(api, "POST", f"{session}/files", key, **upload()).json()["items"]
    assert api.get(f"/api/artifacts/{stored['id']}/versions").json()["items"] == [stored]
    for other in (upload(b"x\n2\n"), upload(name="b.csv")):
        refused = api.post(f"{session}/files", headers=key, **other)
        assert (refused.status_code, refused.json()["code"]) == (422, "idempotency_key_reused")
    assert [item["name"] for item in api.get(f"{session}/files").json()["items"]] == ["a.csv"]


def test_a_fork_is_made_once(api, session, key):
    made = twice(api, "POST", f"{session}/fork", key, json={"title": "The fork"}).json()
    assert [item["title"] for item in api.get("/api/sessions").json()["items"]].count("The fork") == 1
    api.delete(f"/api/sessions/{made['session']['id']}")


def test_a_request_that_was_refused_leaves_its_key(api, key):
    assert api.post("/api/sessions", headers=key, json={"model": "none/such"}).status_code in {400, 404}
    assert api.post("/api/sessions", headers=key, json={"title": 1}).status_code == 422
    twice(api, "POST", "/api/sessions", key, json={"title": "Corrected"})


def test_half_an_upload_is_not_stored_twice(api, session, key):
    good, bad = ("file", ("a.csv", b"x\n1\n", "text/csv")), ("file", ("..", b"", "text/csv"))
    assert api.post(f"{session}/files", headers=key, files=[good, bad]).status_code == 400
    (stored,) = api.post(f"{session}/files", headers=key, files=[good]).json()["items"]
    assert stored["version"] == 1


def test_a_second_request_while_the_first_goes_on(api, gateway, session, key):
    go_on = threading.Event()
    boundary = b'--b\r\nContent-Disposition: form-data; name="file"; filename="slow.csv"\r\n\r\n'

    def body():
        yield boundary + b"x\n"
        assert go_on.wait(60)
        yield b"1\n\r\n--b--\r\n"

    headers = {**key, "Content-Type": "multipart/form-data; boundary=b"}
    answers = []

    def send():
        with gateway.client() as other:
            answers.append(other.post(f"{session}/files", headers=headers, content=body()))

    def running():
        with closing(sqlite3.connect(gateway.data_dir / "carrel.db")) as rows:
            return rows.execute("SELECT count(*) FROM idempotency_keys WHERE state = 'running'").fetchone() == (1,)

    sending = threading.Thread(target=send)
    sending.start()
    try:
        until(running)  # else the second may be the first to come
        refused = api.post(f"{session}/files", headers=headers, content=boundary + b"x\n1\n\r\n--b--\r\n")
        assert (refused.status_code, refused.json()["code"]) == (409, "idempotency_in_progress")
        assert refused.headers["retry-after"] == "1"
    finally:
        go_on.set()
        sending.join(60)
    assert answers[0].status_code == 201


@pytest.mark.parametrize("value", ["", "x" * 201, "ü".encode()])
def test_keys_that_are_none(api, value):
    refused = api.post("/api/sessions", headers={"Idempotency-Key": value}, json={})
    assert (refused.status_code, refused.json()["code"]) == (422, "validation_failed")
    assert "idempotency-key" in refused.json()["detail"]


# ---------------------------------------------------------------------- runs and executions


ASK = {"message": "What is the mean of x in a.csv?"}


def runs_of(api, session):
    return [event for event in api.get(f"{session}/events").json()["items"] if event["type"] == "run.started"]


def test_a_message_is_one_run_however_often_it_is_sent(api, session, key):
    api.post(f"{session}/files", **upload())
    first = api.post(f"{session}/chat", headers=key, json=ASK)
    assert first.json()["status"] == "succeeded", first.text
    assert api.post(f"{session}/chat", headers=key, json=ASK).json() == first.json()
    with api.stream("POST", f"{session}/chat/stream", headers=key, json=ASK) as stream:
        events = list(server_events(stream))
        assert stream.headers["carrel-run-id"] == first.json()["run_id"]
    assert (events[0]["type"], events[-1]["type"]) == ("message.user", "run.finished")
    assert len(runs_of(api, session)) == 1
    refused = api.post(f"{session}/chat", headers=key, json={"message": "And the sum?"})
    assert (refused.status_code, refused.json()["code"]) == (422, "idempotency_key_reused")


def test_a_message_that_is_sent_by_many_at_once_is_one_run(gateway, api, session, key):
    answers = []

    def send():
        with gateway.client() as own:
            answers.append(own.post(f"{session}/chat", headers=key, json=ASK))

    senders = [threading.Thread(target=send) for _ in range(4)]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join(90)
    assert {answer.status_code for answer in answers} == {200}, [answer.text for answer in answers]
    assert len({answer.json()["run_id"] for answer in answers}) == 1
    assert len(runs_of(api, session)) == 1


def test_other_code_under_a_key_is_refused(api, session, key):
    path = f"{session}/kernel/execute"
    assert api.post(path, headers=key, json={"code": "print(1)"}).status_code == 200
    refused = api.post(path, headers=key, json={"code": "print(2)"})
    assert (refused.status_code, refused.json()["code"]) == (422, "idempotency_key_reused")


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("open('made.txt', 'w').write('x' * 9)\nprint(1)", "ok"),
        ("print(1)\n1 / 0", "error"),
        ("import os\nos._exit(3)", "kernel_died"),
    ],
)
def test_an_execution_that_is_asked_for_again_is_told_as_it_was(api, session, key, code, status):
    path = f"{session}/kernel/execute"
    first = api.post(path, headers=key, json={"code": code}).json()
    assert first["status"] == status
    assert [file["path"] for file in first["artifacts"]] == (["made.txt"] if status == "ok" else [])
    for _ in range(4):  # joined while its recording lasts, and read from the history after that
        assert api.post(path, headers=key, json={"code": code}).json() == first
    with api.stream("POST", path, headers={**key, "Accept": "text/event-stream"}, json={"code": code}) as stream:
        kinds = {event["type"]: event for event in server_events(stream)}
    assert ("artifact" in kinds) == (status == "ok")
    told = {name: kinds["finished"].get(name, False) for name in ("status", "wall_seconds", "lost_state")}
    assert told == {name: first[name] for name in told}
