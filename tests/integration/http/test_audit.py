"""The audit log over HTTP and on the command line.

Plan: what was done is listed by filters and pages, exported as lines, and looked along; what is asked wrongly is
said; the command prints a head, takes it back, and fails with another one.
"""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from tests.support.serving import environment


@pytest.fixture
def deleted(api):
    session_id = api.post("/api/sessions", json={"title": "x"}).json()["id"]
    api.post(f"/api/sessions/{session_id}/archive")
    assert api.delete(f"/api/sessions/{session_id}").status_code == 200
    return session_id


def test_list_export_and_verify(api, deleted):
    (removed,) = api.get("/api/audit", params={"target": deleted, "action": "session.removed"}).json()["items"]
    assert removed["detail"]["rows"]["events"] == 2
    page = api.get("/api/audit", params={"target": deleted, "limit": 2}).json()
    assert page["items"][0] == removed
    newest = page["items"][1]
    assert (newest["action"], newest["target"]) == ("session.deleted", deleted)
    assert newest["detail"] == {"owner": newest["actor"]}
    (before,) = api.get("/api/audit", params={"target": deleted, "cursor": page["next_cursor"]}).json()["items"]
    assert before["action"] == "session.archived"
    since = api.get("/api/audit", params={"since": newest["at"], "action": "session.deleted"}).json()["items"]
    assert [item["seq"] for item in since] == [newest["seq"]]
    exported = api.get("/api/audit/export", params={"target": deleted})
    assert exported.headers["content-type"] == "application/x-ndjson"
    lines = [json.loads(line) for line in exported.text.splitlines()]
    assert [line["digest"] for line in lines] == [before["digest"], newest["digest"], removed["digest"]]
    verdict = api.get("/api/audit/verify").json()
    assert verdict["valid"]
    noted = {"seq": newest["seq"], "digest": newest["digest"]}
    assert api.get("/api/audit/verify", params=noted).json()["valid"]
    other = api.get("/api/audit/verify", params={**noted, "digest": "0" * 64}).json()
    assert other["problem"] == f"entry {newest['seq']} is not the one that is known"


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/api/audit?cursor=x", 400, "invalid_cursor"),
        ("/api/audit?since=2026-01-01T00:00:00", 422, "validation_failed"),
        ("/api/audit?since=0001-01-01T00:00:00%2B10:00", 400, "invalid_input"),
        ("/api/audit?actor=me", 422, "validation_failed"),
        ("/api/audit/verify?seq=1", 400, "invalid_input"),
        ("/api/audit/verify?seq=1&digest=x", 422, "validation_failed"),
    ],
)
def test_refusals(api, path, status, code):
    response = api.get(path)
    assert (response.status_code, response.json()["code"]) == (status, code)


def verify(folder, *arguments):
    command = [sys.executable, "-m", "carrel_cli", "audit", "verify", "--data-dir", str(folder), *arguments]
    return subprocess.run(command, env=environment(), cwd=folder.parent, capture_output=True, text=True, timeout=110)


def test_the_command(gateway, deleted):
    done = verify(gateway.data_dir)
    assert done.returncode == 0, done.stderr
    assert verify(gateway.data_dir, "--head", done.stdout.split()[-1]).returncode == 0
    assert verify(gateway.data_dir, "--head", "three").returncode == 2
    found = verify(gateway.data_dir, "--head", f"1:{'0' * 64}")
    assert found.returncode == 1
    assert "entry 1 is not the one that is known" in found.stderr
