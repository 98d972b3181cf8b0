"""What a gateway leaves of its secrets and of hostile text in its logs and metrics (threats 35 and 36).

Plan: a gateway whose every secret is a canary (its key, a provider's key, those of a store), asked with right and
wrong keys, in every place where a caller puts one; with line ends, terminal sequences and quotes in all that a caller
chooses. Of the canaries nothing is in the log or the metrics; each line of the log is one JSON object without a control
character; the series have the same labels as before, whatever was sent; metrics are on their own port alone.
"""

from __future__ import annotations

import json
import re
from typing import NamedTuple

import httpx
import pytest
from tests.support.raw import exchange
from tests.support.servers import free_port, s3_server
from tests.support.serving import SALES
from tests.support.serving import gateway as running_gateway
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from carrel_gateway.metrics import METHODS

CANARIES = {
    "CARREL_API_KEY": "crl_canary-of-the-api-key-0123456789abcdef",
    "LLM_API_KEY": "canary-of-the-provider-key-0123456789",
    "CARREL_S3_SECRET_KEY": "canary-of-the-object-store-0123456789",
    "CARREL_S3_ACCESS_KEY": "canary-of-the-access-key-0123456789",
}
PROVIDER = "canary-of-a-stored-key-0123456789"
PERSONAL = {
    "title": "canary-title Ada Lovelace",
    "message": "canary-message of Ada",
    "code": "canary_code = 'of Ada'",
    "file": "canary-file.csv",
    "content": "canary,content\n1,2\n",
    "email": "canary@example.org",
    "name": "Canary Ada",
}
"""What people write, and who they are."""
WRONG = "canary-of-a-wrong-key-0123456789"
NASTY = [
    "\r\nX-Injected: 1",
    '\n{"event":"forged"}',
    "\x1b[31m\x1b]0;title\x07",
    "\u2028\u2029\u0085",
    '","level":"error',
    "%0d%0a",
    "\u202e",
]
"""Line ends of all kinds, terminal sequences, quotes, and text that runs the other way."""
LABELS = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


def work(running, kept):
    """Use the gateway as people do, with what is theirs; keep every answer. Code looks for secrets, too."""
    with running.client() as api:
        api.event_hooks["response"].append(lambda reply: kept.append(reply.read() + str(reply.headers).encode()))
        session = f"/api/sessions/{api.post('/api/sessions', json={'title': PERSONAL['title']}).json()['id']}"
        api.post(f"{session}/files", files={"file": (PERSONAL["file"], PERSONAL["content"].encode(), "text/csv")})
        api.post(f"{session}/kernel/execute", json={"code": PERSONAL["code"]})
        looks = "import os; print(os.environ); open('environment.txt', 'w').write(str(os.environ))"
        assert api.post(f"{session}/kernel/execute", json={"code": looks}).json()["status"] == "ok"
        api.post(f"{session}/chat", json={"message": PERSONAL["message"]})
        api.put("/api/provider-keys/openai", json={"key": PROVIDER})
        api.post("/api/invitations", json={"email": PERSONAL["email"], "role": "user"})
        api.post("/api/auth/login", json={"email": PERSONAL["email"], "password": WRONG})
        api.put("/api/me", json={"name": PERSONAL["name"]})
        assert api.post(f"{session}/suspend").is_success
        for path in ("", "/messages", "/events", "/export", "/notebook", "/artifacts", "/config", "/kernel", "/share"):
            assert api.get(f"{session}{path}").is_success, path
        for path in (
            "/info",
            "/api/models",
            "/api/provider-keys",
            "/api/keys",
            "/api/audit",
            "/api/me",
            "/openapi.json",
        ):
            assert api.get(path).is_success, path
        trace = "4bf92f3577b34da6a3ce929d0e0e4736"
        parent = {"traceparent": f"00-{trace}-00f067aa0ba902b7-01"}
        assert api.get("/api/sessions/none", headers=parent).json()["request_id"] == trace
        for none in (f"00-{'0' * 32}-00f067aa0ba902b7-01", trace, f"{parent['traceparent']}-more"):
            assert api.get("/api/models", headers={"traceparent": none}).headers["x-request-id"] not in (
                trace,
                "0" * 32,
            )
        both = api.post(f"{session}/chat", json={"message": "x"}, headers={**parent, "X-Request-Id": "traced-1"})
        assert both.headers["x-request-id"] == "traced-1"


