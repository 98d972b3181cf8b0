"""The Jupyter protocol over the WebSocket, against the real host, with jupyter_client and jupyter_server as oracles.

Plan
- Both framings: execute, display, input, interrupt over control; messages are what jupyter_server's own code packs.
- What comes over the WebSocket equals what the kernel says to jupyter_client in the same version of ipykernel.
- Two clients see each other's output; a client's code and the host's executions share the kernel.
- Nonsense closes that client's socket alone; a restart is told and survived; a slow reader does not stop the kernel.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from jupyter_client.manager import start_new_kernel
from jupyter_server.services.kernels.connection.base import (
    deserialize_msg_from_ws_v1,
    serialize_msg_to_ws_v1,
)
from tests.integration.kernel.host import Host, until

V1 = "v1.kernel.websocket.jupyter.org"


class Client:
    """A WebSocket client in one of the two framings, packed and unpacked by jupyter_server where it has the code."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse, v1: bool) -> None:
        self.socket = socket
        self.v1 = v1
        self.session = uuid.uuid4().hex

    async def send(self, msg_type: str, content: dict[str, Any], channel: str = "shell") -> str:
        header = {"msg_id": uuid.uuid4().hex, "msg_type": msg_type, "session": self.session, "username": "u"}
        header |= {"date": "2026-01-01T00:00:00Z", "version": "5.3"}
        if self.v1:
            parts = [json.dumps(part).encode() for part in (header, {}, {}, content)]
            await self.socket.send_bytes(serialize_msg_to_ws_v1(parts, channel))
        else:
            message = {"header": header, "parent_header": {}, "metadata": {}, "content": content}
            await self.socket.send_str(json.dumps({**message, "channel": channel, "buffers": []}))
        return header["msg_id"]

    async def receive(self) -> dict[str, Any]:
        async with asyncio.timeout(30):
            message = await self.socket.receive()
        assert message.type in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY), message
        if not self.v1:
            return json.loads(message.data)
        channel, parts = deserialize_msg_from_ws_v1(message.data)
        names = ("header", "parent_header", "metadata", "content")
        found = dict(zip(names, (json.loads(part) for part in parts[:4]), strict=True))
        return {**found, "channel": channel, "msg_type": found["header"]["msg_type"]}

    async def until(self, msg_type: str, parent: str | None = None) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """Return the first message of a type, and all that came before it."""
        before = []
        while True:
            message = await self.receive()
            if message["msg_type"] == msg_type and parent in (None, message["parent_header"].get("msg_id")):
                return message, before
            before.append(message)

    async def execute(self, code: str, **content: Any) -> list[dict[str, Any]]:
        """Run code and return all messages that belong to it, when both reply and idle have come."""
        request = await self.send("execute_request", {"code": code, **content})
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


