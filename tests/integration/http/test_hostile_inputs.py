"""What one input can cost (threat 33), by the CPU time of the event loop's thread, the application called directly.

Plan: bodies of the largest size that are hard on parsers and validators; forms with very many parts, headers and
boundaries; queries and headers of the largest size: no step between two reads of the body takes 50 ms of CPU time, and
each answer is the refusal that it should be. Who is not known has nothing of a body read on a route that wants a key,
and is not even asked for it. Every regular expression of the gateway is a constant, but for those that are put together
from constants and escaped names, and takes linear time on the texts that are hardest for it.
"""

from __future__ import annotations

import ast
import re
import socket
import time
from pathlib import Path

import pytest
import pytest_asyncio
from starlette.routing import Route
from tests.support.raw import answers, connect, everything
from tests.support.serving import ROOT

from carrel_gateway.main import create_app
from carrel_gateway.settings import Settings
from carrel_gateway.web.bodies import ANONYMOUS_MAX_BYTES, JSON_MAX_VALUES, JsonMeter

MOST_SECONDS = 0.05
ON_ITS_LOOP = pytest.mark.asyncio(loop_scope="module")
KEY = "crl_test"
SIZE = 4 * 1024 * 1024 - 64
JSON = "application/json"
BODIES = {
    "lists": b"[" + b"[]," * (SIZE // 3 - 1) + b"[]]",
    "objects": b"[" + b"{}," * (SIZE // 3 - 1) + b"{}]",
    "numbers": b"[" + b"1e9," * (SIZE // 4 - 1) + b"1]",
    "strings": b"[" + b'"",' * (SIZE // 3 - 1) + b"1]",
    "names": b"{" + b",".join(b'"%07x":1' % number for number in range(SIZE // 12)) + b"}",
    "one name": b"{" + b'"title":1,' * (SIZE // 10 - 1) + b'"title":1}',
    "as many names as may be": b"{" + b",".join(b'"%x":1' % number for number in range(24_000)) + b"}",
    "as many values as may be": b'{"title":[' + b"1," * (JSON_MAX_VALUES - 10) + b"1]}",
    "names within": b'{"config":{' + b",".join(b'"%x":1' % number for number in range(20_000)) + b"}}",
    "depth": b"[" * SIZE,
    "depth of objects": b'{"a":' * (SIZE // 5),
    "a number": b"1" * SIZE,
    "a fraction": b"0." + b"1" * SIZE,
    "an exponent": b"1e" + b"9" * SIZE,
    "a text": b'{"title":"' + b"a" * SIZE + b'"}',
    "escapes": b'{"title":"' + b"\\u00e9" * (SIZE // 6) + b'"}',
    "backslashes": b'{"title":"' + b"\\\\" * (SIZE // 2) + b'"}',
    "quotes": b'"' * SIZE,
    "escaped quotes": b'{"title":"' + b'\\"' * (SIZE // 2) + b'"}',
    "blanks": b" " * SIZE,
    "nothing": b"\0" * SIZE,
}
WITH_JSON = ["/api/sessions", "/api/sessions/{s}/notebook/sync"]


class Loop:
    """The application, called as a server would, by the parts of a body."""

    def __init__(self, app) -> None:
        self._app = app
        self.longest = 0.0
        """CPU time of the longest step between two reads or writes, of the last call."""

    async def call(self, method: str, path: str, body: bytes = b"", query: bytes = b"", key: str = KEY, **headers: str):
        parts = [body[start : start + 65536] for start in range(0, len(body), 65536)] or [b""]
        left, sent, self.longest, self._since = iter(parts), [], 0.0, time.thread_time()
        rest = len(parts)

        def step() -> None:
            now = time.thread_time()
            self.longest, self._since = max(self.longest, now - self._since), now

        async def receive():
            nonlocal rest
            rest -= 1
            step()
            return {"type": "http.request", "body": next(left, b""), "more_body": rest > 0}

        async def send(message):
            step()
            sent.append(message)

        given = {"host": "localhost", **({"authorization": f"Bearer {key}"} if key else {}), **headers}
        scope = {
            "type": "http", "method": method, "path": path, "raw_path": path.encode(), "query_string": query,
            "headers": [(name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in given.items()],
            "http_version": "1.1", "scheme": "http", "server": ("localhost", 80), "client": ("127.0.0.1", 1),
            "root_path": "", "asgi": {"version": "3.0"},
        }  # fmt: skip
        await self._app(scope, receive, send)
        step()
        return sent[0]["status"]

    async def cheapest(self, *arguments, **options) -> tuple[int, float]:
        """Return the status and the CPU time of the longest step: of five calls the one that was disturbed least."""
        least = MOST_SECONDS
        for _ in range(5):
            status = await self.call(*arguments, **options)
            least = min(least, self.longest)
            if least < MOST_SECONDS:
                break
        return status, least


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def loop(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile")
    app = create_app(Settings(_env_file=None, data_dir=folder, api_key=KEY, checkpoint_seconds=0))
    async with app.router.lifespan_context(app):
        yield Loop(app)


@pytest.mark.parametrize("name", BODIES)
@ON_ITS_LOOP
async def test_no_json_holds_the_loop_up(loop, name):
    for path in WITH_JSON:
        where = path.replace("{s}", "0190aaaa-bbbb-7ccc-8ddd-eeeeeeeeeeee")
        status, seconds = await loop.cheapest("POST", where, BODIES[name], content_type=JSON)
        assert status in {400, 404, 413, 422}, (path, status)
        assert seconds < MOST_SECONDS, path


@pytest.mark.parametrize(
    "kind", [JSON, "application/problem+json", "Application/JSON; charset=utf-8", "text/plain", ""]
)
@ON_ITS_LOOP
async def test_who_is_not_known_has_nothing_parsed(loop, kind):
    for body in (BODIES["lists"], BODIES["names"]):
        status, seconds = await loop.cheapest("POST", "/api/sessions", body, key="", content_type=kind)
        assert status == 401
        assert seconds < MOST_SECONDS


BOUNDARY = "multipart/form-data; boundary="
PART = b'--b\r\nContent-Disposition: form-data; name="f"; filename="a.csv"\r\n\r\n1\r\n'
FORMS = {
    "parts": ("b", PART * (SIZE // len(PART))),
    "parts without a name": ("b", b"--b\r\n\r\n\r\n" * (SIZE // 9)),
    "headers of a part": ("b", b"--b\r\n" + b"X: y\r\n" * (SIZE // 6)),
    "a header of a part": ("b", b"--b\r\nX: " + b"y" * SIZE),
    "parameters of a part": ("b", b"--b\r\nContent-Disposition: form-data; " + b"a=b; " * 800 + b"\r\n\r\n1\r\n--b--"),
    "quotes of a part": ("b", b'--b\r\nContent-Disposition: form-data; name="' + b'\\"' * 2000 + b"\r\n\r\n1\r\n--b--"),
    "almost boundaries": ("b" * 60, (b"\r\n--" + b"b" * 59) * (SIZE // 63)),
    "a long boundary": ("b" * 30_000, b"\r\n--" + b"b" * SIZE),
    "line ends": ("b", b"--b\r\n\r\n" + b"\r\n" * (SIZE // 2)),
    "nothing before": ("b", b"\r\n" * (SIZE // 2)),
}


@pytest.mark.parametrize("name", FORMS)
@ON_ITS_LOOP
async def test_no_form_holds_the_loop_up(loop, name):
    boundary, body = FORMS[name]
    assert await loop.call("POST", "/api/sessions", b"{}", content_type=JSON) == 201
    path = "/api/sessions/0190aaaa-bbbb-7ccc-8ddd-eeeeeeeeeeee/files"
    status, seconds = await loop.cheapest("POST", path, body, content_type=BOUNDARY + boundary)
    assert status in {400, 404, 413}
    assert seconds < MOST_SECONDS


HEADERS = {
    "range": "bytes=" + ",".join(f"{number}-{number}" for number in range(3000)),
    "accept": ",".join(f"a/{number};q=0.{number}" for number in range(1500)),
    "cookie": "; ".join(f"a{number}=b" for number in range(2000)),
    "if_none_match": ",".join(f'"{number}"' for number in range(3000)),
    "authorization": "Bearer " + "a" * 30_000,
    "content_type": "a/b;" + "a=b;" * 7000,
    "origin": "http://" + "a." * 15_000,
    "x_request_id": "a" * 30_000,
    "idempotency_key": "a" * 30_000,
    "last_event_id": "9" * 30_000,
    "if_modified_since": "Mon, " * 6000,
    "host": "a." * 15_000,
}


@pytest.mark.parametrize("name", HEADERS)
@ON_ITS_LOOP
async def test_no_header_holds_the_loop_up(loop, name):
    unknown = "0190aaaa-bbbb-7ccc-8ddd-eeeeeeeeeeee"
    for method, path in [("GET", f"/api/sessions/{unknown}/files/a.csv"), ("GET", f"/api/sessions/{unknown}/events"),
                         ("POST", "/api/sessions"), ("GET", "/page/app.js")]:  # fmt: skip
        status, seconds = await loop.cheapest(method, path, **{name: HEADERS[name]})
        assert status < 500
        assert seconds < MOST_SECONDS, path


@pytest.mark.parametrize(
    "query",
    [b"limit=1&" * 4000, b"a&" * 15_000, b"%41" * 10_000, b"cursor=" + b"A" * 30_000, b"limit=" + b"9" * 30_000,
     b"&" * 30_000, b"offset=1" * 4000, b"after=" + b"-" * 30_000],
)  # fmt: skip
@ON_ITS_LOOP
async def test_no_query_holds_the_loop_up(loop, query):
    for path in ("/api/sessions", "/api/sessions/0190aaaa-bbbb-7ccc-8ddd-eeeeeeeeeeee/events"):
        status, seconds = await loop.cheapest("GET", path, query=query)
        assert status < 500
        assert seconds < MOST_SECONDS, path


# ---------------------------------------------------------------------- who is not known


def routes_with_bodies():
    app = create_app(Settings(_env_file=None, data_dir=Path("/nonexistent")))
    writes = {"POST", "PUT", "PATCH", "DELETE"}
    found = [
        (method, route.path) for route in app.routes if isinstance(route, Route) for method in route.methods & writes
    ]
    return sorted(found)


@pytest.mark.parametrize(("method", "path"), routes_with_bodies())
def test_who_is_not_known_is_not_asked_for_the_body(gateway, method, path):
    where = re.sub(r"\{\w*(:path)?\}", "0190aaaa-bbbb-7ccc-8ddd-eeeeeeeeeeee", path)
    head = f"{method} {where} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nConnection: close\r\n"
    with connect(gateway.url) as connection:
        connection.sendall(f"{head}Content-Length: 8000000\r\nExpect: 100-continue\r\n\r\n".encode())
        received = bytearray(connection.recv(65536))
        if received.startswith(b"HTTP/1.1 100"):  # a route for all: what it takes is small
            connection.sendall(b" " * (ANONYMOUS_MAX_BYTES + 1))
            connection.shutdown(socket.SHUT_WR)
            received = received.partition(b"\r\n\r\n")[2]
        received += everything(connection)
    (answer,) = answers(bytes(received))
    assert answer.status in {401, 413}


# ---------------------------------------------------------------------- counting, and regular expressions


@pytest.mark.parametrize("size", [1, 2, 3, 7, 10_000])
@pytest.mark.parametrize(
    ("text", "values"),
    [
        (b'{"a": [1, 2, {"b": 3}]}', 2 + 2 + 3),
        (b'["a,[{", "\\",[", "\\\\", 1]', 3 + 4),
        (b'"\\\\\\"," ', 1),
        (b"[]", 1),
        (b"", 0),
    ],
)
def test_values_are_counted_outside_of_strings_however_the_body_is_cut(text, values, size):
    meter = JsonMeter()
    for start in range(0, len(text), size):
        meter.take(text[start : start + size])
    assert meter.values == values


USERS = {"compile", "match", "search", "fullmatch", "sub", "subn", "split", "findall", "finditer"}
OWN_BUILDERS = ("carrel_gateway/agents/", "carrel_gateway/storage/search.py", "carrel_gateway/web/contract.py")
"""Put together from constants and, escaped, the names of columns and tags and the words of a search."""


def expressions():
    """Return every expression with where it is, and whether it is only ever matched from the start of a text."""
    found = []
    for path in sorted((ROOT / "gateway" / "carrel_gateway").rglob("*.py")):
        source = path.read_text("utf-8")
        for node in ast.walk(ast.parse(source)):
            called = node.func if isinstance(node, ast.Call) else None
            if isinstance(called, ast.Attribute) and called.attr in USERS and ast.unparse(called.value) == "re":
                line = source.splitlines()[node.lineno - 1]
                name = re.match(r"(\w+)", line)
                used = set(re.findall(rf"\b{name[1]}\.(\w+)\(", source)) if name else set()
                only = (used if called.attr == "compile" else {called.attr}) <= {"match", "fullmatch"} and bool(used)
                where = f"{path.relative_to(ROOT / 'gateway').as_posix()}:{node.lineno}"
                found.append((where, node.args[0], only))
    return found


def constant(node):
    """Return the text of a constant expression; none where it is put together at run time."""
    try:
        return ast.literal_eval(node)
    except ValueError:
        return None


def test_no_regular_expression_comes_from_outside():
    found = expressions()
    assert len(found) > 10
    for where, node, _ in found:
        if not where.startswith(OWN_BUILDERS):
            assert constant(node) is not None, f"{where}: not a constant"


HARD = ["_", "a_", "a", "1", " ", "-", "/", ".", '"', "\\", "=", "a b ", "1.", "a@", "://", "\n", "#", ",", "Bearer "]


def test_every_regular_expression_is_linear():
    for where, node, from_the_start in expressions():
        pattern = constant(node)
        if pattern is None:
            continue
        compiled = re.compile(pattern)
        for part in HARD:
            text = part * (30_000 // len(part)) + "\0"
            hard = text.encode() if isinstance(pattern, bytes) else text
            spent = []
            for _ in range(2):
                since = time.thread_time()
                (compiled.fullmatch if from_the_start else compiled.search)(hard)
                spent.append(time.thread_time() - since)
            assert min(spent) < MOST_SECONDS, f"{where}: {part!r}"
