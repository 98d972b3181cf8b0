"""A login that a client goes on under, with a transport in place of a server.

Plan: the access token is presented; one that is about to end is exchanged first, once also when many ask at a time,
and what came of it is kept before it is used; a login that has ended is said as that; no token is in a repr.
"""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from carrel_client import ApiProblem, AsyncClient, Client, InMemory, Login, LoginEnded


def login(number: int, seconds: float) -> Login:
    ends = datetime.now(UTC) + timedelta(seconds=seconds)
    return Login(f"access{number}", f"refresh{number}", ends, "tenant", "user")


class Server:
    """Exchanges each refresh token once, and takes the newest access token alone."""

    def __init__(self, newest: int = 0, *, status: int = 200) -> None:
        self.newest = newest
        self.status = status
        self.exchanges = 0

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.url.path != "/api/auth/refresh":
            known = request.headers.get("Authorization") == f"Bearer access{self.newest}"
            return httpx.Response(200 if known else 401, json={"code": "revoked", "detail": "no", "rights": []})
        assert "Authorization" not in request.headers
        if self.status != 200:
            return httpx.Response(self.status, json={"code": "some_code", "detail": "no"})
        assert json.loads(request.content) == {"refresh_token": f"refresh{self.newest}"}
        self.newest += 1
        self.exchanges += 1
        ends = (datetime.now(UTC) + timedelta(minutes=15)).isoformat()
        made = {"access_token": f"access{self.newest}", "refresh_token": f"refresh{self.newest}", "expires_at": ends}
        return httpx.Response(200, json={**made, "tenant_id": "tenant", "user_id": "user", "login_id": "x"})


def face(server: Server, store: InMemory) -> Client:
    return Client("http://carrel.test", login=store, transport=httpx.MockTransport(server))


def test_a_token_is_presented_as_long_as_it_holds():
    server = Server()
    with face(server, InMemory(login(0, 600))) as client:
        client.me()
        client.me()
    assert server.exchanges == 0


def test_one_that_is_about_to_end_is_exchanged_and_kept_first():
    server, store = Server(), InMemory(login(0, 10))
    with face(server, store) as client:
        client.me()
        client.me()
    assert server.exchanges == 1
    with store.hold() as kept:
        assert kept.refresh_token == "refresh1"


async def test_many_at_once_exchange_once():
    server = Server()
    store = InMemory(login(0, 10))
    async with AsyncClient("http://carrel.test", login=store, transport=httpx.MockTransport(server)) as client:
        await asyncio.gather(*(client.me() for _ in range(20)))
    assert server.exchanges == 1


def test_a_login_that_has_ended_is_said_as_that():
    with face(Server(status=401), InMemory(login(0, 10))) as client, pytest.raises(LoginEnded, match="log in again"):
        client.me()
    with face(Server(status=503), InMemory(login(0, 10))) as client, pytest.raises(ApiProblem) as away:
        client.me()
    assert away.value.code == "some_code"


def test_no_token_is_in_a_repr():
    assert "access" not in repr(login(0, 1)).replace("access_token", "")
    assert "refresh0" not in repr(login(0, 1))
