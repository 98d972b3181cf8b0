"""The history over HTTP: search, edited questions and answers made anew, exports."""

from __future__ import annotations

import json
import subprocess
import sys

from tests.support.serving import environment

from carrel_client import Client


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


def test_edit_and_regenerate(api, session, sales):
    def ask(method, path, **body):
        answered = api.request(method, path, json=body)
        assert answered.status_code == 200, answered.text
        assert answered.json()["status"] == "succeeded", answered.text
        return answered.json()

    ask("POST", f"{session}/chat", message="What is the total of units per region?")
    question, answer = api.get(f"{session}/messages").json()["items"]
    edited = ask("PUT", f"{session}/messages/{question['id']}", content="What is the average price per region?")
    said = api.get(f"{session}/messages").json()["items"]
    assert [item["content"] for item in said] == ["What is the average price per region?", edited["answer"]]
    assert edited["answer"] != answer["content"]
    assert api.get(session).json()["stale_seq"] is not None, "the kernel ran the first question's code"
    again = api.put(f"{session}/messages/{said[1]['id']}", headers={"Accept": "text/event-stream"})
    assert again.status_code == 200
    assert again.headers["carrel-run-id"] in again.text
    assert [item["content"] for item in api.get(f"{session}/messages").json()["items"]] == [
        "What is the average price per region?",
        edited["answer"],
    ]
    events = api.get(f"{session}/events", params={"limit": 1000}).json()["items"]
    kept = [event["payload"]["content"] for event in events if event["type"] == "message.assistant"]
    assert kept == [answer["content"], edited["answer"], edited["answer"]]
    assert [event["payload"]["reason"] for event in events if event["type"] == "head.moved"] == ["edit", "regenerate"]
    gone = api.put(f"{session}/messages/{question['id']}", json={"content": "x"})
    assert (gone.status_code, gone.json()["code"]) == (409, "superseded")


def test_export(api, session):
    api.post(f"{session}/kernel/execute", json={"code": "print('exported')"})
    lines = api.get(f"{session}/export")
    assert (lines.status_code, lines.headers["content-type"]) == (200, "application/x-ndjson"), lines.text
    assert lines.headers["content-disposition"].startswith('attachment; filename="Sales.jsonl"')
    events = api.get(f"{session}/events", params={"limit": 1000}).json()["items"]
    assert [json.loads(line) for line in lines.text.splitlines()] == events
    notebook = api.get(f"{session}/export", params={"format": "ipynb"})
    assert notebook.headers["content-type"] == "application/x-ipynb+json"
    assert notebook.json() == api.get(f"{session}/notebook").json()
    assert [cell["source"] for cell in notebook.json()["cells"]] == ["print('exported')"]
    assert notebook.json()["cells"][0]["outputs"][0]["text"] == "exported\n"
    assert api.get(f"{session}/export", params={"format": "pdf"}).status_code == 422


def test_sdk_and_commands(gateway, session, tmp_path):
    session_id = session.rpartition("/")[2]
    with Client(gateway.url, gateway.key) as client:
        client.execute(session_id, "quokka = 'sdk'")
        (hit,) = client.search("quokka", session_id=session_id, kind="code")
        assert hit["session_id"] == session_id
        written = client.export(session_id, tmp_path / "own.ipynb", form="ipynb")
        assert json.loads(written.read_text("utf-8")) == client.notebook(session_id)

    def run(*arguments):
        command = [sys.executable, "-m", "carrel_cli", *arguments, "--data-dir", str(gateway.data_dir)]
        return subprocess.run(command, env=environment(), cwd=tmp_path, capture_output=True, text=True, timeout=110)

    found = run("search", "quok")
    assert (found.returncode, found.stdout) == (0, f"{session_id}  code: quokka = 'sdk'\n"), found.stderr
    exported = run("sessions", "export", session_id, "log.jsonl")
    assert exported.returncode == 0, exported.stderr
    assert "session.created" in (tmp_path / "log.jsonl").read_text("utf-8").splitlines()[0]
    with Client(gateway.url, gateway.key) as client:
        assert client.delete_session(session_id)["complete"]
