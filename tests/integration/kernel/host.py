"""A kernel host under test: starts the real program, calls it as the gateway would, and ends what it started."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import msgspec

from carrel_wire.events import ExecutionEvent, Finished, Stdout, decode_event
from carrel_wire.tokens import ALL_SCOPES, KeySet, PublicKey, Signer, generate_private_key, public_key_of

ROOT = Path(__file__).parents[3]
DEADLINE = 60.0
SESSION = "session-1"
LIBRARIES = "--preload=numpy,pandas,matplotlib.pyplot,sklearn"
"""The flag that makes a host's kernels as they are in the product."""


async def until(check: Callable[[], Any], *, seconds: float = DEADLINE, what: str = "the condition") -> Any:
    """Poll until the check returns something true, and return that."""
    deadline = time.monotonic() + seconds
    while True:
        result = check()
        if isinstance(result, Awaitable):
            result = await result
        if result:
            return result
        assert time.monotonic() < deadline, f"{what} did not come true within {seconds} s"
        await asyncio.sleep(0.02)


class Refused(Exception):
    """The host answered with an error."""

    def __init__(self, status: int, body: dict[str, Any]) -> None:
        super().__init__(f"{status} {body}")
        self.status = status
        self.code = body.get("code")
        self.detail = body.get("detail")


