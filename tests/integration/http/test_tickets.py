"""Keys and tickets at the edge, and what is open when a right ends (attack 27).

Plan: a key is made, shown once, used and revoked over HTTP; a socket is let in by a ticket, once, as subprotocol, and
by nothing in its address; its answer does not repeat the ticket. When a key is revoked, its sockets are closed (4401)
and its streams end, soon, those of code that runs too; a demotion closes nothing that reading allows and stops messages
at once; while the database is away nothing is closed. A gateway with Postgres and without a key makes the
administrator's first one and says it once, on standard output and not in its log.
"""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
from tests.support.inside import Refused
from tests.support.matrix import World, world
from tests.support.people import change_key, change_user
from tests.support.servers import Postgres
from tests.support.serving import environment, until

from carrel_gateway.chat import socket as chat_socket
from carrel_gateway.context import Principal
from carrel_gateway.identity.revocations import announce
from carrel_gateway.identity.rights import Role
from carrel_gateway.settings import Settings
from carrel_gateway.storage.database import DatabaseAway
from carrel_gateway.web import sse

SOON = 0.05


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def everybody(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    url = None if request.param == "sqlite" else request.getfixturevalue("postgres_url")
    folder = tmp_path_factory.mktemp("tickets")
    options: dict[str, Any] = {"spare_kernel_host": False, "kernel_preload": ""}
    settings = Settings(
        _env_file=None, data_dir=folder / "data", database_url=url, api_key="the-installation", **options
    )
    with world(settings) as made:
        yield made


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat_socket, "LOOK_SECONDS", SOON)
    monkeypatch.setattr(sse, "LOOK_SECONDS", SOON)
    monkeypatch.setattr(sse, "PING_SECONDS", SOON)


def made_key(everybody: World, credential: str, **body: Any) -> Any:
    answer = everybody.gateway.request("POST", "/api/keys", credential=credential, json={"name": "test", **body})
    assert answer.status_code == 201, answer.text
    return answer.json()


def chat(everybody: World, role: Role = Role.USER) -> str:
    return f"/ws/chat/{everybody.objects[everybody.people[role].user_id].archived}"


def alive(socket: Any) -> bool:
    socket.send({"type": "nothing"})
    return socket.receive()["code"] == "unknown_frame"


def closing(socket: Any) -> tuple[int, str]:
    with pytest.raises(Refused) as closed:
        socket.receive()
    return closed.value.code, closed.value.reason


def test_a_key_over_http(everybody: World) -> None:
    made = made_key(everybody, "the-installation", scopes=["profile:read", "keys:write"])
    assert re.fullmatch(r"crl_[A-Za-z0-9_-]{70}", made["key"])
    listed = everybody.gateway.request("GET", "/api/keys", credential=made["key"])
    assert made["key"] not in listed.text
    assert made["id"] in {item["id"] for item in listed.json()["items"]}
    assert everybody.gateway.request("GET", "/api/sessions", credential=made["key"]).status_code == 403
    wide = {"name": "x", "scopes": ["tenant:admin"]}
    refused = everybody.gateway.request("POST", "/api/keys", credential=made["key"], json=wide)
    assert (refused.status_code, refused.json()["code"]) == (403, "scopes_too_wide")
    for body in (
        {"name": "x", "scopes": ["no:such"]},
        {"name": ""},
        {"name": "x", "expires_at": "2030-01-01T00:00:00"},
    ):
        answer = everybody.gateway.request("POST", "/api/keys", credential="the-installation", json=body)
        assert (answer.status_code, answer.json()["code"]) == (422, "validation_failed")
    gone = everybody.gateway.request("DELETE", f"/api/keys/{made['id']}", credential=made["key"])
    assert gone.status_code == 204
    again = everybody.gateway.request("GET", "/api/keys", credential=made["key"])
    assert (again.status_code, again.json()["code"]) == (401, "revoked")


