"""Streams of events: gapless, resumable, and of no consequence to the run when they are cut.

Plan: a stream cut in the middle goes on after its last id; who goes away does not stop their run; chat/stream with
Last-Event-ID sends nothing; long poll; the WebSocket with key as subprotocol and as header, and its refusals.
"""

from __future__ import annotations

import json
import logging
import threading
import time

import pytest
from tests.support.serving import server_events, until
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

QUESTION = {"message": "What is the total of units per region?"}


def finished(api, session):
    return [event for event in api.get(f"{session}/events").json()["items"] if event["type"] == "run.finished"]


def committed(events):
    return [event for event in events if not event.get("live")]


def test_output_is_shown_once_while_it_comes(api, session, sales):
    with api.stream("POST", f"{session}/chat/stream", json=QUESTION) as response:
        run_id = response.headers["carrel-run-id"]
        events = list(server_events(response))
    shown = [event["payload"] for event in events if event.get("live") and event["type"] == "output"]
    assert {payload["run_id"] for payload in shown} == {run_id}
    numbers = [(payload["execution_id"], payload["event"]["n"]) for payload in shown]
    assert len(set(numbers)) == len(numbers) > 0
    cells = {event["payload"]["execution_id"] for event in events if event["type"] == "cell.finished"}
    assert {execution for execution, _ in numbers} <= cells


def test_cut_stream_goes_on_without_a_gap(api, session, sales):
    seen = []
    with api.stream("POST", f"{session}/chat/stream", json=QUESTION) as response:
        run_id = response.headers["carrel-run-id"]
        for event in server_events(response):
            if not event.get("live"):
                seen.append(event)
            if event["type"] == "cell.intended":
                break  # gone, in the middle of a run
    headers = {"Accept": "text/event-stream", "Last-Event-ID": seen[-1]["_id"]}
    with api.stream("GET", f"{session}/events", params={"run": run_id}, headers=headers) as response:
        rest = committed(server_events(response))
    numbers = [event["seq"] for event in seen + rest]
    assert numbers == list(range(numbers[0], numbers[-1] + 1))
    assert rest[-1]["type"] == "run.finished"
    assert rest[-1]["payload"]["status"] == "succeeded"


def test_chat_stream_with_an_id_sends_nothing(api, session, sales):
    with api.stream("POST", f"{session}/chat/stream", json=QUESTION) as response:
        first = committed(server_events(response))
    with api.stream("POST", f"{session}/chat/stream", headers={"Last-Event-ID": first[1]["_id"]}) as response:
        assert committed(server_events(response)) == first[2:]
    assert len(finished(api, session)) == 1
    after = api.post(f"{session}/chat/stream", headers={"Last-Event-ID": first[-1]["_id"]})
    assert after.status_code == 204


def test_a_caller_that_goes_away_does_not_stop_its_run(api, session, sales):
    with api.stream("POST", f"{session}/chat/stream", json=QUESTION):
        pass
    until(lambda: finished(api, session))
    assert finished(api, session)[0]["payload"]["status"] == "succeeded"


def test_long_poll(api, gateway, session):
    last = api.get(session).json()["last_seq"]
    started = time.monotonic()
    nothing = api.get(f"{session}/events", params={"after": last, "wait": 0.3}).json()
    assert (nothing["items"], nothing["last_seq"]) == ([], last)
    assert time.monotonic() - started >= 0.3
    found = []

    def poll():
        with gateway.client() as other:
            found.extend(other.get(f"{session}/events", params={"after": last, "wait": 30}).json()["items"])

    waiting = threading.Thread(target=poll)
    waiting.start()
    api.put(session, json={"title": "Renamed"})
    waiting.join(30)
    assert [event["type"] for event in found] == ["session.changed"]


