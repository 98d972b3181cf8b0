"""Code in the session's kernel over HTTP.

Plan: JSON, NDJSON and SSE tell the same; state stays between calls; the same id never runs twice; interrupt, restart,
reset, complete, variables; files that code makes; a busy kernel says so; the SDK tells a result or an error.
"""

from __future__ import annotations

import json
import threading
from uuid import uuid4

from tests.support.serving import server_events, until

from carrel_client import Client

DEADLINE_SECONDS = 60


def execute(api, session, code, **body):
    response = api.post(f"{session}/kernel/execute", json={"code": code, **body})
    assert response.status_code == 200, response.text
    return response.json()


def test_json(api, session):
    done = execute(api, session, "print('hello')\nx = 20 + 1\nx * 2")
    assert (done["status"], done["message"], done["lost_state"]) == ("ok", None, False)
    assert [output["output_type"] for output in done["outputs"]] == ["stream", "execute_result"]
    assert done["outputs"][1]["data"]["text/plain"] == "42"
    assert execute(api, session, "x")["outputs"][0]["data"]["text/plain"] == "21"


def test_the_sdk_tells_result_and_error(gateway, session):
    session_id = session.rpartition("/")[2]
    with Client(gateway.url, gateway.key) as carrel:
        ran = carrel.execute(session_id, "print('hello')\n6 * 7")
        assert (ran.result, ran.error, ran.text) == ("42", None, "hello\n42")
        failed = carrel.execute(session_id, "1 / 0")
        assert (failed.result, failed.error) == (None, "ZeroDivisionError: division by zero")
        late = carrel.execute(session_id, "while True: pass", timeout_seconds=0.5)
        assert late.error
        assert late.error.startswith("KeyboardInterrupt")
        died = carrel.execute(session_id, "import os; os._exit(3)")
        assert (died.result, died.error) == (None, "the kernel ended with code 3")


def test_streams_tell_the_same(api, session):
    with api.stream(
        "POST", f"{session}/kernel/execute", json={"code": "print('a')"}, headers={"Accept": "application/x-ndjson"}
    ) as response:
        assert response.headers["content-type"] == "application/x-ndjson"
        lines = [json.loads(line) for line in response.iter_lines()]
    execution_id = str(uuid4())
    with api.stream(
        "POST",
        f"{session}/kernel/execute",
        json={"code": "print('a')", "execution_id": execution_id},
        headers={"Accept": "text/event-stream"},
    ) as response:
        events = list(server_events(response))
    kinds = ["started", "stdout", "finished"]
    assert [line["type"] for line in lines] == [event["type"] for event in events] == kinds
    assert [event["_id"] for event in events] == [f"{execution_id}.{number}" for number in (1, 2, 3)]
    assert lines[1]["text"] == events[1]["text"] == "a\n"


def test_an_error_is_an_outcome(api, session):
    done = execute(api, session, "1 / 0")
    assert done["status"] == "error"
    assert done["outputs"][0]["ename"] == "ZeroDivisionError"


def test_the_same_id_never_runs_twice(api, session):
    execution_id = str(uuid4())
    code = "runs = globals().get('runs', 0) + 1\nprint(runs)"
    first = execute(api, session, code, execution_id=execution_id)
    again = execute(api, session, code, execution_id=execution_id)
    assert first["outputs"] == again["outputs"]
    keyed = [
        api.post(f"{session}/kernel/execute", json={"code": code}, headers={"Idempotency-Key": "once"}).json()
        for _ in range(2)
    ]
    assert keyed[0]["execution_id"] == keyed[1]["execution_id"]
    assert execute(api, session, "runs")["outputs"][0]["data"]["text/plain"] == "2"


def test_timeout(api, session):
    done = execute(api, session, "import time\ntime.sleep(60)", timeout_seconds=0.5)
    assert done["status"] == "timeout"


def test_interrupt_and_busy(api, session):
    execute(api, session, "kept = 7")
    results = []
    worker = threading.Thread(target=lambda: results.append(execute(api, session, "import time\ntime.sleep(60)")))
    worker.start()
    until(lambda: api.get(f"{session}/kernel").json()["status"] == "busy")
    busy = api.get(f"{session}/kernel/variables")
    assert (busy.status_code, busy.json()["code"]) == (409, "kernel_busy")
    assert api.post(f"{session}/kernel/interrupt").json()["was_busy"] is True
    worker.join(DEADLINE_SECONDS)
    assert results[0]["status"] == "interrupted"
    assert execute(api, session, "kept")["outputs"][0]["data"]["text/plain"] == "7"


def test_variables_and_completion(api, session):
    execute(api, session, "import pandas as pd\ntable = pd.DataFrame({'a': [1, 2]})\ntext = 'x'")
    found = {item["name"]: item for item in api.get(f"{session}/kernel/variables").json()["variables"]}
    assert set(found) == {"table", "text"}
    assert found["table"]["shape"] == [2, 1]
    done = api.post(f"{session}/kernel/complete", json={"code": "tab", "cursor_pos": 3}).json()
    assert "table" in done["matches"]


def test_restart_and_reset(api, session, sales):
    execute(api, session, "x = 1\nopen('made.txt', 'w').write('x')")
    assert api.post(f"{session}/kernel/restart").status_code == 200
    assert execute(api, session, "x")["status"] == "error"
    assert execute(api, session, "open('made.txt').read()")["status"] == "ok"
    assert api.post(f"{session}/kernel/reset").status_code == 200
    assert execute(api, session, "open('made.txt').read()")["status"] == "error"
    assert execute(api, session, "open('data/sales.csv').readline()")["status"] == "ok"
    changes = [
        event["payload"]["reason"]
        for event in api.get(f"{session}/events").json()["items"]
        if event["type"] == "kernel.changed"
    ]
    assert "restarted" in changes
    assert "reset" in changes


def test_files_that_code_makes(api, session):
    done = execute(
        api, session, "open('a b/../report.html', 'w') if False else open('report.html', 'w').write('<script>')"
    )
    assert [item["path"] for item in done["artifacts"]] == ["report.html"]
    (artifact,) = api.get(f"{session}/artifacts").json()["items"]
    assert (artifact["name"], artifact["category"]) == ("report.html", "artifacts")
    answer = api.get(f"{session}/artifacts/report.html")
    assert answer.text == "<script>"
    assert answer.headers["content-disposition"].startswith("attachment")
    assert answer.headers["content-security-policy"].startswith("sandbox; default-src 'none'")
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_a_caller_that_goes_away_stops_nothing(api, session):
    with api.stream(
        "POST",
        f"{session}/kernel/execute",
        json={"code": "import time\nprint('begun', flush=True)\ntime.sleep(1)\nprint('ended')"},
        headers={"Accept": "application/x-ndjson"},
    ) as response:
        for line in response.iter_lines():
            if json.loads(line)["type"] == "stdout":
                break

    def ended():
        return [
            event["payload"]["status"]
            for event in api.get(f"{session}/events").json()["items"]
            if event["type"] == "cell.finished"
        ]

    until(ended)
    assert ended() == ["ok"]
