"""Pages of other origins (threat 37): what they may ask, read and do.

Plan: a matrix of origins, methods and credentials against a gateway that allows one further origin: a foreign page is
refused whatever it brings; the allowed one may ask with its key and is told so, and never with credentials that a
browser sends by itself; a cookie authenticates nobody, on no route and no WebSocket; forms of a page, which need no
permission to be sent, do nothing.
"""

from __future__ import annotations

import itertools

import pytest
from tests.support.serving import gateway as running_gateway
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

ALLOWED = "https://ui.example"
FOREIGN = ["http://evil.example", "null", "https://ui.example.evil.example", "http://ui.example", "https://ui.example:444",
           "http://localhost:1", "file://", "https://UI.example", "https://ui.example/"]  # fmt: skip
METHODS = {"GET": "/api/models", "POST": "/api/sessions", "PUT": "/api/sessions/{id}", "DELETE": "/api/sessions/{id}"}
UNKNOWN = "0190aaaa-bbbb-7ccc-8ddd-eeeeeeeeeeee"
FORMS = ["application/x-www-form-urlencoded", "multipart/form-data; boundary=b", "text/plain"]


@pytest.fixture(scope="module")
def gateway(tmp_path_factory):
    with running_gateway(tmp_path_factory.mktemp("gateway") / "data", CARREL_CORS_ORIGINS=ALLOWED) as started:
        yield started


def credentials(gateway, kind):
    if kind == "key":
        return {"Authorization": f"Bearer {gateway.key}"}
    names = ("key", "session", "token", "Authorization", "__Host-refresh", "__Host-carrel_refresh", "carrel")
    return {"Cookie": "; ".join(f"{name}={gateway.key}" for name in names)} if kind == "cookie" else {}


def ask(client, gateway, method, origin, kind):
    headers = {"Origin": origin, **credentials(gateway, kind)}
    body = {} if method in {"POST", "PUT"} else None
    return client.request(method, METHODS[method].replace("{id}", UNKNOWN), json=body, headers=headers)


MATRIX = list(itertools.product(METHODS, ["key", "cookie", "nothing"]))


@pytest.mark.parametrize(("method", "kind"), MATRIX)
def test_a_foreign_page_is_refused_whatever_it_brings(gateway, method, kind):
    with gateway.client(key=None) as client:
        for origin in FOREIGN:
            answer = ask(client, gateway, method, origin, kind)
            assert (answer.status_code, answer.json()["code"]) == (403, "origin_not_allowed"), origin
            assert not [name for name in answer.headers if name.startswith("access-control-")]


@pytest.mark.parametrize(("method", "kind"), MATRIX)
def test_the_allowed_page_asks_with_its_key_alone(gateway, method, kind):
    with gateway.client(key=None) as client:
        answer = ask(client, gateway, method, ALLOWED, kind)
    assert answer.headers["access-control-allow-origin"] == ALLOWED
    assert "access-control-allow-credentials" not in answer.headers
    assert (answer.status_code != 401) == (kind == "key")


@pytest.mark.parametrize("origin", [*FOREIGN, ALLOWED])
def test_permission_is_given_to_the_allowed_page_alone(gateway, origin):
    asked = {"Access-Control-Request-Method": "DELETE", "Access-Control-Request-Headers": "authorization"}
    with gateway.client(key=None) as client:
        answer = client.options("/api/sessions", headers={"Origin": origin, **asked})
    assert answer.headers.get("access-control-allow-origin") == (ALLOWED if origin == ALLOWED else None)
    assert "access-control-allow-credentials" not in answer.headers


@pytest.mark.parametrize("kind", ["cookie", "nothing"])
@pytest.mark.parametrize("origin", [None, "own"])
@pytest.mark.parametrize("content_type", FORMS)
def test_forms_and_cookies_do_nothing(gateway, kind, origin, content_type):
    headers = {
        "Content-Type": content_type,
        **({"Origin": gateway.url} if origin else {}),
        **credentials(gateway, kind),
    }
    with gateway.client() as api, gateway.client(key=None) as client:
        before = api.get("/api/sessions").json()
        answer = client.post("/api/sessions", content=b"title=x", headers=headers)
        assert answer.status_code == 401
        assert api.get("/api/sessions").json() == before


@pytest.mark.parametrize("origin", [*FOREIGN, None, "own", ALLOWED])
def test_a_socket_is_not_opened_by_a_cookie(gateway, origin):
    address = f"{gateway.url.replace('http', 'ws', 1)}/ws/chat/{UNKNOWN}"
    own = gateway.url if origin == "own" else origin
    with pytest.raises(InvalidStatus):
        connect(address, origin=own, additional_headers=credentials(gateway, "cookie"))


def test_no_route_but_the_refresh_sets_a_cookie(gateway):
    with gateway.client() as api:
        for path in ("/", "/docs", "/api/models", "/api/sessions", "/health", "/info"):
            assert "set-cookie" not in api.get(path).headers
