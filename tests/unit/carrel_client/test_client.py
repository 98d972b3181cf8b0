"""What the SDK makes of answers, with a transport in place of a server.

Plan: problems, other errors and refused connections become their exceptions; unknown members are ignored; a cut stream
is taken up at its last id, or where the run began, after pauses that grow and begin anew with every event, and the
message is not sent twice; a download is whole or not there; the key is in the header alone.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable

import httpx
import pytest

from carrel_client import ApiProblem, AsyncClient, Client, ConnectionFailed, Event, UnexpectedReply
from carrel_client._resume import LONGEST_PAUSE_SECONDS, PATIENCE_SECONDS, RunStream

SESSION = {
    "id": "0190",
    "title": "Sales",
    "status": "active",
    "model": "demo/analyst",
    "config": {},
    "last_seq": 1,
    "created_at": "2026-11-21T07:00:00Z",
    "updated_at": "2026-11-21T07:00:00+00:00",
    "a_member_of_tomorrow": 1,
}


def client(handler) -> Client:
    return Client("http://carrel.test", "crl_key", transport=httpx.MockTransport(handler))


def event(seq, kind, **payload):
    return f"id: {seq}\nevent: {kind}\ndata: {json.dumps({'seq': seq, 'type': kind, 'payload': payload})}\n\n".encode()


class CutStream(httpx.SyncByteStream, httpx.AsyncByteStream):
    def __init__(self, *chunks: bytes) -> None:
        self._chunks = chunks

    def __iter__(self):
        yield from self._chunks
        raise httpx.ReadError("connection reset")

    async def __aiter__(self):
        for chunk in self:
            yield chunk


class Face:
    """Streams a chat over one of the two faces, with the session at `last_seq` 1."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self.requests: list[httpx.Request] = []
        """All but the one for the session."""

    async def stream(self, handler: Callable[[int], httpx.Response]) -> list[int | None]:
        """Return the numbers of the events; the handler is called with the place of the request, from 1."""

        def answer(request: httpx.Request) -> httpx.Response:
            if request.url.path == "/api/sessions/0190":
                return httpx.Response(200, json=SESSION)
            self.requests.append(request)
            return handler(len(self.requests))

        if self._kind == "sync":
            with client(answer) as carrel:
                return [item.seq for item in carrel.stream_chat("0190", "hello")]
        async with AsyncClient("http://carrel.test", transport=httpx.MockTransport(answer)) as carrel:
            return [item.seq async for item in carrel.stream_chat("0190", "hello")]

    @property
    def resumed_at(self) -> list[str | None]:
        return [request.headers.get("Last-Event-ID") for request in self.requests]


@pytest.fixture(params=["sync", "async"])
def face(request: pytest.FixtureRequest) -> Face:
    return Face(request.param)


def cut(*chunks: bytes) -> httpx.Response:
    return httpx.Response(200, stream=CutStream(*chunks), headers={"Carrel-Run-Id": "R"})


def test_session_and_key():
    seen = []

    def handler(request):
        seen.append(request)
        return httpx.Response(201, json=SESSION)

    with client(handler) as carrel:
        session = carrel.create_session(title="Sales")
    assert (session.id, session.created_at.year) == ("0190", 2026)
    assert seen[0].headers["Authorization"] == "Bearer crl_key"
    assert "crl_key" not in str(seen[0].url)
    assert json.loads(seen[0].content) == {"title": "Sales"}


def test_problem():
    body = {"code": "busy", "detail": "a run is going on", "status": 409, "run_id": "7"}

    def handler(request):
        return httpx.Response(409, json=body, headers={"Retry-After": "3"})

    with client(handler) as carrel, pytest.raises(ApiProblem, match="a run is going on") as caught:
        carrel.chat("0190", "hello")
    assert (caught.value.status, caught.value.code, caught.value.retry_after) == (409, "busy", 3.0)
    assert caught.value.document["run_id"] == "7"


def test_a_message_that_may_wait():
    seen = []
    waits = {"id": "9", "content": "then this", "run_id": "R", "created_at": "2026-01-01T00:00:00Z"}

    def handler(request):
        seen.append((request.method, request.url.path, request.url.params.get("queue")))
        if request.url.path == "/api/sessions/0190":
            return httpx.Response(200, json=SESSION)
        if request.method == "GET":
            return httpx.Response(200, json={"items": [], "next_cursor": None, "queued": [waits]})
        if request.method == "DELETE":
            return httpx.Response(204)
        return httpx.Response(200, content=event(3, "run.finished", run_id="R"), headers={"Carrel-Run-Id": "R"})

    with client(handler) as carrel:
        assert [item.type for item in carrel.stream_chat("0190", "then this", queue=True)] == ["run.finished"]
        assert carrel.queued_messages("0190") == [waits]
        carrel.withdraw_message("0190", "9")
    assert seen[1:] == [
        ("POST", "/api/sessions/0190/chat/stream", "true"),
        ("GET", "/api/sessions/0190/messages", None),
        ("DELETE", "/api/sessions/0190/messages/9", None),
    ]


