"""Runs outlive requests and gateways.

Plan: cancel during a cell; a gateway killed in the middle of a run, and one that is stopped in peace: the next one goes
on from the log, no cell runs twice, the run succeeds. The model is `demo/analyst`; a cell is made long by a kernel that
is busy when the run begins.
"""

from __future__ import annotations

import signal
import threading

import httpx
import pytest
from tests.support.serving import SALES, gateway, start, until

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


def test_cancel_during_a_cell(tmp_path):
    with gateway(tmp_path / "data") as running, running.client() as api:
        session = opened(api)
        worker = occupy(running, session)
        run_id = ask_and_leave(api, session)
        asked = api.post(f"{session}/cancel")
        assert (asked.status_code, asked.json()) == (202, {"run_id": run_id})
        until(lambda: of_type(api, session, "run.finished"))
        worker.join(60)
        (end,) = of_type(api, session, "run.finished")
        assert (end["status"], end["code"]) == ("cancelled", "cancelled")
        again = api.post(f"{session}/chat", json=QUESTION).json()
        assert again["status"] == "succeeded"


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_the_next_gateway_goes_on(tmp_path, how):
    first = start(tmp_path / "data", CARREL_RUN_LEASE_SECONDS="2")
    with first.client() as api:
        session = opened(api)
        worker = occupy(first, session)
        run_id = ask_and_leave(api, session)
    first.stop(how)
    worker.join(60)
    with gateway(tmp_path / "data", CARREL_RUN_LEASE_SECONDS="2") as second, second.client() as api:
        until(lambda: of_type(api, session, "run.taken_over"))
        api.post(f"{session}/kernel/interrupt")
        until(lambda: of_type(api, session, "run.finished"))
        (end,) = of_type(api, session, "run.finished")
        assert (end["run_id"], end["status"]) == (run_id, "succeeded")
        intended = [payload["execution_id"] for payload in of_type(api, session, "cell.intended")]
        assert len(intended) == len(set(intended))
        numbers = [event["seq"] for event in events(api, session)]
        assert numbers == list(range(1, len(numbers) + 1))
        assert len(of_type(api, session, "message.assistant")) == 1
