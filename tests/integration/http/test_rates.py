"""Limits of rates: 429 with Retry-After, and no way around them.

Plan: a user has one budget, for all keys, paths, spellings and methods, over all gateways; a caller without a valid key
has that of the address, whatever headers say; what is refused is not done, and is counted; messages over a WebSocket
count; without a setting nobody is limited on their own machine; 32 at once get no more than one window too much.
"""

from __future__ import annotations

import re
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import httpx
import orjson
import pytest
from tests.support.servers import free_port
from tests.support.serving import gateway as running_gateway
from tests.support.serving import until
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

LIMIT = 20
WINDOW_SECONDS = 10
RATES = {
    "CARREL_RATE_PER_PRINCIPAL": str(LIMIT / WINDOW_SECONDS),
    "CARREL_RATE_PER_ADDRESS": "1",
    "CARREL_RATE_OF_LOGINS": "12",
}


@pytest.fixture
def gateway(tmp_path):
    with running_gateway(tmp_path / "data", **RATES) as started:
        yield started


def check_refusal(reply: httpx.Response) -> None:
    assert reply.status_code == 429
    assert reply.headers["content-type"] == "application/problem+json"
    assert 1 <= int(reply.headers["retry-after"]) <= 2 * WINDOW_SECONDS
    assert {name: reply.json()[name] for name in ("code", "reason")} == {"code": "rate_limited", "reason": "rate"}


def allowed(elapsed: float) -> float:
    """Return what may fit: the limit, and one window too much."""
    return LIMIT * elapsed / WINDOW_SECONDS + 2 * LIMIT


def test_32_at_once_at_two_gateways_get_one_window_too_much_at_most(tmp_path, redis_url):
    with ExitStack() as stack:
        gateways = [
            stack.enter_context(
                running_gateway(tmp_path / name, CARREL_REDIS_URL=redis_url, CARREL_API_KEY="k" * 40, **RATES)
            )
            for name in ("one", "two")
        ]
        clients = [stack.enter_context(gateways[place % 2].client()) for place in range(32)]

        def call(client: httpx.Client) -> list[int]:
            return [client.get("/api/sessions").status_code for _ in range(6)]

        began = time.monotonic()
        with ThreadPoolExecutor(32) as threads:
            codes = [code for found in threads.map(call, clients) for code in found]
        assert set(codes) == {200, 429}
        assert LIMIT <= codes.count(200) <= allowed(time.monotonic() - began)
        check_refusal(clients[0].get("/api/sessions"))
        check_refusal(clients[1].get("/api/sessions"))


def test_other_spellings_are_no_other_budget_and_what_is_refused_is_not_done(gateway):
    other = "/api/sessions/018f0000-0000-7000-8000-000000000000"
    spellings = [
        ("GET", "/api/sessions"),
        ("GET", "/api/sessions?limit=1"),
        ("GET", "/api/models"),
        ("PUT", other),
        ("DELETE", other),
        *[("GET", path) for path in ("/API/sessions", "/api//sessions", "/api/sessions/", "/api/%73essions/.")],
    ]
    forged = {"X-Forwarded-For": "203.0.113.9", "Forwarded": "for=1.2.3.4"}
    with gateway.client() as client:
        made = admitted = 0
        began = time.monotonic()
        for place in range(150):
            reply = client.post(f"/api/sessions?x={place}", json={"title": str(place)})
            made += reply.status_code == 201
            if reply.status_code != 201:
                check_refusal(reply)
        for method, path in spellings * 15:
            reply = client.request(method, path, headers=forged)
            admitted += reply.status_code != 429 and "route_not_found" not in reply.text  # no route, nothing done
        assert LIMIT <= made <= made + admitted <= allowed(time.monotonic() - began)
        until(lambda: (page := client.get("/api/sessions?limit=200")).status_code == 200 and counted(page) == made)


def counted(page: httpx.Response) -> int:
    """Return how many sessions a page holds, which must be all."""
    assert page.json().get("next_cursor") is None
    return len(page.json()["items"])


def test_without_a_valid_key_the_address_counts_whatever_headers_say(gateway):
    with gateway.client(key=None) as stranger, gateway.client() as known:
        codes = []
        for place in range(40):
            headers = {"X-Forwarded-For": f"203.0.113.{place}", "X-Real-IP": f"203.0.113.{place}"}
            if place % 2:
                headers["Authorization"] = f"Bearer wrong-{place}"
            codes.append(stranger.get("/api/sessions", headers=headers).status_code)
        assert codes[0] == 401
        assert 10 <= codes.count(401) <= 25
        check_refusal(stranger.get("/api/sessions"))
        check_refusal(stranger.get("/info"))
        check_refusal(stranger.get("/info", headers={"Authorization": "Bearer whatever"}))
        assert known.get("/api/sessions").status_code == 200, "who is known has a budget of their own"


def test_a_trusted_proxy_says_who_calls(tmp_path):
    def call(forwarded: str) -> httpx.Response:
        return proxy.get("/info", headers={"X-Forwarded-For": forwarded})

    settings = {**RATES, "CARREL_TRUSTED_PROXIES": "1"}
    with running_gateway(tmp_path / "data", **settings) as gateway, gateway.client(key=None) as proxy:
        while (reply := call("6.6.6.6, 203.0.113.9")).status_code == 200:
            pass
        check_refusal(reply)
        check_refusal(call("7.7.7.7, 203.0.113.9"))
        assert call("6.6.6.6, 203.0.113.10").status_code == 200


def test_a_redis_that_is_away_limits_all_the_same(tmp_path):
    settings = {**RATES, "CARREL_REDIS_URL": f"redis://127.0.0.1:{free_port()}/0"}
    with running_gateway(tmp_path / "data", **settings) as gateway, gateway.client() as client:
        began = time.monotonic()
        while (reply := client.get("/api/sessions")).status_code == 200:
            assert time.monotonic() - began < 60
        check_refusal(reply)


def test_messages_and_connections_of_a_websocket_count(gateway):
    with gateway.client() as client:
        session = client.post("/api/sessions", json={}).json()["id"]
        url = f"{gateway.url.replace('http', 'ws')}/ws/chat/{session}"
        headers = {"Authorization": f"Bearer {gateway.key}"}
        with connect(url, additional_headers=headers) as socket:
            codes = []
            for _ in range(2 * LIMIT + 10):
                socket.send('{"type": "nothing"}')
                codes.append(orjson.loads(socket.recv(10))["code"])
            assert codes[0] == "unknown_frame"
            assert "rate_limited" in codes
            check_refusal(client.get("/api/sessions"))
        with pytest.raises((ConnectionClosed, InvalidStatus)), connect(url, additional_headers=headers) as socket:
            socket.recv(10)


def test_refusals_are_counted_and_nobody_is_limited_at_home(tmp_path):
    port = free_port()
    with running_gateway(tmp_path / "data", CARREL_METRICS_PORT=str(port)) as gateway, gateway.client() as client:
        assert {client.get("/info", headers={"Authorization": ""}).status_code for _ in range(300)} == {200}
        assert {client.get("/api/models").status_code for _ in range(300)} == {200}
    with running_gateway(tmp_path / "other", CARREL_METRICS_PORT=str(port), **RATES) as gateway:
        with gateway.client() as client:
            while client.get("/api/models").status_code == 200:
                pass
        found = re.findall(
            r'carrel_rate_refused_total\{limit="(\w+)"\} ([0-9.]+)', httpx.get(f"http://127.0.0.1:{port}/metrics").text
        )
        assert found == [("principal", "1.0")]
