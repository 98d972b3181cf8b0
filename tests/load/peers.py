"""The servers that benchmarks compare, each behind one small face: open a desk, execute, attach, restart, interrupt.

Knows nothing of what is measured. All are started on free loopback ports, or a Unix socket, and ended by their own
process ids. Carrel is driven twice: through its gateway over HTTP with its key, and at the kernel host itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
import uuid
from collections.abc import AsyncGenerator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

import aiohttp
from tests.integration.kernel.host import LIBRARIES, Host

from carrel_wire.events import Finished, Stdout

START_SECONDS = 60
EXECUTE_SECONDS = 120


class Desk(Protocol):
    """One kernel that code can be run in."""

    async def execute(self, code: str) -> int:
        """Run the code to its end, well or not, and return the bytes of standard output that arrived."""
        ...

    def attach(self) -> AbstractAsyncContextManager[Desk]:
        """Return the same kernel over a connection of its own."""
        ...

    async def restart(self) -> None: ...

    async def interrupt(self) -> None: ...

    async def snapshot(self) -> int:
        """Save the variables so that they outlive the process, and return their bytes; 0 where that cannot be asked."""
        ...


class Server(Protocol):
    """A program with desks."""

    name: str
    process_id: int

    def desk(self) -> AbstractAsyncContextManager[Desk]:
        """Return a new desk, deleted at the end."""
        ...

    async def rest(self) -> None:
        """Wait until a new desk finds all that the server prepares for it."""
        ...


def free_port() -> int:
    """Return a loopback port that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@asynccontextmanager
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


async def call(session: aiohttp.ClientSession, method: str, url: str, **options: Any) -> Any:
    async with session.request(method, url, **options) as reply:
        assert reply.status < 400, await reply.text()
        return await reply.json() if reply.content_type == "application/json" else None


# ---------------------------------------------------------------------- Carrel


class CarrelServer:
    """A gateway with kernels on this machine; without further settings the embedded product."""

    name = "Carrel, gateway"

    def __init__(self, session: aiohttp.ClientSession, url: str, process_id: int) -> None:
        self._session = session
        self.url = url
        self.process_id = process_id

    @classmethod
    @asynccontextmanager
    async def start(
        cls, folder: Path, *, key: str | None = None, settings: Mapping[str, str] = MappingProxyType({})
    ) -> AsyncGenerator[CarrelServer]:
        """Start it, and drive it with the key of a user's, or with that of the installation."""
        port = free_port()
        own = uuid.uuid4().hex
        command = (sys.executable, "-m", "carrel_cli", "serve", "--port", str(port), "--data-dir", str(folder))
        url = f"http://127.0.0.1:{port}"
        env = {"CARREL_API_KEY": own, "CARREL_LOG_LEVEL": "warning", **settings}
        async with (
            child(*command, env=env, log=folder / "log") as process,
            aiohttp.ClientSession(headers={"Authorization": f"Bearer {key or own}"}) as session,
        ):
            await until_answers(session, f"{url}/health", process)
            yield cls(session, url, process.pid)

    @asynccontextmanager
    async def desk(self) -> AsyncGenerator[CarrelDesk]:
        made = await call(self._session, "POST", f"{self.url}/api/sessions", json={})
        address = f"{self.url}/api/sessions/{made['id']}"
        try:
            yield CarrelDesk(self._session, address)
        finally:
            await call(self._session, "DELETE", address)

    async def rest(self) -> None:
        """Give it the time to make the host that it keeps ready: a second's pause, a start, the imports."""
        await asyncio.sleep(5)


class CarrelDesk:
    """A session, driven over its JSON routes."""

    def __init__(self, session: aiohttp.ClientSession, address: str) -> None:
        self._session = session
        self._address = address

    async def execute(self, code: str) -> int:
        body = await call(self._session, "POST", f"{self._address}/kernel/execute", json={"code": code})
        texts = (output["text"] for output in body["outputs"] if output["output_type"] == "stream")
        return sum(len(text) if isinstance(text, str) else sum(map(len, text)) for text in texts)

    @asynccontextmanager
    async def attach(self) -> AsyncGenerator[CarrelDesk]:
        async with aiohttp.ClientSession(headers=self._session.headers) as session:
            yield CarrelDesk(session, self._address)

    async def restart(self) -> None:
        await call(self._session, "POST", f"{self._address}/kernel/restart")

    async def interrupt(self) -> None:
        await call(self._session, "POST", f"{self._address}/kernel/interrupt")

    async def snapshot(self) -> int:
        """Leave it to the kernel host: what the gateway adds is a matter of its store."""
        return 0