class HostClient:
    """Calls a host as the gateway would, wherever it runs."""

    def __init__(self, host_id: str, url: str = "http://host") -> None:
        self.host_id = host_id
        self.url = url
        self.private_key = generate_private_key()
        self.signer = Signer("gateway-1", self.private_key)
        self.http: aiohttp.ClientSession | None = None

    def connector(self) -> aiohttp.BaseConnector:
        """Return the way to the host."""
        return aiohttp.TCPConnector(limit=0)

    async def cut(self) -> None:
        """Cut all connections without a word; the next call makes a new one."""
        if self.http:
            await self.http.close()
        self.http = aiohttp.ClientSession(connector=self.connector())

    def token(
        self, scopes: Iterable[str] = ALL_SCOPES, *, session: str | None = SESSION, audience: str | None = None
    ) -> str:
        return self.signer.token(audience=audience or self.host_id, session_uid=session, scopes=scopes)

    @asynccontextmanager
    async def request(
        self, method: str, path: str, *, token: str | None = None, **options: Any
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        assert self.http
        headers = {"Authorization": f"Bearer {token or self.token()}", **options.pop("headers", {})}
        async with self.http.request(method, f"{self.url}{path}", headers=headers, **options) as reply:
            yield reply

    async def call(self, method: str, path: str, **options: Any) -> Any:
        async with self.request(method, path, **options) as reply:
            data = await reply.read()
            if reply.status >= 400:
                raise Refused(reply.status, json.loads(data))
            return json.loads(data) if data else None

    async def bind(self, *, session: str = SESSION, **fields: Any) -> dict[str, Any]:
        body = {"session_uid": session, "pod_uid": self.host_id, **fields}
        return await self.call("POST", "/v1/bind", json=body, token=self.token(session=session))

    async def state(self) -> dict[str, Any]:
        return await self.call("GET", "/v1/state")

    async def main(self) -> dict[str, Any]:
        return await self.call("GET", "/v1/kernels/main")

    async def events(
        self, method: str, path: str, *, until_type: str | None = None, **options: Any
    ) -> list[ExecutionEvent]:
        """Read an event stream: whole, or until the first event of a type, and then cut the connection."""
        found: list[ExecutionEvent] = []
        async with self.request(method, path, timeout=aiohttp.ClientTimeout(total=100), **options) as reply:
            if reply.status >= 400:
                raise Refused(reply.status, await reply.json())
            rest = b""
            async for chunk in reply.content.iter_any():
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    event = decode_event(line)
                    found.append(event)
                    if until_type and type(event).__struct_config__.tag == until_type:
                        reply.close()
                        return found
        assert not rest
        return found

    async def run(
        self,
        code: str,
        *,
        execution: str | None = None,
        kernel: str = "main",
        until_type: str | None = None,
        **fields: Any,
    ) -> list[ExecutionEvent]:
        path = f"/v1/kernels/{kernel}/executions/{execution or uuid.uuid4()}"
        return await self.events("PUT", path, json={"code": code, **fields}, until_type=until_type)

    async def outcome(self, code: str, **options: Any) -> Finished:
        events = await self.run(code, **options)
        assert isinstance(events[-1], Finished), events
        assert [event.n for event in events] == list(range(1, len(events) + 1))
        return events[-1]

    async def text(self, code: str, **options: Any) -> str:
        """Return what the code wrote to standard output; it must end well."""
        events = await self.run(code, **options)
        assert isinstance(events[-1], Finished), events
        assert events[-1].status == "ok", events
        return "".join(event.text for event in events if isinstance(event, Stdout))

    async def ack(self, execution: str, n: int, *, kernel: str = "main") -> dict[str, Any]:
        return await self.call("POST", f"/v1/kernels/{kernel}/executions/{execution}/ack", json={"n": n})


class Host(HostClient):
    """One host process on a workspace; `restart_program` starts another on the same."""

    def __init__(self, folder: Path, *flags: str, user: int | None = None, within: Sequence[str] = ()) -> None:
        super().__init__(f"host-{uuid.uuid4().hex[:8]}")
        self.folder = folder
        self.workspace = folder / "workspace"
        self.flags = flags
        self.user = user
        self.within = within
        # Socket paths have 107 characters at most, and pytest's folders are long.
        self.short = Path(tempfile.mkdtemp(prefix="ck-"))
        self.socket = self.short / "host.sock"
        self.log = folder / "host.log"
        self.process: asyncio.subprocess.Process | None = None

    @classmethod
    @asynccontextmanager
    async def running(
        cls, folder: Path, *flags: str, user: int | None = None, within: Sequence[str] = ()
    ) -> AsyncIterator[Host]:
        """Run a host; `within` is what its command begins with, such as a disk or a control group of its own."""
        host = cls(folder, *flags, user=user, within=within)
        host.workspace.mkdir(exist_ok=True)
        host.write_keys(PublicKey("gateway-1", public_key_of(host.private_key), sorted(ALL_SCOPES)))
        if user is not None:
            for path in (host.workspace, host.short):
                os.chown(path, user, user)
        try:
            await host.start()
            yield host
        finally:
            await host.stop()
            with suppress(OSError):
                host.socket.unlink(missing_ok=True)
            for path in sorted(host.short.rglob("*"), reverse=True):
                with suppress(OSError):
                    path.rmdir() if path.is_dir() else path.unlink()
            with suppress(OSError):
                host.short.rmdir()

    def connector(self) -> aiohttp.BaseConnector:
        return aiohttp.UnixConnector(str(self.socket), limit=0)

    def write_keys(self, *keys: PublicKey) -> None:
        temporary = self.short / "keys.new"
        temporary.write_bytes(msgspec.json.encode(KeySet(keys=list(keys))))
        temporary.chmod(0o644)
        temporary.replace(self.short / "keys.json")

    def command(self) -> list[str]:
        command = [
            sys.executable,
            "-m",
            "carrel_kernel",
            f"--listen=unix:{self.socket}",
            f"--host-id={self.host_id}",
            f"--keys={self.short / 'keys.json'}",
            f"--workspace={self.workspace}",
            f"--runtime-dir={self.short}",
            "--preload=",  # what a test does not need is not imported; a later flag wins
            *self.flags,
        ]
        rights = () if self.user is None else self.drop_rights(self.user)
        return [*self.within, *rights, *command]

    def drop_rights(self, user: int) -> list[str]:
        """Return what a command begins with to run as a user without rights.

        Where the interpreter is in a folder that only root may enter, that folder is opened to all in a mount
        namespace of its own: an overlay takes the mode of its upper layer.
        """
        folders = (*Path(sys.base_prefix).parents, *Path(sys.prefix).parents, *ROOT.parents)
        closed = {str(folder) for folder in folders if not folder.stat().st_mode & 0o001}
        rights = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", "--"]
        if not closed:
            return rights
        layers = self.short / "layers"
        layers.mkdir(exist_ok=True)
        opened = (
            'mount -t tmpfs none "$0" && while [ "$1" != -- ]; do mkdir -p "$0/up$1" "$0/work$1" && '
            'mount -t overlay none -o "lowerdir=$1,upperdir=$0/up$1,workdir=$0/work$1" "$1" && shift || exit 1; '
            'done; shift; exec "$@"'
        )
        return ["unshare", "--mount", "sh", "-c", opened, str(layers), *sorted(closed), "--", *rights]

    async def start(self) -> None:
        self.socket.unlink(missing_ok=True)
        self.process = await self.spawn()
        await self.cut()
        await until(self._listens, what="listening")

    async def spawn(self) -> asyncio.subprocess.Process:
        """Return the program's process, which may be about to listen or to end."""
        with self.log.open("ab") as log:
            return await asyncio.create_subprocess_exec(
                *self.command(),
                env={
                    "PATH": os.environ["PATH"],
                    "HOME": str(self.short),
                    "PYTHONPATH": str(ROOT / "kernel-image"),
                    "PYTHONDONTWRITEBYTECODE": "1",
                    "SECRET_OF_THE_HOST": "only-the-host-knows",
                },
                stderr=log,
                stdout=log,
            )

    async def _listens(self) -> bool:
        assert self.process
        assert self.process.returncode is None, self.log.read_text()
        with suppress(OSError):
            _, writer = await asyncio.open_unix_connection(str(self.socket))
            writer.close()
            await writer.wait_closed()
            return True
        return False

    async def stop(self, number: int = 15) -> int:
        assert self.process
        if self.process.returncode is None:
            self.process.send_signal(number)
            try:
                async with asyncio.timeout(30):
                    await self.process.wait()
            except TimeoutError:
                self.process.kill()
                await self.process.wait()
                raise
        if self.http:
            await self.http.close()
        return self.process.returncode or 0

    async def clean(self) -> None:
        """Leave to the next test what a host has that was just bound: a new kernel, and an empty folder."""
        for kernel in (await self.state())["kernels"]:
            if kernel["id"] != "main":
                await self.call("DELETE", f"/v1/kernels/{kernel['id']}")
        await self.call("POST", "/v1/kernels/main/restart")
        packages = self.workspace / ".packages"
        for path in (*self.workspace.iterdir(), *packages.iterdir()):
            if path not in {packages, self.workspace / ".carrel"}:
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()

    async def restart_program(self, number: int = 9) -> None:
        """End the host by a signal and start another one, as another pod of the same workspace would."""
        await self.stop(number)
        await self.start()
