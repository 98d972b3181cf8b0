"""What the SDK makes of answers, with a transport in place of a server.

Plan: problems, other errors and refused connections become their exceptions; unknown members are ignored; a cut stream
is taken up at its last id and not asked twice; a download is whole or not there; the key is in the header alone.
"""

from __future__ import annotations

import json

import httpx
import pytest

from carrel_client import ApiProblem, AsyncClient, Client, ConnectionFailed, UnexpectedReply

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


class CutStream(httpx.SyncByteStream):
    def __init__(self, *chunks: bytes) -> None:
        self._chunks = chunks

    def __iter__(self):
        yield from self._chunks
        raise httpx.ReadError("connection reset")


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


def test_cut_stream_is_taken_up_where_it_was():
    requests = []

    def handler(request):
        requests.append(request)
        if len(requests) == 1:
            stream = CutStream(event(5, "message.user"), event(6, "run.started"), b"id: 7\nevent: plan\nda")
        elif len(requests) == 2:
            stream = CutStream(event(7, "plan"))
        else:
            return httpx.Response(200, content=event(8, "run.finished", run_id="R", status="succeeded"))
        return httpx.Response(200, stream=stream, headers={"Carrel-Run-Id": "R"})

    with client(handler) as carrel:
        events = list(carrel.stream_chat("0190", "hello"))
    assert [item.seq for item in events] == [5, 6, 7, 8]
    assert [request.method for request in requests] == ["POST", "GET", "GET"]
    assert [request.headers.get("Last-Event-ID") for request in requests] == [None, "6", "7"]
    assert requests[1].url.params["run"] == "R"


def test_stream_that_never_began_is_not_sent_again():
    requests = []

    def handler(request):
        requests.append(request)
        raise httpx.ReadError("reset")

    with client(handler) as carrel, pytest.raises(ConnectionFailed):
        list(carrel.stream_chat("0190", "hello"))
    assert len(requests) == 1


def test_line_separators_inside_texts():
    content = event(1, "message.assistant", content="a\u2028b\u0085c").decode().encode()
    raw = content.replace(b"\\u2028", "\u2028".encode()).replace(b"\\u0085", "\u0085".encode())
    done = event(2, "run.finished", run_id="R")

    def handler(request):
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
        return httpx.Response(200, json={"items": [SESSION]})

    async with AsyncClient("http://carrel.test", transport=httpx.MockTransport(handler)) as carrel:
        assert [session.title for session in await carrel.sessions()] == ["Sales"]
        assert [item.type async for item in carrel.stream_chat("0190", "hello")] == ["plan", "run.finished"]