def stored(store):
    """Return every object with its key and its attributes, as bytes."""
    bucket = store.opened()
    found = []
    for item in (item for page in bucket.list() for item in page):
        read = bucket.get(item["path"])
        found.append(f"{item['path']} {read.attributes} ".encode() + bytes(read.bytes()))
    return found


def strike(running):
    """Send all that is hostile; return the addresses and names that were in it."""
    with running.client() as api:
        session = f"/api/sessions/{api.post('/api/sessions', json={'title': NASTY[1]}).json()['id']}"
        for text in NASTY:
            api.post("/api/sessions", json={"title": text, "model": text})
            api.put(session, json={"title": f"a{text}"})
            api.get(f"/api/{httpx.QueryParams({'a': text})}")
            api.get("/api/sessions", params={"status": text, "key": WRONG})
            api.post(f"{session}/files", files={"file": (f"{text}.csv", SALES.encode(), "text/csv")})
            api.get(f"{session}/files/{text.encode().hex()}")
            api.request(f"M{text.encode().hex()[:10].upper()}", "/api/models")
            api.post(f"{session}/kernel/execute", json={"code": text, "execution_id": text})
        api.post(f"{session}/chat", json={"message": NASTY[2] + NASTY[0]})
        for number in range(30):
            api.get(f"/random/{number}/{WRONG}", headers={"X-Request-Id": f"id-{number}"})
    for header in (f"Bearer {WRONG}", f"Basic {WRONG}", WRONG, f"bearer   {WRONG}"):
        with running.client(key=None) as nobody:
            nobody.get("/api/models", headers={"Authorization": header})
            nobody.get(
                "/api/models", headers={"X-Api-Key": WRONG, "Cookie": f"session={WRONG}", "X-Request-Id": f"a {WRONG}"}
            )
    for line in (f"Authorization: Bearer {WRONG}\r\nAuthorization: Bearer {WRONG}", f"X: \x1b[31m{WRONG}\x00"):
        exchange(running.url, f"GET /{WRONG} HTTP/1.1\r\nHost: localhost\r\n{line}\r\n\r\n".encode())
    address = f"{running.url.replace('http', 'ws', 1)}/ws/chat/0190aaaa-bbbb-7ccc-8ddd-eeeeeeeeeeee"
    for options in ({"subprotocols": ["carrel.v1", f"carrel.key.{WRONG}"]}, {"origin": f"http://{WRONG}.example"}):
        with pytest.raises(InvalidStatus):
            connect(address, **options)


class Left(NamedTuple):
    """What is left."""

    log: bytes
    before: str
    after: str
    on_main: list[int]
    elsewhere: list[str]
    answers: list[bytes]
    objects: list[bytes]


@pytest.fixture(scope="module")
def left(tmp_path_factory):
    """The log, and the metrics before and after."""
    folder, port = tmp_path_factory.mktemp("traces"), free_port()
    keys = {name: CANARIES[f"CARREL_S3_{name.upper()}"] for name in ("access_key", "secret_key")}
    with (
        s3_server(folder / "s3", **keys) as store,
        running_gateway(
            folder / "data",
            CARREL_METRICS_PORT=str(port),
            CARREL_LOG_LEVEL="debug",
            CARREL_STORAGE_TYPE="s3",
            CARREL_S3_BUCKET=store.bucket,
            CARREL_S3_ENDPOINT=store.endpoint,
            **CANARIES,
        ) as running,
    ):
        before = httpx.get(f"http://127.0.0.1:{port}/metrics").text
        answers = []
        work(running, answers)
        strike(running)
        objects = stored(store)
        after = httpx.get(f"http://127.0.0.1:{port}/metrics").text
        with running.client() as api:
            on_main = [api.get(path).status_code for path in ("/metrics", "/metrics/", "/api/metrics")]
        elsewhere = [
            httpx.get(f"http://127.0.0.1:{port}{path}").text
            for path in ("/api/models", "/health", "/docs", "/openapi.json")
        ]
    return Left((folder / "data.log").read_bytes(), before, after, on_main, elsewhere, answers, objects)


