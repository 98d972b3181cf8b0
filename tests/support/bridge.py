"""A kernelspec's program that is no kernel but the way to one of a kernel host: `bridge.py CONNECTION_FILE`.

Any program of the Jupyter family that starts its own kernels can so be tried, unchanged, against a remote kernel: it
writes a connection file and starts this; this creates a kernel on the host and carries messages between ZeroMQ and the
WebSocket. It ends, and its kernel with it, when the kernel was shut down or died, and on SIGTERM and SIGINT. A bridge
that was killed cannot clean up; the next one ends the kernel that it left.

`CARREL_BRIDGE` names a file of JSON: `socket` (of the host), `host_id`, `session`, `private_key`, `kid`.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import aiohttp
import zmq
import zmq.asyncio

from carrel_kernel import protocol
from carrel_kernel.framing import V1, pack_v1, unpack_v1
from carrel_wire.tokens import ALL_SCOPES, Signer

REQUESTS: Final = ("shell", "control", "stdin")


class Front:
    """The sockets of a kernel, as a client finds them in its connection file."""

    def __init__(self, connection: dict[str, Any]) -> None:
        self._key = connection["key"].encode()
        self._seen = protocol.Signatures()
        self.context = zmq.asyncio.Context()
        self._sockets = {name: self._bind(connection, name, zmq.ROUTER) for name in REQUESTS}
        self._sockets["iopub"] = self._bind(connection, "iopub", zmq.XPUB)
        self._heartbeat = self._bind(connection, "hb", zmq.REP)
        self._senders: dict[str, list[bytes]] = {}
        """Identities of who sent a request, by its id: replies and input requests go back there."""

    def _bind(self, connection: dict[str, Any], name: str, kind: int) -> zmq.asyncio.Socket:
        socket = self.context.socket(kind)
        socket.setsockopt(zmq.SNDHWM, 0)  # a slow client is told everything, too
        if kind == zmq.XPUB:
            socket.setsockopt(zmq.XPUB_VERBOSE, 1)
        separator = "-" if connection["transport"] == "ipc" else ":"
        socket.bind(f"{connection['transport']}://{connection['ip']}{separator}{connection[name + '_port']}")
        return socket

    async def beat(self) -> None:
        """Answer the heartbeat: this process lives as long as its kernel."""
        while True:
            await self._heartbeat.send(await self._heartbeat.recv())

    async def welcome(self) -> None:
        """Welcome each subscriber, as a kernel does."""
        while True:
            change = await self._sockets["iopub"].recv()
            if change[:1] == b"\1":
                header = protocol.header("iopub_welcome", uuid.uuid4().hex, "bridge")
                frames = protocol.pack(self._key, header, {"subscription": change[1:].decode()})
                await self._sockets["iopub"].send_multipart([change[1:], *frames])

    async def requests(self, channel: str, remote: aiohttp.ClientWebSocketResponse) -> None:
        """Carry what clients send on a channel."""
        while True:
            frames = await self._sockets[channel].recv_multipart()
            parts = protocol.verify(self._key, frames, self._seen)
            self._senders[json.loads(parts[0])["msg_id"]] = frames[: frames.index(protocol.DELIMITER)]
            await remote.send_bytes(pack_v1(channel, parts))

    async def messages(self, remote: aiohttp.ClientWebSocketResponse) -> None:
        """Carry what the kernel sends, until it has shut down or died."""
        async for frame in remote:
            channel, parts = unpack_v1(frame.data)
            header, parent, content = json.loads(parts[0]), json.loads(parts[1]), json.loads(parts[3])
            if header["msg_type"] == "iopub_welcome":  # the bridge's own subscription
                continue
            identities = [header["msg_type"].encode()] if channel == "iopub" else self._senders[parent["msg_id"]]
            await self._sockets[channel].send_multipart([*identities, *protocol.sign(self._key, parts)])
            died = header["msg_type"] == "status" and content["execution_state"] == "restarting"
            if died or header["msg_type"] == "shutdown_reply":
                return


class Back:
    """The kernel host."""

    def __init__(self, where: dict[str, str]) -> None:
        self._where = where
        self._signer = Signer(where["kid"], where["private_key"])
        self._http = aiohttp.ClientSession("http://host", connector=aiohttp.UnixConnector(where["socket"]))

    def _headers(self) -> dict[str, str]:
        where = self._where
        token = self._signer.token(audience=where["host_id"], session_uid=where["session"], scopes=ALL_SCOPES)
        return {"Authorization": f"Bearer {token}"}

    async def _call(self, method: str, path: str, **options: Any) -> Any:
        async with self._http.request(method, path, headers=self._headers(), **options) as reply:
            reply.raise_for_status()
            return await reply.json() if reply.content_length else None

    async def _sweep(self) -> None:
        """End the kernels of bridges that were killed."""
        for kernel in await self._call("GET", "/v1/kernels"):
            if _left_behind(kernel["id"]):
                await self._call("DELETE", f"/v1/kernels/{kernel['id']}")

    @asynccontextmanager
    async def kernel(self) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
        """Create a kernel, connect to it, and end it afterwards."""
        kernel = f"bridge-{uuid.uuid4().hex[:12]}-{os.getpid()}"
        async with self._http:
            await self._sweep()
            await self._call("POST", "/v1/kernels", json={"id": kernel})
            try:
                path = f"/v1/kernels/{kernel}/channels"
                async with self._http.ws_connect(
                    path, headers=self._headers(), protocols=(V1,), max_msg_size=0
                ) as remote:
                    yield remote
            finally:
                await self._call("DELETE", f"/v1/kernels/{kernel}")


def _left_behind(kernel: str) -> bool:
    """Whether a kernel's id is that of a bridge whose process has gone."""
    name, _, pid = kernel.rpartition("-")
    return name.startswith("bridge-") and not Path(f"/proc/{pid}").exists()


async def bridge(connection: dict[str, Any], where: dict[str, str]) -> None:
    """Be a kernel until it ends or this process is told to."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    front = Front(connection)
    async with Back(where).kernel() as remote:
        ways = [front.messages(remote), stop.wait(), front.beat(), front.welcome()]
        ways += [front.requests(channel, remote) for channel in REQUESTS]
        tasks = [asyncio.ensure_future(way) for way in ways]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
    front.context.destroy(linger=1000)
    for end in ends:
        if isinstance(end, Exception):
            raise end


if __name__ == "__main__":
    texts = [Path(name).read_text() for name in (sys.argv[1], os.environ["CARREL_BRIDGE"])]
    asyncio.run(bridge(*map(json.loads, texts)))
