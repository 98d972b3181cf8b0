"""The part "Streams" of the benchmarks: what a token costs beside FastAPI's own way, and what idle readers hold.

    python -m tests.load.relay                   measured and printed
    python -m tests.load.relay --write PATH      written into the page too; its other parts stay

A relay is measured within one process, from the news of a token to the bytes that the server would write: CPU time, so
that the machine's other work counts less. Idle readers are connections over loopback to a gateway of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final, cast

import aiohttp
from fastapi import FastAPI
from fastapi.sse import EventSourceResponse, ServerSentEvent
from tests.load.page import machine, write_part
from tests.load.peers import call, child, free_port, until_answers
from tests.load.rows import table
from tests.support.state import new_principal, open_state

from carrel_gateway.history.events import LiveEvent
from carrel_gateway.history.routes import encoded
from carrel_gateway.history.service import HistoryService
from carrel_gateway.sessions.service import SessionService
from carrel_gateway.settings import Settings
from carrel_gateway.web import sse

TOKENS: Final = 20_000
BURST: Final = 32
"""Tokens that come while the loop does other things; 1 means that each is relayed alone."""
IDLE: Final = 1_000
TOKEN: Final = {"text": " of"}
_NO_TIMEOUT: Final = aiohttp.ClientTimeout(total=None)


class Sink:
    """The server that an application writes to."""

    def __init__(self) -> None:
        self.body = 0
        self.writes = 0
        self.events = 0
        self.gone = asyncio.Event()

    async def receive(self) -> dict[str, Any]:
        """Say that the reader has gone, once it has."""
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: dict[str, Any]) -> None:
        """Take what is written."""
        body = message.get("body", b"")
        self.writes += bool(body)
        self.events += body.count(b"\n\n")


async def carrel(burst: int) -> tuple[float, Sink]:
    """Return the CPU seconds of a token from its publishing to its bytes."""
    with tempfile.TemporaryDirectory(prefix="carrel-bench-") as folder:
        async with open_state(Settings(_env_file=None, data_dir=Path(folder))) as context:  # pyright: ignore[reportCallIssue]
            principal = await new_principal(context.database)
            history = HistoryService(context, principal)
            session_id = (await SessionService(context, principal).create()).id
            sink = Sink()
            stream = sse.EventStream(encoded(history.relay(session_id, after=0), None), asyncio.Event(), _holds)
            serving = asyncio.create_task(stream({"type": "http"}, sink.receive, cast("Any", sink.send)))
            while not sink.events:
                await history.publish_live(session_id, LiveEvent("text.delta", "warm", TOKEN))
                await asyncio.sleep(0.01)
            await _quiet(sink)
            sink.events = sink.writes = 0
            names = [f"{session_id}.{place}" for place in range(TOKENS)]
            began = time.process_time()
            for place, name in enumerate(names):
                await history.publish_live(session_id, LiveEvent("text.delta", name, TOKEN))
                if place % burst == burst - 1:
                    while sink.events <= place:  # noqa: ASYNC110  an event would be a part of what is measured
                        await asyncio.sleep(0)
            spent = time.process_time() - began
            sink.gone.set()
            await serving
            return spent / TOKENS, sink


async def _holds() -> bool:
    return True


async def _quiet(sink: Sink) -> None:
    seen = -1
    while seen != sink.events:
        seen = sink.events
        await asyncio.sleep(0.05)


async def fastapi(burst: int) -> tuple[float, Sink]:
    """Return the same of FastAPI: a generator of events that come in such bursts."""
    app = FastAPI()

    @app.get("/", response_class=EventSourceResponse)
    async def tokens() -> AsyncIterator[ServerSentEvent]:
        for place in range(TOKENS):
            document = {"live": True, "id": f"x.{place}", "type": "text.delta", "payload": TOKEN}
            yield ServerSentEvent(event="text.delta", data=document)
            if place % burst == burst - 1:
                await asyncio.sleep(0)

    sink = Sink()
    scope = {"type": "http", "method": "GET", "path": "/", "headers": [], "query_string": b"", "app": app}
    began = time.process_time()
    await app(scope, sink.receive, cast("Any", sink.send))
    return (time.process_time() - began) / TOKENS, sink


async def relay_line(burst: int, times: int) -> str:
    """Return the line of the table for tokens in bursts."""
    found: dict[str, list[float]] = {"carrel": [], "fastapi": []}
    writes = 0.0
    for _ in range(times):
        for name, measure in (("carrel", carrel), ("fastapi", fastapi)):
            spent, sink = await measure(burst)
            assert sink.events >= TOKENS, "not everything was relayed"
            found[name].append(spent * 1e6)
            writes = sink.events / sink.writes if name == "carrel" else writes
    ours, theirs = (statistics.median(found[name]) for name in ("carrel", "fastapi"))
    cells = [
        f"relay of a token, {burst} at once" if burst > 1 else "relay of a token that comes alone",
        f"{ours:.1f} µs (publishing included; {writes:.0f} in one write)",
        f"{theirs:.1f} µs",
        "≤ 5 µs" if burst > 1 else "",
    ]
    return "| " + " | ".join(cells) + " |"


@asynccontextmanager
async def gateway(folder: Path) -> AsyncGenerator[tuple[aiohttp.ClientSession, str, int]]:
    """Run a gateway, and yield a client of it, its address and its process."""
    port, key = free_port(), uuid.uuid4().hex
    url = f"http://127.0.0.1:{port}"
    command = ("-m", "carrel_cli", "serve", "--port", str(port), "--data-dir", str(folder))
    env = {"CARREL_API_KEY": key, "CARREL_LOG_LEVEL": "warning", "CARREL_SPARE_KERNEL_HOST": "false"}
    connector = aiohttp.TCPConnector(limit=0)
    async with (
        child(sys.executable, *command, env=env, log=folder / "log") as process,
        aiohttp.ClientSession(headers={"Authorization": f"Bearer {key}"}, connector=connector) as session,
    ):
        await until_answers(session, f"{url}/health", process)
        yield session, url, process.pid


def resident_mib(pid: int) -> float:
    """Return the proportional set of a process. Source: proc(5), `smaps_rollup`."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    return 0.0