def test_a_ticket_lets_one_socket_in(everybody: World) -> None:
    ticket = everybody.ticket(everybody.key(everybody.people[Role.USER]))
    offer = {"Sec-WebSocket-Protocol": f"carrel.v1, carrel.ticket.{ticket}"}
    with everybody.gateway.socket(chat(everybody), **offer) as socket:
        assert socket.subprotocol == "carrel.v1"
        assert alive(socket)
    with pytest.raises(Refused) as refused, everybody.gateway.socket(chat(everybody), **offer):
        pass
    assert (refused.value.code, refused.value.reason) == (4401, "wrong_ticket")


def test_a_ticket_has_the_rights_of_its_maker(everybody: World) -> None:
    reader = everybody.key(everybody.people[Role.READONLY])
    offer = {"Sec-WebSocket-Protocol": f"carrel.ticket.{everybody.ticket(reader)}"}
    with everybody.gateway.socket(chat(everybody, Role.READONLY), **offer) as socket:
        socket.send({"type": "message", "message": "run something"})
        assert socket.receive()["code"] == "permission_denied"
    offer = {"Sec-WebSocket-Protocol": f"carrel.ticket.{everybody.ticket(reader)}"}
    with pytest.raises(Refused) as refused, everybody.gateway.socket(chat(everybody), **offer):
        pass
    assert (refused.value.code, refused.value.reason) == (4403, "not_your_session")


def test_nothing_in_an_address_or_as_another_subprotocol_lets_in(everybody: World) -> None:
    key = everybody.key(everybody.people[Role.USER])
    ticket = everybody.ticket(key)
    for path, offer in (
        (chat(everybody), {}),
        (f"{chat(everybody)}?key={key}&ticket={ticket}&access_token={key}", {}),
        (chat(everybody), {"Sec-WebSocket-Protocol": f"carrel.v1, carrel.key.{key}"}),
        (chat(everybody), {"Sec-WebSocket-Protocol": f"carrel.v1, carrel.ticket.{key}"}),
        (chat(everybody), {"Authorization": f"Bearer {ticket}"}),
    ):
        with pytest.raises(Refused) as refused, everybody.gateway.socket(path, **offer):
            pass
        assert refused.value.code == 4401
    by_query = everybody.gateway.request("GET", f"/api/sessions?key={key}&ticket={ticket}&access_token={key}")
    assert by_query.status_code == 401


@pytest.mark.parametrize("way", ["key", "ticket", "token"])
def test_a_socket_is_closed_when_its_right_ends(everybody: World, way: str) -> None:
    user = everybody.people[Role.USER]
    made = made_key(everybody, everybody.key(user))
    key = everybody.token(user) if way == "token" else made["key"]
    offer = {"Sec-WebSocket-Protocol": f"carrel.ticket.{everybody.ticket(key)}"} if way == "ticket" else {}
    credential = None if way == "ticket" else key
    with everybody.gateway.socket(chat(everybody), credential=credential, **offer) as socket:
        assert alive(socket)
        if way == "token":
            everybody.disable(user, disabled=True)
        else:
            everybody.gateway.request("DELETE", f"/api/keys/{made['id']}", credential=key)
        try:
            assert closing(socket) == (4401, "disabled" if way == "token" else "revoked")
        finally:
            everybody.disable(user, disabled=False)


def test_a_stream_ends_when_its_right_ends(everybody: World) -> None:
    user = everybody.people[Role.USER]
    made = made_key(everybody, everybody.key(user))
    session = everybody.objects[user.user_id].session
    found: list[httpx.Response] = []

    def read() -> None:
        headers = {"Accept": "text/event-stream"}
        path = f"/api/sessions/{session}/events"
        found.append(everybody.gateway.request("GET", path, credential=made["key"], headers=headers))

    reader = threading.Thread(target=read)
    reader.start()
    reader.join(0.5)
    assert reader.is_alive()
    everybody.gateway.request("DELETE", f"/api/keys/{made['id']}", credential=made["key"])
    reader.join(30)
    assert not reader.is_alive()
    assert "session.created" in found[0].text


WAITING = "print('begun', flush=True)\nimport time\nwhile True:\n    time.sleep(0.01)"


