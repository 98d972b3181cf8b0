"""The Jupyter protocol over the WebSocket, against the real host, with jupyter_client and jupyter_server as oracles.

Plan
- Both framings: what a client executes comes back; messages are packed and unpacked by jupyter_server's own code.
- What comes over the WebSocket equals what the kernel says to jupyter_client in the same version of ipykernel.
- Two clients see each other's output; a client's code and the host's executions share the kernel.
- Nonsense closes that client's socket alone; a restart is told and survived; a slow reader does not stop the kernel.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import pytest
from jupyter_client.manager import start_new_kernel
from tests.integration.kernel.host import Host, until
from tests.integration.kernel.jupyter import connect, printed


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
            with suppress(RuntimeError):  # there is none
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
                    assert await bad.closed() == 1007, frame
        await good.execute("1")


async def test_a_client_that_does_not_read_is_cut_off_and_stops_nobody(host: Host) -> None:
    async with connect(host):  # connected, and then it reads nothing more
        text = await host.text("for _ in range(100): print('x' * 1_000_000)\nprint('end')")
        assert text.endswith("end\n") or len(text) > 60_000_000
    assert await host.text("print('on')") == "on\n"