async def idle_line(kind: str, count: int) -> str:
    """Return the line of the table for readers to whom nothing happens."""
    with tempfile.TemporaryDirectory(prefix="carrel-bench-") as folder:
        async with gateway(Path(folder)) as (session, url, pid):
            made = [(await call(session, "POST", f"{url}/api/sessions", json={}))["id"] for _ in range(50)]
            async with AsyncExitStack() as warm:
                await _open(warm, session, url, made, kind, 20)
            await asyncio.sleep(1)
            before = resident_mib(pid)
            async with AsyncExitStack() as stack:
                await _open(stack, session, url, made, kind, count)
                await asyncio.sleep(2)
                more = resident_mib(pid) - before
    return f"| {count:,} idle readers, {kind} | {more:.0f} MiB more than without | - | < 150 MiB |"


async def _open(
    stack: AsyncExitStack, session: aiohttp.ClientSession, url: str, made: list[str], kind: str, count: int
) -> None:
    opening: Callable[[str], Awaitable[None]]

    async def events(session_id: str) -> None:
        headers = {"Accept": sse.MEDIA_TYPE}
        reply = await session.get(f"{url}/api/sessions/{session_id}/events", headers=headers, timeout=_NO_TIMEOUT)
        stack.callback(reply.close)
        assert reply.status == 200

    async def socket(session_id: str) -> None:
        opened = await session.ws_connect(f"{url}/ws/chat/{session_id}")
        stack.push_async_callback(opened.close)

    opening = events if kind == "SSE" else socket
    for start in range(0, count, 50):
        await asyncio.gather(*(opening(made[place % len(made)]) for place in range(start, min(start + 50, count))))


async def measure(times: int) -> str:
    """Measure every line, and return the table."""
    lines: list[str] = []
    for line in (
        relay_line(BURST, times),
        relay_line(1, times),
        idle_line("SSE", IDLE),
        idle_line("WebSocket", IDLE),
    ):
        lines.append(await line)
        print(lines[-1], flush=True)
    return table(("work", "Carrel", "FastAPI's own", "target"), lines)


def page(found: str) -> str:
    """Return the part of the page as Markdown."""
    return f"""
{machine()}; {TOKENS:,} tokens, median of the runs. CPU time of the process, from the news of a token to the bytes
for the server's socket; FastAPI's are events that its own `EventSourceResponse` encodes. Memory is the proportional set
size of the gateway with its readers less that without, the readers spread over 50 sessions.

{found}
"""


def main() -> None:
    """Measure and print; write the page when asked."""
    parser = argparse.ArgumentParser(description="What streams cost")
    parser.add_argument("--write", type=Path, help="file of the page")
    parser.add_argument("--times", type=int, default=3, help="runs of each relay")
    arguments = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_NOFILE, (8192, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    found = asyncio.run(measure(arguments.times))
    if arguments.write:
        write_part(arguments.write, "Streams", page(found))


if __name__ == "__main__":
    main()
