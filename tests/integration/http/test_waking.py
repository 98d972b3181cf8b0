"""Requests that need a kernel which takes long to be there, over real HTTP, with an executor that is slow on purpose.

Plan
- JSON: 202 with Retry-After after the time of the setting, and nothing has run; the kernel is made ready meanwhile, and
  the same request later runs once. The other kernel routes do the same; a reset has nothing left to be done.
- Streams wait on and say so, as lines and as events; followers of the session hear of it live.
- A start that fails is told as what it is to whoever asks next, and is then tried anew.
- What is known already is answered without a kernel. The SDK sends again by itself.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from pydantic import SecretStr
from tests.support.local import settings_for

from carrel_client import AsyncClient
from carrel_gateway.errors import ExecutorFailed
from carrel_gateway.executors.base import HostEndpoint, SessionRef
from carrel_gateway.main import create_app, drain

KEY = "crl_a_key_for_tests"
HOLD_SECONDS = 0.5

pytestmark = pytest.mark.timeout(180)


class Door:
    """Stands before the executor: hosts are had when it is open."""

    def __init__(self, acquire: Any) -> None:
        self._acquire = acquire
        self.open = asyncio.Event()
        self.fails = False
        self.asked = 0

    async def acquire(self, session: SessionRef) -> HostEndpoint:
        self.asked += 1
        await self.open.wait()
        if self.fails:
            raise ExecutorFailed("No kernel: NotIsolated: no policy is enforced here", reason="NotIsolated")
        return await self._acquire(session)


class Server:
    def __init__(self, app: Any, port: int) -> None:
        self.gateway = app.state.gateway
        self.url = f"http://127.0.0.1:{port}"
        self.http = httpx.AsyncClient(base_url=self.url, headers={"Authorization": f"Bearer {KEY}"}, timeout=60)
        self.door = Door(self.gateway.context.executor.acquire)
        self.gateway.context.executor.acquire = self.door.acquire

    async def session(self) -> str:
        return f"/api/sessions/{(await self.http.post('/api/sessions', json={})).json()['id']}"


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    app = create_app(
        settings_for(tmp_path / "data", wake_hold_seconds=HOLD_SECONDS, api_key=SecretStr(KEY), host="127.0.0.1")
    )
    serving = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, lifespan="on"))
    task = asyncio.create_task(serving.serve())
    while not serving.started:
        assert not task.done()
        await asyncio.sleep(0.02)
    opened = Server(app, serving.servers[0].sockets[0].getsockname()[1])
    try:
        yield opened
    finally:
        opened.door.open.set()
        await opened.http.aclose()
        await drain(app)
        serving.should_exit = True
        await task


async def answered(server: Server, method: str, path: str, **more: Any) -> httpx.Response:
    """Send as the answer says, until it is another one."""
    while (reply := await server.http.request(method, path, **more)).status_code == 202:  # noqa: ASYNC110
        await asyncio.sleep(0.1)
    return reply


async def cells(server: Server, session: str) -> list[Any]:
    events = (await server.http.get(f"{session}/events")).json()["items"]
    return [event for event in events if event["type"] == "cell.finished"]


async def test_a_request_is_held_for_a_time_and_then_to_be_sent_again(server: Server) -> None:
    session = await server.session()
    code = {"code": "open('ran', 'a').write('x'); print(len(open('ran').read()))"}
    reply = await server.http.post(f"{session}/kernel/execute", json=code)
    assert (reply.status_code, reply.headers["Retry-After"]) == (202, "2")
    body = reply.json()
    assert (body["status"], body["send_again"], body["session_id"]) == ("waking", True, session.split("/")[-1])
    assert "nothing has run yet" in body["message"]
    for path, sent in (("complete", {"code": "x", "cursor_pos": 1}), ("restart", None)):
        assert (await server.http.post(f"{session}/kernel/{path}", json=sent)).status_code == 202
    assert server.door.asked == 1, "it is made ready once, whoever asks"
    assert (await server.http.get(f"{session}/kernel")).json()["status"] == "none"
    server.door.open.set()
    done = await answered(server, "POST", f"{session}/kernel/execute", json=code)
    assert done.json()["outputs"][0]["text"] == "1\n"
    assert len(await cells(server, session)) == 1
    assert server.door.asked == 1


async def test_a_suspended_session_is_resumed_after_the_caller_was_sent_away(server: Server) -> None:
    session = await server.session()
    server.door.open.set()
    await answered(server, "POST", f"{session}/kernel/execute", json={"code": "x = 41"})
    assert (await server.http.post(f"{session}/suspend")).status_code == 200
    server.door.open.clear()
    for _ in range(2):
        assert (await server.http.post(f"{session}/resume")).status_code == 202
    server.door.open.set()
    resumed = await answered(server, "POST", f"{session}/resume")
    assert (resumed.status_code, resumed.json()["variables"]) == (200, 1)
    reply = await answered(server, "POST", f"{session}/kernel/execute", json={"code": "print(x + 1)"})
    assert reply.json()["outputs"][0]["text"] == "42\n"


@pytest.mark.parametrize("accept", ["application/x-ndjson", "text/event-stream"])
async def test_a_stream_waits_on_and_says_so(server: Server, accept: str) -> None:
    session = await server.session()
    kinds: list[str] = []
    send = server.http.stream(
        "POST", f"{session}/kernel/execute", json={"code": "print('ran')"}, headers={"Accept": accept}
    )
    async with send as reply:
        assert reply.status_code == 200
        async for line in reply.aiter_lines():
            text = line.removeprefix("data: ")
            if text.startswith("{"):
                kinds.append(json.loads(text)["type"])
                if kinds == ["waking"] * 2:
                    server.door.open.set()
    assert kinds[-1] == "finished"
    assert [kind for kind in kinds if kind != "waking"] == ["started", "stdout", "finished"]
    assert len(await cells(server, session)) == 1


async def test_followers_of_the_session_hear_that_its_kernel_is_waited_for(server: Server) -> None:
    session = await server.session()
    follow = server.http.stream("GET", f"{session}/events", headers={"Accept": "text/event-stream"})
    async with follow as reply:
        asking = asyncio.create_task(server.http.post(f"{session}/kernel/execute", json={"code": "1"}))
        async for line in reply.aiter_lines():
            if line == "event: kernel.waking":
                break
        assert (await asking).status_code == 202


async def test_why_no_kernel_could_be_had_is_told_to_whoever_asks_next(server: Server) -> None:
    session = await server.session()
    assert (await server.http.post(f"{session}/kernel/execute", json={"code": "1"})).status_code == 202
    server.door.fails = True
    server.door.open.set()
    reply = await answered(server, "POST", f"{session}/kernel/execute", json={"code": "1"})
    assert (reply.status_code, reply.json()["code"], reply.json()["reason"]) == (503, "executor_failed", "NotIsolated")
    assert reply.headers["Retry-After"]
    assert "no policy is enforced here" in reply.json()["detail"]
    server.door.fails = False
    again = await answered(server, "POST", f"{session}/kernel/execute", json={"code": "print(1)"})
    assert again.json()["outputs"][0]["text"] == "1\n"


async def test_a_reset_has_nothing_left_to_be_done(server: Server) -> None:
    session = await server.session()
    server.door.open.set()
    await answered(server, "POST", f"{session}/kernel/execute", json={"code": "x = 1"})
    server.door.open.clear()
    reply = await server.http.post(f"{session}/kernel/reset")
    assert (reply.status_code, reply.json()["send_again"]) == (202, False)
    server.door.open.set()
    reply = await answered(server, "POST", f"{session}/kernel/execute", json={"code": "print('x' in dir())"})
    assert reply.json()["outputs"][0]["text"] == "False\n"


async def test_what_is_known_is_answered_without_a_kernel(server: Server) -> None:
    session = await server.session()
    server.door.open.set()
    code, key = {"code": "print('once')"}, {"Idempotency-Key": "a"}
    await answered(server, "POST", f"{session}/kernel/execute", json=code, headers=key)
    await server.http.post(f"{session}/suspend")
    server.door.open.clear()
    reply = await server.http.post(f"{session}/kernel/execute", json=code, headers=key)
    assert (reply.status_code, reply.json()["outputs"][0]["text"]) == (200, "once\n")
    assert (await server.http.get(f"{session}/kernel")).json()["status"] == "suspended"


async def test_the_sdk_sends_again_by_itself(server: Server) -> None:
    session = (await server.session()).split("/")[-1]
    async with AsyncClient(server.url, KEY) as client:
        running = asyncio.create_task(client.execute(session, "print('ran')"))
        with suppress(TimeoutError):
            async with asyncio.timeout(2 * HOLD_SECONDS):
                await asyncio.shield(running)
        assert not running.done()
        server.door.open.set()
        assert (await running).outputs[0]["text"] == "ran\n"
    assert len(await cells(server, f"/api/sessions/{session}")) == 1
