"""Runs outlive requests and gateways.

Plan: cancel during a cell; a gateway killed in the middle of a run, and one that is stopped in peace: the next one goes
on from the log, no cell runs twice, the run succeeds, and so does the message that waited for its end. What waits is
seen, and withdrawn, or has its turn after a cancel; over HTTP and over a WebSocket. The model is `demo/analyst`; a cell
is made long by a kernel that is busy when the run begins.
"""

from __future__ import annotations

import json
import signal
import threading

import httpx
import pytest
from tests.support.serving import SALES, gateway, server_events, start, until
from websockets.sync.client import connect

QUESTION = {"message": "What is the total of units per region?"}
SLEEP = "import time\nfor _ in range(600):\n    time.sleep(0.1)"


def events(api, session):
    return api.get(f"{session}/events", params={"limit": 1000}).json()["items"]


def of_type(api, session, kind):
    return [event["payload"] for event in events(api, session) if event["type"] == kind]


def opened(api):
    session = f"/api/sessions/{api.post('/api/sessions', json={}).json()['id']}"
    api.post(f"{session}/files", files={"file": ("sales.csv", SALES.encode(), "text/csv")})
    return session


def occupy(running, session):
    """Make the kernel busy, so that the run's first cell waits for as long as it takes."""

    def work():
        with running.client() as client:
            try:
                client.post(f"{session}/kernel/execute", json={"code": SLEEP, "timeout_seconds": 60})
            except httpx.TransportError:
                return  # its gateway was killed, as the test wants

    worker = threading.Thread(target=work)
    worker.start()
    with running.client() as client:
        until(lambda: client.get(f"{session}/kernel").json()["status"] == "busy")
    return worker


def ask_and_leave(api, session):
    with api.stream("POST", f"{session}/chat/stream", json=QUESTION) as response:
        run_id = response.headers["carrel-run-id"]
    until(lambda: of_type(api, session, "cell.intended"))
    return run_id


def queue_and_leave(api, session, key):
    """Send a message that waits, and go when it is said to wait."""
    headers = {"Idempotency-Key": key}
    with api.stream("POST", f"{session}/chat/stream?queue=true", json=QUESTION, headers=headers) as response:
        assert next(server_events(response))["type"] == "message.queued"
        return response.headers["carrel-run-id"]


def queued(api, session):
    return api.get(f"{session}/messages").json()["queued"]


def test_cancel_during_a_cell(tmp_path):
    with gateway(tmp_path / "data") as running, running.client() as api:
        session = opened(api)
        worker = occupy(running, session)
        run_id = ask_and_leave(api, session)
        refused = api.post(f"{session}/chat", json=QUESTION)
        assert (refused.status_code, refused.json()["code"], refused.json()["run_id"]) == (409, "busy", run_id)
        withdrawn, waiting = (queue_and_leave(api, session, key) for key in "ab")
        with connect(f"{running.url.replace('http', 'ws', 1)}/ws/chat/{session.rsplit('/', 1)[1]}",
                     additional_headers={"Authorization": f"Bearer {running.key}"}) as socket:  # fmt: skip
            socket.send(json.dumps({"type": "message", "message": "Over the socket?", "queue": True}))
            until(lambda: len(queued(api, session)) == 3)
        first, second, third = queued(api, session)
        assert (first["run_id"], second["run_id"], third["content"]) == (withdrawn, waiting, "Over the socket?")
        for message in (first, third):
            for _ in range(2):
                key = {"Idempotency-Key": message["id"]}
                assert api.delete(f"{session}/messages/{message['id']}", headers=key).status_code == 204
        assert api.post(f"{session}/cancel", params={"run": waiting}).json() == {"run_id": None}
        asked = api.post(f"{session}/cancel", params={"run": run_id})
        assert (asked.status_code, asked.json()) == (202, {"run_id": run_id})
        again = api.post(f"{session}/chat?queue=true", json=QUESTION, headers={"Idempotency-Key": "b"}).json()
        worker.join(60)
        assert (again["run_id"], again["status"]) == (waiting, "succeeded")
        ends = [(end["run_id"], end["status"], end.get("code")) for end in of_type(api, session, "run.finished")]
        assert ends == [
            (withdrawn, "cancelled", "withdrawn"),
            (third["run_id"], "cancelled", "withdrawn"),
            (run_id, "cancelled", "cancelled"),
            (waiting, "succeeded", None),
        ]
        begun = api.delete(f"{session}/messages/{second['id']}")
        assert (begun.status_code, begun.json()["code"]) == (409, "not_queued")
        gone = api.post(f"{session}/chat", json=QUESTION, headers={"Idempotency-Key": "a"}).json()
        assert (gone["run_id"], gone["status"], gone["code"]) == (withdrawn, "cancelled", "withdrawn")


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_the_next_gateway_goes_on(tmp_path, how):
    first = start(tmp_path / "data", CARREL_RUN_LEASE_SECONDS="2")
    with first.client() as api:
        session = opened(api)
        worker = occupy(first, session)
        run_id = ask_and_leave(api, session)
        waiting = queue_and_leave(api, session, "waits")
    first.stop(how)
    worker.join(60)
    with gateway(tmp_path / "data", CARREL_RUN_LEASE_SECONDS="2") as second, second.client() as api:
        until(lambda: of_type(api, session, "run.taken_over"))
        assert [message["run_id"] for message in queued(api, session)] == [waiting]
        api.post(f"{session}/kernel/interrupt")
        answer = api.post(f"{session}/chat?queue=true", json=QUESTION, headers={"Idempotency-Key": "waits"}).json()
        assert (answer["run_id"], answer["status"]) == (waiting, "succeeded")
        ends = [(end["run_id"], end["status"]) for end in of_type(api, session, "run.finished")]
        assert ends == [(run_id, "succeeded"), (waiting, "succeeded")]
        intended = [payload["execution_id"] for payload in of_type(api, session, "cell.intended")]
        assert len(intended) == len(set(intended))
        numbers = [event["seq"] for event in events(api, session)]
        assert numbers == list(range(1, len(numbers) + 1))
        assert len(of_type(api, session, "message.assistant")) == 2
        assert queued(api, session) == []
