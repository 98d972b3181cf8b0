"""The main job over HTTP, with a real kernel host and the built-in analyst.

Plan: a question about an uploaded table, streamed and synchronous; events in order and without a gap; the answer's
number is the table's; artifacts of the run can be downloaded; the notebook is valid and runs from top to bottom; after
deletion nothing is left.
"""

from __future__ import annotations

from uuid import UUID

import nbformat
from nbclient import NotebookClient
from tests.support.serving import SALES, server_events

QUESTION = "What is the total of units per region? Show it as a plot."


def ask_streamed(api, session, question):
    with api.stream("POST", f"{session}/chat/stream", json={"message": question}) as response:
        assert response.status_code == 200, response.read()
        assert response.headers["content-type"].startswith("text/event-stream")
        run_id = response.headers["carrel-run-id"]
        return run_id, list(server_events(response))


def test_streamed_question(api, session, sales, tmp_path):
    before = api.get(session).json()["last_seq"]
    run_id, events = ask_streamed(api, session, QUESTION)
    committed = [event for event in events if not event.get("live")]
    assert [event["seq"] for event in committed] == list(range(before + 1, before + 1 + len(committed)))
    assert all(event["_id"] == str(event["seq"]) for event in committed)
    assert all(event["_id"] is None for event in events if event.get("live"))
    kinds = [event["type"] for event in committed]
    assert kinds[:2] == ["message.user", "run.started"]
    assert kinds[-1] == "run.finished"
    assert kinds.index("plan") < kinds.index("cell.intended") < kinds.index("message.assistant")
    assert committed[-1]["payload"] == {"run_id": run_id, "status": "succeeded"}
    answer = next(event["payload"]["content"] for event in committed if event["type"] == "message.assistant")
    north = sum(40 + 3 * month for month in range(1, 13))
    assert str(north) in answer.replace(",", "")
    cells = [event["payload"] for event in committed if event["type"] == "cell.finished"]
    assert cells
    assert cells[-1]["status"] == "ok"

    messages = api.get(f"{session}/messages").json()["items"]
    assert [(item["role"], item["run_id"]) for item in messages] == [("user", run_id), ("assistant", run_id)]
    assert messages[1]["content"] == answer

    pictures = [item for item in api.get(f"{session}/artifacts").json()["items"] if item["content_type"] == "image/png"]
    assert pictures
    for path in (f"/api/artifacts/{pictures[0]['id']}", f"{session}/artifacts/{pictures[0]['name']}"):
        picture = api.get(path)
        assert picture.content.startswith(b"\x89PNG")
        assert picture.headers["content-disposition"].startswith("inline")
        assert picture.headers["content-security-policy"].startswith("sandbox")

    runs_from_top_to_bottom(api, session, tmp_path)


def runs_from_top_to_bottom(api, session, folder):
    exported = api.get(f"{session}/notebook")
    assert exported.headers["content-disposition"].startswith("attachment")
    notebook = nbformat.reads(exported.text, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert code
    assert any(cell.outputs for cell in code)
    assert notebook.cells[0].source.startswith("## What is the total")
    (folder / "data").mkdir()
    (folder / "data" / "sales.csv").write_text(SALES)
    NotebookClient(notebook, timeout=90, resources={"metadata": {"path": str(folder)}}).execute()


def test_synchronous_question_and_a_second_turn(api, session, sales):
    first = api.post(f"{session}/chat", json={"message": "How many rows are there?"}).json()
    assert (first["status"], first["code"]) == ("succeeded", None)
    assert "36" in first["answer"]
    second = api.post(f"{session}/chat", json={"message": "What is the mean of price?"}).json()
    assert second["status"] == "succeeded"
    assert UUID(second["run_id"]) > UUID(first["run_id"])
    assert [item["role"] for item in api.get(f"{session}/messages").json()["items"]] == ["user", "assistant"] * 2


def test_question_without_data(api, session):
    result = api.post(f"{session}/chat", json={"message": "What is the mean of price?"}).json()
    assert result["status"] == "succeeded"
    assert result["answer"]


def test_deleted_session_is_gone(api, gateway, sales, session):
    assert api.post(f"{session}/kernel/execute", json={"code": "1"}).status_code == 200
    deleted = api.delete(session)
    assert (deleted.status_code, deleted.json()["complete"]) == (200, True)
    assert deleted.json()["rows"]["events"] > 0
    for path in ("", "/messages", "/files", "/events", "/kernel", "/notebook", "/config", "/artifacts"):
        assert api.get(session + path).json()["code"] == "session_not_found"
    assert api.get(f"/api/artifacts/{sales['id']}").json()["code"] == "artifact_not_found"


def test_archived_session_is_read_only(api, session, sales):
    assert api.post(f"{session}/archive").json()["status"] == "archived"
    for refused in (
        api.post(f"{session}/chat", json={"message": "hello"}),
        api.post(f"{session}/kernel/execute", json={"code": "1"}),
        api.post(f"{session}/files", files={"file": ("b.csv", b"1")}),
        api.delete(f"{session}/files/sales.csv"),
        api.post(f"{session}/notebook/sync", json={"notebook": {"nbformat": 4, "cells": []}}),
    ):
        assert (refused.status_code, refused.json()["code"]) == (409, "archived")
    assert api.get(f"{session}/files/sales.csv").text == SALES
    listed = api.get("/api/sessions", params={"status": "archived"}).json()["items"]
    assert session.rsplit("/", 1)[1] in [item["id"] for item in listed]


def test_list_pages_by_cursor(api):
    made = [api.post("/api/sessions", json={"title": f"page {number}"}).json()["id"] for number in range(5)]
    seen, cursor = [], None
    while True:
        page = api.get("/api/sessions", params={"limit": 2, **({"cursor": cursor} if cursor else {})}).json()
        assert len(page["items"]) <= 2
        seen += [item["id"] for item in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert len(seen) == len(set(seen))
    assert [item for item in seen if item in made] == made[::-1]
    for session_id in made:
        api.delete(f"/api/sessions/{session_id}")


def test_configuration(api, session):
    before = api.get(f"{session}/config").json()
    assert before["model"] == "demo/analyst"
    changed = api.put(f"{session}/config", json={"max_steps": 5, "timeout_seconds": 10_000}).json()
    assert changed == {**before, "max_steps": 5}  # never beyond the settings
    assert api.post(f"{session}/reload").json() == changed
    assert api.put(f"{session}/config", json={"max_steps": None}).json()["max_steps"] == before["max_steps"]
    assert api.put(session, json={"title": "Renamed"}).json()["title"] == "Renamed"
