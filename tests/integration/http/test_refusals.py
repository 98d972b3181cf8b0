"""Everything that can be sent wrong, and the exact problem that comes back.

Plan: one table of requests with status, code and message; each answer is a problem with the request's id; the gateway
and the session work as before afterwards. Requests that name a session use one with a file.
"""

# ruff: noqa: E501 - one case is one row of the table
from __future__ import annotations

import threading
from uuid import uuid4

import pytest
from tests.support.serving import until

UNKNOWN = "0190aaaa-bbbb-7ccc-8ddd-eeeeeeeeeeee"
OVER = b"0" * 2_000_001  # the fixture's limit is 2,000,000 bytes
JSON = {"Content-Type": "application/json"}
FORM = {"Content-Type": "multipart/form-data; boundary=b"}


def upload(name, content=b"a,b\n1,2\n"):
    return {"files": {"file": (name, content, "text/csv")}}


def form(body):
    return {"content": body, "headers": FORM}


NAME = "the file name "
CASES = [
    # sessions
    ("unknown session", "GET", f"/api/sessions/{UNKNOWN}", {}, 404, "session_not_found", "there is no such session"),
    ("bad uuid", "GET", "/api/sessions/42", {}, 422, "validation_failed", "session_id: this must be a UUID"),
    ("unknown field", "POST", "/api/sessions", {"json": {"titel": "x"}}, 422, "validation_failed", "titel: there is no such field"),
    ("empty title", "POST", "/api/sessions", {"json": {"title": "  "}}, 422, "validation_failed", "title: String should have at least 1 character"),
    ("long title", "POST", "/api/sessions", {"json": {"title": "x" * 201}}, 422, "validation_failed", "title: String should have at most 200 characters"),
    ("unknown model", "POST", "/api/sessions", {"json": {"model": "gpt-9"}}, 400, "invalid_input", "No model is called 'gpt-9' here; there are: demo/analyst."),
    ("model with an address", "POST", "/api/sessions", {"json": {"api_base": "http://127.0.0.1:9/"}}, 422, "validation_failed", "api_base: there is no such field"),
    ("config out of bounds", "POST", "/api/sessions", {"json": {"config": {"max_steps": 0}}}, 422, "validation_failed", "config.max_steps: Input should be greater than or equal to 1"),
    ("unknown limit", "PUT", "{s}/config", {"json": {"max_money": 1}}, 422, "validation_failed", "max_money: there is no such field"),
    ("wrong type", "POST", "/api/sessions", {"json": {"title": 7}}, 422, "validation_failed", "title: Input should be a valid string"),
    ("a list for a body", "POST", "/api/sessions", {"json": []}, 422, "validation_failed", "body: this must be a JSON object, sent with the header Content-Type: application/json"),
    ("JSON without its content type", "POST", "/api/sessions", {"content": b"{}"}, 422, "validation_failed", "body: this must be a JSON object, sent with the header Content-Type: application/json"),
    ("limit over its bound", "GET", "/api/sessions?limit=1000", {}, 422, "validation_failed", "limit: Input should be less than or equal to 200"),
    ("foreign cursor", "GET", "/api/sessions?cursor=%21%21", {}, 400, "invalid_cursor", "this cursor is not one that this list returned; start again without it"),
    ("unknown status", "GET", "/api/sessions?status=lost", {}, 422, "validation_failed", "status: Input should be 'active' or 'archived'"),
    # bodies
    ("not JSON", "POST", "/api/sessions", {"content": b"{", "headers": JSON}, 400, "invalid_json", "the body is not JSON: "),
    ("invalid UTF-8", "POST", "/api/sessions", {"content": b'{"title": "\xff"}', "headers": JSON}, 400, "invalid_body", "the body cannot be read; send JSON in UTF-8"),
    ("too deep", "POST", "/api/sessions", {"content": b"[" * 40_000, "headers": JSON}, 400, "invalid_body", "the body cannot be read; send JSON in UTF-8"),
    ("too large", "POST", "/api/sessions", {"content": b" " * 8_400_000, "headers": JSON}, 413, "too_large", "the body may have at most 4194304 bytes"),
    ("NUL", "POST", "/api/sessions", {"json": {"title": "a\0b"}}, 422, "validation_failed", "title: text must not hold the character NUL"),
    ("half a surrogate pair", "POST", "{s}/chat", {"content": b'{"message": "\\ud800"}', "headers": JSON}, 422, "validation_failed", "message: "),
    # chat
    ("no message", "POST", "{s}/chat", {"json": {}}, 422, "validation_failed", "message: this is required"),
    ("no body", "POST", "{s}/chat", {}, 422, "validation_failed", "body: this is required"),
    ("empty message", "POST", "{s}/chat", {"json": {"message": " \n"}}, 422, "validation_failed", "message: String should have at least 1 character"),
    ("long message", "POST", "{s}/chat", {"json": {"message": "x" * 100_001}}, 422, "validation_failed", "message: String should have at most 100000 characters"),
    ("stream without a message", "POST", "{s}/chat/stream", {}, 400, "message_required", 'send {"message": "…"}, or the header Last-Event-ID to go on with a run'),
    ("Last-Event-ID beyond all numbers", "GET", "{s}/events", {"headers": {"Accept": "text/event-stream", "Last-Event-ID": "9999999999999999999"}}, 400, "invalid_event_id", "Last-Event-ID must be the number of an event of this session"),
    ("events after a number beyond all", "GET", "{s}/events?after=9223372036854775808", {}, 422, "validation_failed", "after: Input should be less than or equal to 9223372036854775807"),
    ("silent with an id", "POST", "{s}/kernel/execute", {"json": {"code": "1", "silent": True, "execution_id": "01a1fd5e-7ec1-71e2-ba41-f19870bd54be"}}, 400, "silent_with_id", "a silent execution leaves no trace to find it by; leave `silent` or the id out"),
    ("foreign Last-Event-ID", "GET", "{s}/events", {"headers": {"Accept": "text/event-stream", "Last-Event-ID": "abc"}}, 400, "invalid_event_id", "Last-Event-ID must be the number of an event of this session"),
    ("chat in an unknown session", "POST", f"/api/sessions/{UNKNOWN}/chat", {"json": {"message": "x"}}, 404, "session_not_found", "there is no such session"),
    ("cancel in an unknown session", "POST", f"/api/sessions/{UNKNOWN}/cancel", {}, 404, "session_not_found", "there is no such session"),
    ("events before the first", "GET", "{s}/events?after=-1", {}, 422, "validation_failed", "after: Input should be greater than or equal to 0"),
    ("long long poll", "GET", "{s}/events?wait=3600", {}, 422, "validation_failed", "wait: Input should be less than or equal to 30"),
    # kernel
    ("no code", "POST", "{s}/kernel/execute", {"json": {}}, 422, "validation_failed", "code: this is required"),
    ("too much code", "POST", "{s}/kernel/execute", {"json": {"code": "x" * 1_000_001}}, 422, "validation_failed", "code: String should have at most 1000000 characters"),
    ("endless timeout", "POST", "{s}/kernel/execute", {"json": {"code": "1", "timeout_seconds": -1}}, 422, "validation_failed", "timeout_seconds: Input should be greater than 0"),
    ("foreign execution id", "POST", "{s}/kernel/execute", {"json": {"code": "1", "execution_id": "x"}}, 422, "validation_failed", "execution_id: this must be a UUID"),
    ("code in an unknown session", "POST", f"/api/sessions/{UNKNOWN}/kernel/execute", {"json": {"code": "1"}}, 404, "session_not_found", "there is no such session"),
    # files
    ("file over the limit", "POST", "{s}/files", upload("big.csv", OVER), 413, "file_too_large", "the file has more than the 2000000 bytes that are allowed"),
    ("parent folder in a name", "POST", "{s}/files", upload("../../etc/passwd"), 400, "invalid_name", NAME),
    ("absolute name", "POST", "{s}/files", upload("/etc/passwd"), 400, "invalid_name", NAME),
    ("dot as name", "POST", "{s}/files", upload(".."), 400, "invalid_name", NAME),
    ("long name", "POST", "{s}/files", upload("x" * 300 + ".csv"), 400, "invalid_name", NAME),
    ("no file in the form", "POST", "{s}/files", form(b'--b\r\nContent-Disposition: form-data; name="x"\r\n\r\n1\r\n--b--\r\n'), 400, "no_file", "the body has no file; send at least one part with a file name"),
    ("JSON for files", "POST", "{s}/files", {"json": {}}, 400, "multipart_expected", "send files as multipart/form-data, each as a part with a file name"),
    ("no multipart", "POST", "{s}/files", form(b"hello"), 400, "invalid_multipart", "the body is not well-formed multipart/form-data"),
    ("cut multipart", "POST", "{s}/files", form(b'--b\r\nContent-Disposition: form-data; name="f"; filename="a.csv"\r\n\r\n1'), 400, "cut_body", "the multipart body ends before its last boundary; send it whole"),
    ("unknown file", "GET", "{s}/files/none.csv", {}, 404, "artifact_not_found", "there is no such file"),
    ("encoded parent folder", "GET", "{s}/files/%2e%2e%2f%2e%2e%2fetc%2fpasswd", {}, 404, "artifact_not_found", "there is no such file"),
    ("deleting an unknown file", "DELETE", "{s}/files/none.csv", {}, 404, "artifact_not_found", "there is no such file"),
    ("unknown artifact", "GET", "{s}/artifacts/plot.png", {}, 404, "artifact_not_found", "there is no such file"),
    ("unknown artifact id", "GET", f"/api/artifacts/{UNKNOWN}", {}, 404, "artifact_not_found", "there is no such file"),
    ("forged signed address", "GET", "/api/objects/AAAA.BBBB", {}, 403, "address_forged", "this address was not made here; ask for a new one"),
    # the rest
    ("no notebook", "POST", "{s}/notebook/sync", {"json": {"notebook": {"nbformat": 3}}}, 400, "invalid_notebook", "the notebook must be of nbformat 4 and have a list of cells"),
    ("validating an unknown model", "GET", "/api/models/gpt-9/validate", {}, 404, "not_found", "no model is called 'gpt-9' here; GET /api/models lists them"),
    ("unknown path", "GET", "/api/nothing", {}, 404, "route_not_found", "there is nothing under this path; /docs lists what there is"),
    ("wrong method", "DELETE", "/api/models", {}, 405, "method_not_allowed", "this path does not take this method; the header Allow names those it takes"),
    ("metrics on the main port", "GET", "/metrics", {}, 404, "route_not_found", "there is nothing under this path; /docs lists what there is"),
    ("foreign host", "GET", "/api/models", {"headers": {"Host": "evil.example"}}, 400, "host_not_allowed", "this gateway does not answer under that host name; use localhost or 127.0.0.1"),
    ("foreign page", "GET", "/api/models", {"headers": {"Origin": "http://evil.example"}}, 403, "origin_not_allowed", "pages of that origin may not call; an administrator can allow it with CARREL_CORS_ORIGINS"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("method", "path", "options", "status", "code", "message"),
    [case[1:] for case in CASES],
    ids=[case[0].replace(" ", "-") for case in CASES],
)
def test_refusal(api, session, method, path, options, status, code, message):
    response = api.request(method, path.replace("{s}", session), **options)
    problem = response.json()
    assert (response.status_code, problem["code"]) == (status, code), response.text
    assert message in problem["detail"]
    assert response.headers["content-type"] == "application/problem+json"
    assert problem["status"] == status
    assert problem["request_id"] == response.headers["x-request-id"]
    assert problem["type"] == f"urn:carrel:problem:{code}"
    if status == 405:
        assert response.headers["allow"] == "GET"
    assert api.get(session).status_code == 200


def test_nothing_of_a_refused_file_is_kept(api, session):
    api.post(f"{session}/files", **upload("big.csv", OVER))
    assert api.get(f"{session}/files").json()["items"] == []


@pytest.mark.parametrize(
    ("key", "code"),
    [(None, "unauthenticated"), ("wrong", "wrong_key"), ("x" * 10_000, "wrong_key")],
)
def test_keys(gateway, key, code):
    with gateway.client(key=None) as client:
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        response = client.get("/api/sessions", headers=headers)
    assert (response.status_code, response.json()["code"]) == (401, code)
    assert response.headers["www-authenticate"] == 'Bearer realm="carrel"'


def test_key_in_the_address_does_not_count(gateway):
    with gateway.client(key=None) as client:
        response = client.get("/api/sessions", params={"key": gateway.key, "api_key": gateway.key})
    assert response.status_code == 401


def test_message_while_a_run_is_going_on(api, gateway, session):
    blocking = threading.Thread(
        target=lambda: api.post(f"{session}/kernel/execute", json={"code": "import time; time.sleep(60)"})
    )
    blocking.start()
    until(lambda: api.get(f"{session}/kernel").json()["status"] == "busy")
    upload_and_ask = api.post(f"{session}/files", **upload("a.csv"))
    assert upload_and_ask.status_code == 201
    with (
        gateway.client() as other,
        other.stream("POST", f"{session}/chat/stream", json={"message": "mean of b"}) as running,
    ):
        run_id = running.headers["carrel-run-id"]
        refused = api.post(f"{session}/chat", json={"message": "and of a?"})
        problem = refused.json()
        assert (refused.status_code, problem["code"], problem["run_id"]) == (409, "busy", run_id)
        api.post(f"{session}/kernel/interrupt")
        running.read()
    blocking.join(60)
    assert api.post(f"{session}/chat", json={"message": "mean of a"}).json()["status"] == "succeeded"


EMPTY = b""
BINARY = bytes(range(256)) * 8


@pytest.mark.parametrize(("name", "content"), [("empty.csv", EMPTY), ("picture.csv", BINARY), ("blank.csv", b"\n\n\n")])
def test_tables_that_are_none_are_answered_honestly(api, session, name, content):
    assert api.post(f"{session}/files", **upload(name, content)).status_code == 201
    result = api.post(f"{session}/chat", json={"message": "What is the mean of price?"}).json()
    said = f"{result['answer']} {result['message']}"
    assert name in said
    assert api.post(f"{session}/kernel/execute", json={"code": "1"}).json()["status"] == "ok"


def test_unknown_ids_of_runs_end_nothing(api, session):
    assert api.post(f"{session}/cancel").json() == {"run_id": None}
    assert api.get(f"{session}/events", params={"run": str(uuid4())}).status_code == 200


def test_a_body_over_the_limit_is_too_large_also_when_its_length_was_not_said(api, session):
    def chunks():
        yield b'{"code": "'
        for _ in range(9):
            yield b"#" * 1024 * 1024
        yield b'"}'

    headers = {"Content-Type": "application/json"}
    answer = api.post(f"{session}/kernel/execute", content=chunks(), headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")