def test_no_secret_is_in_the_log_or_the_metrics(left):
    log, after = left.log, left.after
    assert len(log.splitlines()) > 50
    for canary in (*CANARIES.values(), WRONG, PROVIDER):
        assert canary.encode() not in log
        assert canary not in after


def test_no_secret_is_in_answers_or_stored_objects(left):
    """The access key is a name, which signed addresses hold; nothing here asks for one."""
    assert len(left.objects) >= 3, "an upload, what code wrote, a snapshot"
    assert any(b"canary,content" in found for found in left.objects)
    assert any(b"environ" in found for found in left.objects)
    assert len(left.answers) > 20
    for canary in (*CANARIES.values(), PROVIDER, WRONG):
        for found in (*left.answers, *left.objects):
            assert canary.encode() not in found, found[:200]


def test_nothing_that_people_write_is_in_the_log_or_the_metrics(left):
    answered = b"".join(left.answers)
    for name, text in PERSONAL.items():
        assert text.encode() not in left.log, name
        assert text not in left.after, name
    assert all(PERSONAL[name].encode() in answered for name in ("title", "message", "file", "name")), "it was there"


def test_a_request_is_traced_by_its_id(left):
    """By the id of whoever asks, or by the trace that it is a part of: in the answer and in every line about it."""
    lines = [json.loads(line) for line in left.log.splitlines()]
    for wanted, path in (("4bf92f3577b34da6a3ce929d0e0e4736", "/api/sessions/{session_id}"), ("traced-1", "/chat")):
        mine = [line for line in lines if line.get("request_id") == wanted]
        assert any(path in str(line.get("route", line)) for line in mine), wanted


def test_each_line_of_the_log_is_one_object_and_has_no_control_characters(left):
    for line in left.log.split(b"\n")[:-1]:
        document = json.loads(line)
        assert {"event", "level", "timestamp"} <= set(document)
        assert document["event"] != "forged"
        assert not re.search(rb"[\x00-\x1f\x7f]", line)
        assert "\u0085" not in line.decode()
        assert "\u2028" not in line.decode()


def series(text):
    found = {}
    for line in text.splitlines():
        if line.startswith("carrel_"):
            name, _, rest = line.partition("{")
            found.setdefault(name.split(" ")[0], []).append(dict(LABELS.findall(rest.rpartition("}")[0])))
    return found


def test_what_is_sent_makes_no_labels(left):
    old, new = series(left.before), series(left.after)
    assert {name for name in old if name in new} == set(old)
    for rows in new.values():
        assert len({frozenset(row) for row in rows}) == 1, "a series has one set of labels"
    for row in new["carrel_http_requests_total"]:
        assert row["method"] in METHODS | {"other"}
        assert row["route"] == "unmatched" or row["route"].startswith("/")
        assert not re.search(r"[0-9a-f]{8}-|\d{2,}|canary|random", row["route"]), row
        assert row["status"] in {"0xx", "1xx", "2xx", "3xx", "4xx", "5xx"}
    assert sum(row["route"] == "unmatched" for row in new["carrel_http_requests_total"]) <= len(METHODS) + 1
    assert not any(row.get("status") == "5xx" for row in new["carrel_http_requests_total"])


def test_metrics_are_on_their_own_port_alone_and_nothing_else_is(left):
    assert set(left.on_main) == {404}
    for text in left.elsewhere:
        assert "openapi" not in text
        assert "demo/analyst" not in text