@asynccontextmanager
async def connect(host: Host, *, v1: bool = True, wait: bool = True) -> AsyncIterator[Client]:
    """Connect, and unless told otherwise wait until what others do is seen, too."""
    assert host.http
    socket = await host.http.ws_connect(
        "http://host/v1/kernels/main/channels",
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


def printed(messages: list[dict[str, Any]]) -> str:
    """Return what was printed; a slow machine may send a line and its end apart."""
    streams = [message["content"] for message in messages if message["msg_type"] == "stream"]
    return "".join(content["text"] for content in streams if content["name"] == "stdout")


@pytest.mark.parametrize("v1", [True, False])
async def test_a_client_executes(host: Host, v1: bool) -> None:
    async with connect(host, v1=v1) as client:
        messages = await client.execute("print('hello')\n40 + 2")
        by_type = {message["msg_type"]: message for message in messages}
        assert printed(messages) == "hello\n"
        assert by_type["execute_result"]["content"]["data"] == {"text/plain": "42"}
        assert by_type["execute_reply"]["content"]["status"] == "ok"
        assert by_type["execute_reply"]["channel"] == "shell"
        assert by_type["stream"]["channel"] == "iopub"


def shape(message: dict[str, Any]) -> Any:
    """Return what must be equal between two kernels that ran the same."""
    content = {key: value for key, value in message["content"].items() if key not in ("traceback", "started", "engine")}
    if message["msg_type"] in ("execute_reply", "kernel_info_reply"):
        content = {key: content.get(key) for key in ("status", "execution_count", "protocol_version", "implementation")}
    return message["msg_type"], content


async def test_a_kernel_says_the_same_as_to_jupyter_client(host: Host) -> None:
    codes = [
        "import sys; sys.stdout.write('a\\n'); sys.stderr.write('b\\n'); None",  # whole, unlike `print`
        "1 + 1",
        "from IPython.display import display, HTML; display(HTML('<b>x</b>'), metadata={'m': 1}); None",
        "raise ValueError('no')",
        "x = 5; x?",
    ]

    def oracle() -> list[list[Any]]:
        manager, client = start_new_kernel(kernel_name="python3")
        try:
            results = []
            for code in codes:
                found: list[Any] = []
                reply = client.execute_interactive(code, output_hook=found.append, timeout=30)
                results.append([shape(message) for message in found] + [shape(reply)])
            return results
        finally:
            client.stop_channels()
            manager.shutdown_kernel(now=True)
            asyncio.get_event_loop().close()  # jupyter_client made one for this thread and leaves it

    expected = await asyncio.to_thread(oracle)
    async with connect(host) as client:
        for code, wanted in zip(codes, expected, strict=True):
            found = [shape(message) for message in await client.execute(code)]
            assert sorted(map(repr, found)) == sorted(map(repr, wanted)), code


async def test_a_client_that_asks_at_once_misses_nothing(host: Host) -> None:
    for number in range(20):
        async with connect(host, wait=False) as client:
            messages = await client.execute(f"print({number})")
            assert printed(messages) == f"{number}\n"
            assert [message["msg_type"] for message in messages].count("status") == 2, messages


@pytest.mark.parametrize("v1", [True, False])
async def test_a_client_answers_input(host: Host, v1: bool) -> None:
    async with connect(host, v1=v1) as client:
        request = await client.send("execute_request", {"code": "print(input('name? '))", "allow_stdin": True})
        asked, _ = await client.until("input_request")
        assert asked["channel"] == "stdin"
        assert asked["content"]["prompt"] == "name? "
        await client.send("input_reply", {"value": "carrel"}, channel="stdin")
        stream, _ = await client.until("stream", request)
        assert stream["content"]["text"].startswith("carrel")


async def test_requests_of_all_kinds_are_answered(host: Host) -> None:
    async with connect(host) as client:
        for channel, request, content in (
            ("shell", "kernel_info_request", {}),
            ("control", "kernel_info_request", {}),
            ("shell", "complete_request", {"code": "prin", "cursor_pos": 4}),
            ("shell", "inspect_request", {"code": "print", "cursor_pos": 5, "detail_level": 0}),
            ("shell", "is_complete_request", {"code": "if True:"}),
            ("shell", "history_request", {"hist_access_type": "tail", "n": 1, "output": False, "raw": True}),
            ("shell", "comm_info_request", {}),
        ):
            id_ = await client.send(request, content, channel=channel)
            reply, _ = await client.until(request.replace("_request", "_reply"), id_)
            assert reply["channel"] == channel


async def test_clients_and_executions_share_the_kernel(host: Host) -> None:
    async with connect(host) as one, connect(host, v1=False) as two:
        await one.execute("shared = 1; print('from one')")
        stream, _ = await two.until("stream")
        assert stream["content"]["text"] == "from one\n"
        assert await host.text("print(shared)") == "1\n"
        assert (await host.state())["connections"] == 2
        request = await one.send(
            "execute_request", {"code": "import time\nprint('up', flush=True)\nwhile True: time.sleep(0.01)"}
        )
        await one.until("stream", request)
        assert (await host.main())["execution_state"] == "busy"
        assert (await host.call("POST", "/v1/kernels/main/interrupt"))["was_busy"] is True
        reply, _ = await one.until("execute_reply", request)
        assert reply["content"]["ename"] == "KeyboardInterrupt"
    await until(lambda: _no_connections(host))


async def _no_connections(host: Host) -> bool:
    return (await host.state())["connections"] == 0


async def test_a_restart_is_told_and_survived(host: Host) -> None:
    async with connect(host) as client:
        await client.execute("x = 1")
        await host.call("POST", "/v1/kernels/main/restart")
        while True:
            status, _ = await client.until("status")
            if status["content"]["execution_state"] == "restarting":
                break
        await client.until("iopub_welcome")
        (error,) = (message for message in await client.execute("x") if message["msg_type"] == "error")
        assert error["content"]["ename"] == "NameError"


NONSENSE: tuple[str | bytes, ...] = (
    "{",
    "[]",
    '{"channel": "iopub", "header": {}}',
    '{"channel": 5}',
    '{"channel": "shell", "header": 5}',
    b"",
    b"\x00" * 7,
    b"\xff" * 100,
    b"\x06" + b"\x00" * 7 + b"\xff" * 48,
)


async def test_nonsense_closes_that_socket_alone(host: Host) -> None:
    async with connect(host) as good:
        for frame in NONSENSE:
            for v1 in (True, False):
                async with connect(host, v1=v1) as bad:
                    await (bad.socket.send_str(frame) if isinstance(frame, str) else bad.socket.send_bytes(frame))
                    while (message := await bad.socket.receive()).type in (
                        aiohttp.WSMsgType.TEXT,
                        aiohttp.WSMsgType.BINARY,
                    ):
                        pass
                    assert message.type == aiohttp.WSMsgType.CLOSE, frame
                    assert bad.socket.close_code == 1007
        await good.execute("1")


async def test_a_client_that_does_not_read_is_cut_off_and_stops_nobody(host: Host) -> None:
    async with connect(host):  # connected, and then it reads nothing more
        text = await host.text("for _ in range(100): print('x' * 1_000_000)\nprint('end')")
        assert text.endswith("end\n") or len(text) > 60_000_000
    assert await host.text("print('on')") == "on\n"