@pytest.mark.parametrize("accept", ["application/x-ndjson", "text/event-stream"])
def test_a_stream_of_code_that_runs_ends_when_its_right_ends(everybody: World, accept: str) -> None:
    """The reader is cut off and told why; the code runs on."""
    user = everybody.people[Role.USER]
    kept, made = everybody.key(user), made_key(everybody, everybody.key(user))
    path = f"/api/sessions/{everybody.objects[user.user_id].session}"
    found: list[httpx.Response] = []

    def run() -> None:
        headers, body = {"Accept": accept}, {"code": WAITING}
        answer = everybody.gateway.request(
            "POST", f"{path}/kernel/execute", credential=made["key"], headers=headers, json=body
        )
        found.append(answer)

    def kernel() -> str:
        return everybody.gateway.request("GET", f"{path}/kernel", credential=kept).json()["status"]

    reader = threading.Thread(target=run)
    reader.start()
    until(lambda: kernel() == "busy")
    everybody.gateway.request("DELETE", f"/api/keys/{made['id']}", credential=kept)
    reader.join(30)
    assert not reader.is_alive()
    last = found[0].text.strip().splitlines()[-1].removeprefix("data: ")
    assert (json.loads(last)["type"], json.loads(last)["code"]) == ("problem", "revoked")
    assert '"finished"' not in found[0].text
    assert kernel() == "busy"
    everybody.gateway.request("POST", f"{path}/kernel/interrupt", credential=kept)
    until(lambda: kernel() == "idle")


def test_a_demotion_is_felt_by_the_next_message(everybody: World) -> None:
    user = everybody.people[Role.USER]
    database = everybody.context.database
    with everybody.gateway.socket(chat(everybody), credential=everybody.key(user)) as socket:
        socket.send({"type": "message", "message": "hello"})
        assert socket.receive()["code"] == "archived"
        for role, code in ((Role.READONLY, "permission_denied"), (Role.USER, "archived")):
            everybody.gateway.call(change_user, database, user, role=role.value)
            everybody.gateway.call(announce, everybody.context.bus, user.tenant_id, user.user_id)
            socket.send({"type": "message", "message": "hello"})
            assert socket.receive()["code"] == code


def test_nothing_is_closed_while_the_database_is_away(everybody: World, monkeypatch: pytest.MonkeyPatch) -> None:
    user = everybody.people[Role.USER]
    made = made_key(everybody, everybody.key(user))
    looked = threading.Event()

    async def away(_: Principal) -> Principal:
        looked.set()
        raise DatabaseAway("away")

    offer = {"Sec-WebSocket-Protocol": f"carrel.ticket.{everybody.ticket(made['key'])}"}
    with everybody.gateway.socket(chat(everybody), **offer) as socket:
        with monkeypatch.context() as patch:
            patch.setattr(everybody.gateway.authenticator, "again", away)
            assert looked.wait(30)
        assert alive(socket)
        everybody.gateway.call(
            change_key, everybody.context.database, user, UUID(made["id"]), revoked_at=datetime.now(UTC)
        )
        assert closing(socket) == (4401, "revoked")


def test_the_first_start_says_the_administrators_key_once(tmp_path: Path, postgres: Postgres) -> None:
    name = postgres.clone()
    settings = {"CARREL_DATABASE_URL": postgres.url(name, "gateway"), "CARREL_PORT": "0"}

    def start() -> tuple[str, int, str]:
        log = (tmp_path / "log").open("w")
        command = [sys.executable, "-m", "carrel_gateway", "--data-dir", str(tmp_path / "data")]
        started = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=log, env=environment(**settings), cwd=tmp_path, text=True
        )
        said = ""
        try:
            for line in started.stdout:
                said += line
                if "Ctrl-C" in line:
                    break
            url = json.loads((tmp_path / "data" / "server.json").read_text())["url"]
            key = next(iter(re.findall(r"shown this once: (crl_\S+)", said)), "")
            answer = httpx.get(f"{url}/api/sessions", headers={"Authorization": f"Bearer {key or 'none'}"})
            return key, answer.status_code, said
        finally:
            started.send_signal(signal.SIGTERM)
            started.wait(30)
            started.stdout.close()
            log.close()

    key, status, _ = start()
    assert (bool(key), status) == (True, 200)
    assert key not in (tmp_path / "log").read_text()
    assert not (tmp_path / "data" / "key").exists()
    key, status, said = start()
    assert (key, status) == ("", 401)
    assert "crl_" not in said