class HostServer:
    """A kernel host alone, bound to one session; a desk is a kernel of it."""

    name = "Carrel, kernel host"

    def __init__(self, host: Host) -> None:
        self.host = host
        assert host.process
        self.process_id = host.process.pid

    @classmethod
    @asynccontextmanager
    async def start(cls, folder: Path) -> AsyncGenerator[HostServer]:
        await asyncio.to_thread(folder.mkdir)
        async with Host.running(folder, LIBRARIES) as host:
            server = cls(host)
            await server.rest()
            await host.bind()
            yield server

    @asynccontextmanager
    async def desk(self) -> AsyncGenerator[HostDesk]:
        kernel = uuid.uuid4().hex
        await self.host.call("POST", "/v1/kernels", json={"id": kernel})
        try:
            yield HostDesk(self.host, kernel)
        finally:
            await self.host.call("DELETE", f"/v1/kernels/{kernel}")

    async def rest(self) -> None:
        """Wait for the spare kernel."""
        await asyncio.sleep(4)


class HostDesk:
    """A kernel, driven over the host's routes as the gateway drives it."""

    def __init__(self, host: Host, kernel: str) -> None:
        self._host = host
        self._kernel = kernel

    async def execute(self, code: str) -> int:
        execution = str(uuid.uuid4())
        events = await self._host.run(code, kernel=self._kernel, execution=execution)
        assert isinstance(events[-1], Finished)
        await self._host.ack(execution, events[-1].n, kernel=self._kernel)
        return sum(len(event.text) for event in events if isinstance(event, Stdout))

    @asynccontextmanager
    async def attach(self) -> AsyncGenerator[Desk]:
        """Open the Jupyter WebSocket, as a notebook that comes back does."""
        assert self._host.http
        headers = {"Authorization": f"Bearer {self._host.token()}"}
        path = f"http://host/v1/kernels/{self._kernel}/channels"
        async with self._host.http.ws_connect(path, headers=headers, max_msg_size=0) as socket_:
            yield JupyterDesk(self._host.http, path, socket_)

    async def restart(self) -> None:
        await self._host.call("POST", f"/v1/kernels/{self._kernel}/restart")

    async def interrupt(self) -> None:
        await self._host.call("POST", f"/v1/kernels/{self._kernel}/interrupt")

    async def snapshot(self) -> int:
        manifest = await self._host.call("POST", f"/v1/kernels/{self._kernel}/snapshot", json={})
        variables = manifest["variables"]
        assert not variables.get("not_saved"), variables
        return sum(part["size"] for part in [variables["pickle"], *variables["objects"], *variables["buffers"]])


# ---------------------------------------------------------------------- Jupyter's


class JupyterServer:
    """A plain jupyter_server, or Kernel Gateway, with default settings; both have the same API of kernels."""

    def __init__(self, name: str, session: aiohttp.ClientSession, url: str, process_id: int) -> None:
        self.name = name
        self._session = session
        self._url = url
        self.process_id = process_id

    @classmethod
    @asynccontextmanager
    async def start(cls, name: str, folder: Path) -> AsyncGenerator[JupyterServer]:
        port = free_port()
        token = uuid.uuid4().hex
        (folder / "root").mkdir(parents=True)
        flags = {
            "jupyter_server": (
                "--no-browser",
                "--allow-root",
                f"--ServerApp.port={port}",
                "--ServerApp.port_retries=0",
                f"--ServerApp.root_dir={folder / 'root'}",
            ),
            "kernel_gateway": (f"--KernelGatewayApp.port={port}", "--KernelGatewayApp.port_retries=0"),
        }
        homes = {f"JUPYTER_{part}_DIR": str(folder / part) for part in ("CONFIG", "DATA", "RUNTIME")}
        env = {"JUPYTER_TOKEN": token, "KG_AUTH_TOKEN": token, **homes}
        url = f"http://127.0.0.1:{port}"
        async with (
            child(sys.executable, "-m", name, *flags[name], env=env, log=folder / "log") as process,
            aiohttp.ClientSession(headers={"Authorization": f"token {token}"}) as session,
        ):
            await until_answers(session, f"{url}/api", process)
            yield cls(name, session, url, process.pid)

    @asynccontextmanager
    async def desk(self) -> AsyncGenerator[JupyterDesk]:
        made = await call(self._session, "POST", f"{self._url}/api/kernels", json={"name": "python3"})
        address = f"{self._url}/api/kernels/{made['id']}"
        try:
            async with self._session.ws_connect(f"{address}/channels", max_msg_size=0) as socket_:
                yield JupyterDesk(self._session, address, socket_)
        finally:
            await call(self._session, "DELETE", address)

    async def rest(self) -> None:
        """Return at once: it prepares nothing."""


class JupyterDesk:
    """A kernel behind Jupyter's WebSocket, driven as JupyterLab drives it."""

    def __init__(self, session: aiohttp.ClientSession, address: str, socket_: aiohttp.ClientWebSocketResponse) -> None:
        self._session = session
        self._address = address
        self._socket = socket_

    @asynccontextmanager
    async def attach(self) -> AsyncGenerator[JupyterDesk]:
        async with self._session.ws_connect(f"{self._address}/channels", max_msg_size=0) as socket_:
            yield JupyterDesk(self._session, self._address, socket_)

    async def restart(self) -> None:
        await call(self._session, "POST", f"{self._address}/restart")

    async def interrupt(self) -> None:
        await call(self._session, "POST", f"{self._address}/interrupt")

    async def snapshot(self) -> int:
        """Save nothing: there is no such call."""
        return 0

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