@pytest.mark.parametrize("body", ["<html>nginx</html>", "[]", '{"detail": "x"}'])
def test_errors_of_something_else(body):
    with client(lambda _: httpx.Response(502, text=body)) as carrel, pytest.raises(UnexpectedReply, match="502"):
        carrel.session("0190")


def test_success_of_something_else():
    with (
        client(lambda _: httpx.Response(200, text="<html>")) as carrel,
        pytest.raises(UnexpectedReply, match="not JSON"),
    ):
        carrel.session("0190")


def test_no_server():
    def handler(request):
        raise httpx.ConnectError("connection refused")

    with client(handler) as carrel, pytest.raises(ConnectionFailed, match=r"http://carrel\.test.*refused"):
        carrel.sessions()


async def test_cut_stream_is_taken_up_where_it_was(face):
    answers = [
        cut(event(5, "message.user"), event(6, "run.started"), b"id: 7\nevent: plan\nda"),
        cut(event(7, "plan")),
        httpx.Response(200, content=event(8, "run.finished", run_id="R", status="succeeded")),
    ]
    begun = time.monotonic()
    assert await face.stream(lambda place: answers[place - 1]) == [5, 6, 7, 8]
    assert time.monotonic() - begun >= 0.35  # two first pauses of 0.2 s
    assert [request.method for request in face.requests] == ["POST", "GET", "GET"]
    assert face.resumed_at == [None, "6", "7"]
    assert face.requests[1].url.params["run"] == "R"


async def test_stream_cut_before_its_first_event_begins_where_the_run_does(face):
    answers = [cut(), httpx.Response(200, content=event(2, "run.started") + event(3, "run.finished", run_id="R"))]
    assert await face.stream(lambda place: answers[place - 1]) == [2, 3]
    assert face.resumed_at == [None, "1"]


async def test_stream_outlives_the_restart_of_a_gateway(face, monkeypatch):
    monkeypatch.setattr("carrel_client._resume.FIRST_PAUSE_SECONDS", 0.001)
    monkeypatch.setattr("carrel_client._resume.LONGEST_PAUSE_SECONDS", 0.002)
    away = {"code": "shutting_down", "detail": "the gateway is stopping", "status": 503}

    def handler(place):
        match place:
            case 1:
                return cut(event(2, "run.started"))
            case 20:
                return httpx.Response(200, content=event(3, "run.finished", run_id="R"))
            case _ if place % 3 == 0:
                return httpx.Response(503, json=away)
            case _ if place % 3 == 1:
                return httpx.Response(502, text="<html>proxy</html>")
            case _:
                raise httpx.ConnectError("connection refused")

    assert await face.stream(handler) == [2, 3]
    assert set(face.resumed_at[1:]) == {"2"}


async def test_what_waiting_does_not_help_ends_a_stream(face):
    gone = httpx.Response(404, json={"code": "session_not_found", "detail": "deleted", "status": 404})
    with pytest.raises(ApiProblem, match="deleted"):
        await face.stream(lambda place: cut() if place == 1 else gone)
    assert len(face.requests) == 2


async def test_stream_that_never_began_is_not_sent_again(face):
    def handler(place):
        raise httpx.ReadError("reset")

    with pytest.raises(ConnectionFailed):
        await face.stream(handler)
    assert len(face.requests) == 1


def test_pauses_grow_to_a_bound_and_begin_anew_with_an_event():
    stream = RunStream("0190", "hello", 4, clock=lambda: 100.0)
    stream.call()
    stream.opened({"Carrel-Run-Id": "R"})
    for _ in range(2):
        stream.took(Event("plan", {}, seq=5))
        pauses = []
        while sum(pauses) < PATIENCE_SECONDS:
            pauses.append(stream.pause(ConnectionFailed("cut")))
        with pytest.raises(ConnectionFailed, match="again and again"):
            stream.pause(ConnectionFailed("cut"))
        assert pauses[:6] == [0.2, 0.4, 0.8, 1.6, 3.2, LONGEST_PAUSE_SECONDS]
        assert set(pauses[6:]) == {LONGEST_PAUSE_SECONDS}
    assert stream.call().headers["Last-Event-ID"] == "5"


