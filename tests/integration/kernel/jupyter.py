"""A client of the WebSocket in one of the two framings, packed and unpacked by jupyter_server where it has the code."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
from jupyter_server.services.kernels.connection.base import (
    deserialize_binary_message,
    deserialize_msg_from_ws_v1,
    serialize_binary_message,
    serialize_msg_to_ws_v1,
)
from tests.integration.kernel.host import Host

V1 = "v1.kernel.websocket.jupyter.org"
NAMES = ("header", "parent_header", "metadata", "content")
DATA = (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY)


class Client:
    """One WebSocket."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse, v1: bool) -> None:
        self.socket = socket
        self.v1 = v1
        self.session = uuid.uuid4().hex

    async def send(
        self,
        msg_type: str,
        content: dict[str, Any],
        channel: str = "shell",
        *,
        buffers: tuple[bytes, ...] = (),
        **header: Any,
    ) -> str:
        """Send a request and return its id."""
        header = {"msg_id": uuid.uuid4().hex, "msg_type": msg_type, "session": self.session, "username": "u"} | header
        header = {"date": "2026-01-01T00:00:00Z", "version": "5.3"} | header
        if self.v1:
            parts = [json.dumps(part).encode() for part in (header, {}, {}, content)]
            await self.socket.send_bytes(serialize_msg_to_ws_v1([*parts, *buffers], channel))
            return header["msg_id"]
        message = {"header": header, "parent_header": {}, "metadata": {}, "content": content, "channel": channel}
        if buffers:
            await self.socket.send_bytes(bytes(serialize_binary_message({**message, "buffers": list(buffers)})))
        else:
            await self.socket.send_str(json.dumps({**message, "buffers": []}))
        return header["msg_id"]

    async def receive(self) -> dict[str, Any]:
        """Return the next message; its `buffers` are bytes."""
        async with asyncio.timeout(30):
            frame = await self.socket.receive()
        assert frame.type in DATA, frame
        if not self.v1:
            message = json.loads(frame.data) if isinstance(frame.data, str) else deserialize_binary_message(frame.data)
            return {**message, "buffers": [bytes(buffer) for buffer in message["buffers"]]}
        channel, parts = deserialize_msg_from_ws_v1(frame.data)
        found = dict(zip(NAMES, map(json.loads, parts[:4]), strict=True))
        return {**found, "channel": channel, "msg_type": found["header"]["msg_type"], "buffers": parts[4:]}

    async def until(self, msg_type: str, parent: str | None = None) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """Return the first message of a type, and all that came before it."""
        return await self.until_that(
            lambda message: message["msg_type"] == msg_type and parent in (None, message["parent_header"].get("msg_id"))
        )

    async def until_that(self, wanted: Callable[[dict[str, Any]], bool]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """Return the first message that is wanted, and all that came before it."""
        before = []
        while not wanted(message := await self.receive()):
            before.append(message)
        return message, before

    async def ask(self, msg_type: str, content: dict[str, Any], channel: str = "shell", **more: Any) -> dict[str, Any]:
        """Send a request and return the content of its reply."""
        request = await self.send(msg_type, content, channel, **more)
        wanted = (msg_type.replace("_request", "_reply"), channel, request)
        reply, _ = await self.until_that(
            lambda message: (message["msg_type"], message["channel"], message["parent_header"].get("msg_id")) == wanted
        )
        return reply["content"]

    async def results(self, request: str) -> list[dict[str, Any]]:
        """Return all messages that belong to a request, when both reply and idle have come."""
        found: list[dict[str, Any]] = []
        ends = set()
        while ends != {"reply", "idle"}:
            message = await self.receive()
            if message["parent_header"].get("msg_id") != request:
                continue
            found.append(message)
            if message["msg_type"] == "execute_reply":
                ends.add("reply")
            if message["msg_type"] == "status" and message["content"]["execution_state"] == "idle":
                ends.add("idle")
        return found

    async def execute(self, code: str, **content: Any) -> list[dict[str, Any]]:
        """Run code and return all messages that belong to it."""
        return await self.results(await self.send("execute_request", {"code": code, **content}))

    async def closed(self) -> int | None:
        """Read on until the host closes, and return its code."""
        async with asyncio.timeout(30):
            while (await self.socket.receive()).type in DATA:
                pass
        return self.socket.close_code


@asynccontextmanager
async def connect(
    host: Host, *, v1: bool = True, wait: bool = True, kernel: str = "main", session: str | None = None
) -> AsyncIterator[Client]:
    """Connect, and unless told otherwise wait until what others do is seen, too."""
    assert host.http
    socket = await host.http.ws_connect(
        f"http://host/v1/kernels/{kernel}/channels",
        params={"session_id": session} if session else {},
        headers={"Authorization": f"Bearer {host.token(['execute'])}"},
        protocols=(V1,) if v1 else (),
        max_msg_size=0,
    )
    assert socket.protocol == (V1 if v1 else None)
    try:
        client = Client(socket, v1)
        if wait:
            await client.until("iopub_welcome")
        yield client
    finally:
        await socket.close()


def printed(messages: list[dict[str, Any]], name: str = "stdout") -> str:
    """Return what was printed; a slow machine may send a line and its end apart."""
    streams = [message["content"] for message in messages if message["msg_type"] == "stream"]
    return "".join(content["text"] for content in streams if content["name"] == name)


def of_type(messages: list[dict[str, Any]], msg_type: str) -> list[dict[str, Any]]:
    """Return the contents of messages of a type."""
    return [message["content"] for message in messages if message["msg_type"] == msg_type]
