"""Suspend, resume and fork as a caller meets them: over HTTP, with the SDK and the command line.

Plan
- The way of one session: state, suspended, seen as such, resumed by running code and by name, forked, its log.
- Refusals are problems with their codes and statuses.
- The command line does the same, and prints what is lost.
"""

from __future__ import annotations

import os
import subprocess
import sys

from tests.support.serving import environment

from carrel_client import Client


def run(api, session, code):
    done = api.post(f"{session}/kernel/execute", json={"code": code}).json()
    assert done["status"] == "ok", done
    return "".join(output.get("text", "") for output in done["outputs"])


def test_state_outlives_its_kernel(api, session):
    refused = api.post(f"{session}/suspend")
    assert (refused.status_code, refused.json()["code"]) == (409, "no_kernel")
    refused = api.post(f"{session}/resume")
    assert (refused.status_code, refused.json()["code"]) == (409, "not_suspended")
    run(api, session, "x = 41\nlines = (n for n in range(3))\nopen('made.txt', 'w').write('made')")
    suspended = api.post(f"{session}/suspend")
    assert suspended.status_code == 200, suspended.text
    snapshot = suspended.json()["snapshot"]
    assert (snapshot["variables"], snapshot["files"]) == (["x"], ["made.txt"])
    assert snapshot["not_saved"] == [{"name": "lines", "type": "generator", "reason": "a generator cannot be saved"}]
    assert api.get(session).json()["suspended_at"]
    assert api.get(f"{session}/kernel").json()["status"] == "suspended"
    assert api.post(f"{session}/suspend").json() == suspended.json()
    assert run(api, session, "x += 1; print(x, open('made.txt').read())") == "42 made\n"
    assert api.get(session).json()["suspended_at"] is None
    api.post(f"{session}/suspend")
    resumed = api.post(f"{session}/resume")
    assert resumed.status_code == 200, resumed.text
    assert (resumed.json()["variables"], resumed.json()["files"]) == (1, 1)
    assert [item["name"] for item in resumed.json()["not_restored"]] == []  # it was not there any more
    forked = api.post(f"{session}/fork", json={"title": "Another"})
    assert forked.status_code == 201, forked.text
    fork = f"/api/sessions/{forked.json()['session']['id']}"
    assert f"/api/sessions/{forked.json()['session']['forked_from']}" == session
    assert run(api, fork, "x = 0; print(x)") == "0\n"
    assert run(api, session, "print(x)") == "42\n"
    types = [event["type"] for event in api.get(f"{session}/events").json()["items"]]
    assert [name for name in types if name in ("session.suspended", "session.resumed")] == [
        *("session.suspended", "session.resumed") * 2
    ]
    assert "session.forked" in [event["type"] for event in api.get(f"{fork}/events").json()["items"]]
    api.delete(fork)
    assert api.post(f"{fork}/suspend").status_code == 404


def test_the_command_line(gateway, tmp_path):
    def carrel(*arguments):
        return subprocess.run(
            [sys.executable, "-m", "carrel_cli", "sessions", *arguments, "--server", gateway.url],
            cwd=tmp_path,
            env={**environment(), "CARREL_API_KEY": gateway.key, "PATH": os.environ["PATH"]},
            capture_output=True,
            text=True,
            timeout=110,
        )

    with Client(gateway.url, gateway.key) as client:
        session = client.create_session(title="From the shell")
        client.execute(session.id, "x = 1\nlock = __import__('threading').Lock()")
        suspended = carrel("suspend", session.id)
        assert suspended.returncode == 0, suspended.stderr
        assert suspended.stdout.splitlines() == [
            "1 variables and 0 files saved",
            "not saved: lock: TypeError: cannot pickle '_thread.lock' object",
        ]
        assert client.session(session.id).suspended_at
        assert "suspended" in carrel("list").stdout
        resumed = carrel("resume", session.id)
        assert resumed.stdout.splitlines()[0] == "1 variables and 0 files back", resumed.stderr
        forked = carrel("fork", session.id, "--title", "Second")
        fork = client.session(forked.stdout.strip())
        assert (fork.title, fork.forked_from) == ("Second", session.id)
        assert client.execute(fork.id, "print(x)").text == "1\n"
        again = carrel("resume", "00000000-0000-0000-0000-000000000000")
        assert again.returncode == 1
        assert "no such session" in again.stderr
        for made in (session.id, fork.id):
            client.delete_session(made)
