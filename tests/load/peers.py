"""The servers that benchmarks compare, each behind one small face: start it, open a desk, execute, count the output.

Knows nothing of what is measured. Both are started on free loopback ports and ended by their own process ids.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
import uuid
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any, Protocol

import aiohttp

START_SECONDS = 60
EXECUTE_SECONDS = 120


class Desk(Protocol):
    """One kernel that code can be run in."""

    async def execute(self, code: str) -> int:
        """Run the code to its end and return the bytes of standard output that arrived."""
        ...


def free_port() -> int:
    """Return a loopback port that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.asynccontextmanager
async def child(*command: str, env: dict[str, str], log: Path) -> AsyncGenerator[asyncio.subprocess.Process]:
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as out:
        process = await asyncio.create_subprocess_exec(*command, env={**os.environ, **env}, stdout=out, stderr=out)
        try:
            yield process
        finally:
            if process.returncode is None:
                process.terminate()
                try:
                    await asyncio.wait_for(process.wait(), 20)
                except TimeoutError:
                    process.kill()
                    await process.wait()


async def until_answers(session: aiohttp.ClientSession, url: str, process: asyncio.subprocess.Process) -> None:
    deadline = asyncio.get_running_loop().time() + START_SECONDS
    while True:
        with contextlib.suppress(aiohttp.ClientError):
            async with session.get(url) as reply:
                if reply.status == 200:
                    return
        if process.returncode is not None or asyncio.get_running_loop().time() > deadline:
            raise RuntimeError(f"{url} does not answer")
        await asyncio.sleep(0.05)


class CarrelServer:
    """The embedded product."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self._url = url

    @classmethod
    @contextlib.asynccontextmanager
    async def start(cls, folder: Path) -> AsyncGenerator[CarrelServer]:
        port = free_port()
        key = uuid.uuid4().hex
        command = (sys.executable, "-m", "carrel_cli", "serve", "--port", str(port), "--data-dir", str(folder))
        url = f"http://127.0.0.1:{port}"
        async with (
            child(*command, env={"CARREL_API_KEY": key, "CARREL_LOG_LEVEL": "warning"}, log=folder / "log") as process,
            aiohttp.ClientSession(headers={"Authorization": f"Bearer {key}"}) as session,
        ):
            await until_answers(session, f"{url}/health", process)
            yield cls(session, url)

    @contextlib.asynccontextmanager
    async def desk(self) -> AsyncGenerator[CarrelDesk]:
        async with self._session.post(f"{self._url}/api/sessions", json={}) as reply:
            assert reply.status == 201, await reply.text()
            address = f"{self._url}/api/sessions/{(await reply.json())['id']}"
        try:
            yield CarrelDesk(self._session, address)
        finally:
            async with self._session.delete(address) as reply:
                assert reply.status in (200, 204), await reply.text()


class CarrelDesk:
    """A session, driven over its JSON route."""

    def __init__(self, session: aiohttp.ClientSession, address: str) -> None:
        self._session = session
        self._address = address

    async def execute(self, code: str) -> int:
        async with self._session.post(f"{self._address}/kernel/execute", json={"code": code}) as reply:
            body: dict[str, Any] = await reply.json()
        assert body.get("status") == "ok", body
        texts = (output["text"] for output in body["outputs"] if output["output_type"] == "stream")
        return sum(len(text) if isinstance(text, str) else sum(map(len, text)) for text in texts)


class JupyterServer:
    """A plain jupyter_server with its default settings."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self._url = url

    @classmethod
    @contextlib.asynccontextmanager
    async def start(cls, folder: Path) -> AsyncGenerator[JupyterServer]:
        port = free_port()
        token = uuid.uuid4().hex
        (folder / "root").mkdir(parents=True)
        command = (
            *(sys.executable, "-m", "jupyter_server", "--no-browser", "--allow-root", f"--ServerApp.port={port}"),
            *("--ServerApp.port_retries=0", f"--ServerApp.root_dir={folder / 'root'}"),
        )
        homes = {f"JUPYTER_{name}_DIR": str(folder / name) for name in ("CONFIG", "DATA", "RUNTIME")}
        url = f"http://127.0.0.1:{port}"
        async with (
            child(*command, env={"JUPYTER_TOKEN": token, **homes}, log=folder / "log") as process,
            aiohttp.ClientSession(headers={"Authorization": f"token {token}"}) as session,
        ):
            await until_answers(session, f"{url}/api/status", process)
            yield cls(session, url)

    @contextlib.asynccontextmanager
    async def desk(self) -> AsyncGenerator[JupyterDesk]:
        async with self._session.post(f"{self._url}/api/kernels", json={"name": "python3"}) as reply:
            assert reply.status == 201, await reply.text()
            kernel = (await reply.json())["id"]
        address = f"{self._url}/api/kernels/{kernel}"
        try:
            async with self._session.ws_connect(f"{address}/channels", max_msg_size=0) as socket_:
                yield JupyterDesk(socket_)
        finally:
            async with self._session.delete(address) as reply:
                assert reply.status == 204, await reply.text()


class JupyterDesk:
    """A kernel behind jupyter_server, driven over its WebSocket as JupyterLab drives it."""

    def __init__(self, socket_: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket_

    async def execute(self, code: str) -> int:
        identifier = uuid.uuid4().hex
        header = {
            "msg_id": identifier,
            "msg_type": "execute_request",
            "username": "",
            "session": "bench",
            "version": "5.4",
        }
        content: dict[str, Any] = {
            "code": code,
            "silent": False,
            "store_history": True,
            "user_expressions": {},
            "allow_stdin": False,
        }
        message: dict[str, Any] = {
            "channel": "shell",
            "header": header,
            "parent_header": {},
            "metadata": {},
            "content": content,
        }
        await self._socket.send_json(message)
        received, pending = 0, {"idle", "reply"}
        async with asyncio.timeout(EXECUTE_SECONDS):
            while pending:
                answer: dict[str, Any] = await self._socket.receive_json()
                if answer["parent_header"].get("msg_id") != identifier:
                    continue
                kind, body = answer["msg_type"], answer["content"]
                if kind == "stream" and body["name"] == "stdout":
                    received += len(body["text"])
                elif kind == "execute_reply":
                    pending.discard("reply")
                elif kind == "status" and body["execution_state"] == "idle":
                    pending.discard("idle")
        return received