def test_an_attempt_that_hangs_counts_and_a_silent_run_does_not():
    now = [100.0]
    stream = RunStream("0190", "hello", 4, clock=lambda: now[0])
    stream.call()
    stream.opened({"Carrel-Run-Id": "R"})
    now[0] += 10 * PATIENCE_SECONDS
    assert stream.pause(ConnectionFailed("cut")) == 0.2
    stream.call()
    now[0] += PATIENCE_SECONDS
    with pytest.raises(ConnectionFailed, match="again and again"):
        stream.pause(ConnectionFailed("timed out"))


def test_line_separators_inside_texts():
    content = event(1, "message.assistant", content="a\u2028b\u0085c").decode().encode()
    raw = content.replace(b"\\u2028", "\u2028".encode()).replace(b"\\u0085", "\u0085".encode())
    done = event(2, "run.finished", run_id="R")

    def handler(request):
        if request.method == "GET":
            return httpx.Response(200, json=SESSION)
        return httpx.Response(200, content=raw + done, headers={"Carrel-Run-Id": "R"})

    with client(handler) as carrel:
        first, _ = carrel.stream_chat("0190", "hello")
    assert first.payload == {"content": "a\u2028b\u0085c"}


def test_download_is_whole_or_not_there(tmp_path):
    target = tmp_path / "plots" / "sales.png"

    def handler(request):
        return httpx.Response(200, stream=CutStream(b"half"))

    with client(handler) as carrel, pytest.raises(ConnectionFailed):
        carrel.download("0190", target)
    assert list(target.parent.iterdir()) == []
    with client(lambda _: httpx.Response(200, content=b"whole")) as carrel:
        assert carrel.download("0190", target).read_bytes() == b"whole"


def test_upload_sends_names_and_contents_and_closes(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"1,2")
    (tmp_path / "b.csv").write_bytes(b"3,4")
    seen = []

    def handler(request):
        seen.append(request.read())
        return httpx.Response(201, json={"items": []})

    with client(handler) as carrel:
        assert carrel.upload("0190", [tmp_path / "a.csv", tmp_path / "b.csv"]) == []
    assert b'filename="a.csv"' in seen[0]
    assert b"3,4" in seen[0]


async def test_asynchronous_face():
    def handler(request):
        if request.url.path.endswith("/stream"):
            done = event(2, "run.finished", run_id="R")
            return httpx.Response(200, content=event(1, "plan") + done, headers={"Carrel-Run-Id": "R"})
        return httpx.Response(200, json=SESSION if request.url.path.endswith("/0190") else {"items": [SESSION]})

    async with AsyncClient("http://carrel.test", transport=httpx.MockTransport(handler)) as carrel:
        assert [session.title for session in await carrel.sessions()] == ["Sales"]
        assert [item.type async for item in carrel.stream_chat("0190", "hello")] == ["plan", "run.finished"]


def test_a_request_for_which_nothing_was_done_yet_is_sent_again(monkeypatch):
    sent, slept = [], []
    monkeypatch.setattr(time, "sleep", slept.append)
    execution = {
        "execution_id": "1",
        "status": "ok",
        "outputs": [],
        "execution_count": 1,
        "artifacts": [],
        "wall_seconds": 0.1,
    }

    def answer(request):
        sent.append(json.loads(request.content))
        if len(sent) < 3:
            body = {"status": "waking", "send_again": True}
            return httpx.Response(202, json=body, headers={"Retry-After": "2"} if len(sent) == 1 else {})
        return httpx.Response(200, json=execution)

    assert client(answer).execute("0190", "1 + 1").status == "ok"
    assert sent == [{"code": "1 + 1", "silent": False}] * 3
    assert slept == [2.0, 1.0]


def test_an_answer_that_leaves_nothing_to_be_done_is_the_answer():
    body = {"status": "waking", "send_again": False}
    assert client(lambda _: httpx.Response(202, json=body)).kernel("0190", "reset") == body


async def test_lists_are_read_to_their_end():
    item = {"id": "1", "name": "a.csv", "size": 1, "content_type": "text/csv"}

    def answer(request: httpx.Request) -> httpx.Response:
        cursor = request.url.params.get("cursor")
        following = {None: "one", "one": "two", "two": None}[cursor]
        return httpx.Response(200, json={"items": [{**item, "id": cursor or "none"}], "next_cursor": following})

    with client(answer) as carrel:
        assert [file.id for file in carrel.files("0190")] == ["none", "one", "two"]
    async with AsyncClient("http://carrel.test", transport=httpx.MockTransport(answer)) as carrel:
        assert [file.id for file in await carrel.artifacts("0190")] == ["none", "one", "two"]