def test_every_event_is_read_in_pages(api, session, sales):
    api.post(f"{session}/chat", json=QUESTION)
    whole = api.get(f"{session}/events", params={"limit": 1000}).json()["items"]
    paged, after = [], 0
    while items := api.get(f"{session}/events", params={"after": after, "limit": 3}).json()["items"]:
        paged += items
        after = items[-1]["seq"]
    assert paged == whole
    assert [event["seq"] for event in whole] == list(range(1, len(whole) + 1))


def address(gateway, session):
    return f"{gateway.url.replace('http', 'ws', 1)}/ws/chat/{session.rsplit('/', 1)[1]}"


def take(socket, kind):
    while True:
        event = json.loads(socket.recv(timeout=60))
        if event["type"] == kind:
            return event


def offer(api):
    return ["carrel.v1", f"carrel.ticket.{api.post('/api/tickets').json()['ticket']}"]


def test_websocket_conversation(api, gateway, session, sales):
    protocols = offer(api)
    with connect(address(gateway, session), subprotocols=protocols) as socket:
        assert socket.subprotocol == "carrel.v1"
        keyed = json.dumps({"type": "message", "idempotency_key": "mine", **QUESTION})
        socket.send(keyed)
        assert take(socket, "message.user")["payload"]["content"] == QUESTION["message"]
        last = take(socket, "run.finished")
        socket.send(keyed)  # the same run, and so nothing new
        socket.send(json.dumps({"type": "message", "idempotency_key": "mine", "message": "Something else?"}))
        assert take(socket, "problem")["code"] == "idempotency_key_reused"
        assert last["payload"]["status"] == "succeeded"
        socket.send("not json")
        assert take(socket, "problem")["code"] == "invalid_json"
        socket.send(json.dumps({"type": "dance"}))
        assert take(socket, "problem")["code"] == "unknown_frame"
        for frame in ({"type": "message", "message": ""}, {"type": "cancel", "run_id": "x"}):
            socket.send(json.dumps(frame))
            assert take(socket, "problem")["code"] == "validation_failed"
    headers = {"Authorization": f"Bearer {gateway.key}"}
    with connect(f"{address(gateway, session)}?after=0", additional_headers=headers) as socket:
        assert json.loads(socket.recv(timeout=60))["seq"] == 1
        assert take(socket, "run.finished")["seq"] == last["seq"]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"subprotocols": ["carrel.v1", "carrel.ticket.wrong"]},
        {"additional_headers": {"Authorization": "Bearer wrong"}},
    ],
)
def test_websocket_wants_a_key(gateway, session, options):
    with pytest.raises(InvalidStatus, match="403"):
        connect(address(gateway, session), **options)


def test_websocket_of_a_foreign_page(api, gateway, session):
    protocols = offer(api)
    with pytest.raises(InvalidStatus, match="403"):
        connect(address(gateway, session), subprotocols=protocols, origin="http://evil.example")


def test_websocket_of_an_unknown_session(gateway):
    url = f"{gateway.url.replace('http', 'ws', 1)}/ws/chat/0190aaaa-bbbb-7ccc-8ddd-eeeeeeeeeeee"
    with connect(url, additional_headers={"Authorization": f"Bearer {gateway.key}"}) as socket:
        assert json.loads(socket.recv(timeout=60))["code"] == "session_not_found"
        with pytest.raises(ConnectionClosed) as closed:
            socket.recv(timeout=60)
    assert closed.value.rcvd.code == 4404


def test_an_idle_websocket_is_pinged(gateway, session):
    pinged = threading.Event()

    class Ears(logging.Handler):
        def emit(self, record):
            if "PING" in record.getMessage():
                pinged.set()

    ears = logging.getLogger("tests.frames")
    ears.setLevel(logging.DEBUG)
    ears.addHandler(Ears())
    headers = {"Authorization": f"Bearer {gateway.key}"}
    with connect(address(gateway, session), additional_headers=headers, logger=ears, ping_interval=None):
        began = time.monotonic()
        assert pinged.wait(60)
        assert time.monotonic() - began > 10
