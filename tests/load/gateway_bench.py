"""The part "Gateway" of the benchmarks: a gateway as a company runs it, beside what others would have in its place.

    python -m tests.load.gateway_bench                   a short run, printed
    python -m tests.load.gateway_bench --write PATH      a full run, printed and written; the page's other parts stay

Every call is by a key of an ordinary user, counted for its limit in Redis, and what it does is committed to a Postgres
that waits for its disk, under row-level security. Postgres and Redis are started for the run, on the same machine.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Final, TypeAlias
from uuid import UUID

import aiohttp
import uvloop
from tests.load import measures
from tests.load.page import machine, write_part
from tests.load.peers import CarrelServer, JupyterServer, Server, child, free_port, until_answers
from tests.load.requests import Answers, ask
from tests.load.rows import table
from tests.support import servers
from tests.support.people import new_key, new_user
from tests.support.state import new_principal, open_state

from carrel_gateway.history.service import HistoryService
from carrel_gateway.identity.rights import Role
from carrel_gateway.sessions.service import SessionService
from carrel_gateway.settings import Settings
from carrel_gateway.storage.ids import new_id
from carrel_kernel.limits import cpu_seconds
from carrel_wire.log import UserMessage

Measure: TypeAlias = Callable[[Server, int], Awaitable[str]]

MESSAGES: Final = 10
CONNECTIONS: Final = 8
TURNS: Final = 6
SETTINGS: Final = {
    "CARREL_RATE_PER_PRINCIPAL": "1000000",  # counted as always, and never reached
    "CARREL_LOG_LEVEL": "info",  # the default, with a line for each request
}
AT_ONCE: Final = "executions of 8 clients with a kernel each"
ROWS: Final[tuple[tuple[str, Measure, str], ...]] = (
    ("`1+1`, warm", measures.warm_execution, "< 8 ms"),
    (AT_ONCE, measures.executions_at_once, "≥ 450/s"),
    ("attach to a running kernel → reply", measures.attach, "< 20 ms"),
)
LATE: Final = "… by which the event loop was late, at most"
READ: Final = f"authenticated read of {MESSAGES} messages, one worker"
HEAD: Final = ("work", "Carrel", "the peer", "target")


@dataclass(frozen=True, slots=True)
class Setup:
    """Somebody with a key, and a session with messages, in a database."""

    database_url: str
    redis_url: str
    key: str
    session_id: UUID


@asynccontextmanager
async def durable_servers() -> AsyncGenerator[tuple[str, str]]:
    """Run a Postgres with its default settings, which wait for the disk, and a Redis; yield their addresses."""
    data, redis = (Path(tempfile.mkdtemp(prefix=f"carrel-bench-{name}-")) for name in ("postgres", "redis"))
    started: list[subprocess.Popen[bytes]] = []
    try:
        binaries = await asyncio.to_thread(servers.init_postgres, data)
        port = free_port()
        started.append(await asyncio.to_thread(servers.start_postgres, data, binaries, port))
        postgres = servers.Postgres(port, binaries)
        await asyncio.to_thread(servers.make_template, postgres)
        redis_port = free_port()
        started.append(await asyncio.to_thread(servers.start_redis, redis_port, redis))
        yield postgres.url(postgres.clone(), servers.LOGIN), f"redis://127.0.0.1:{redis_port}/0"
    finally:
        for process in reversed(started):
            await asyncio.to_thread(servers.stop, process, signal.SIGINT)
        shutil.rmtree(data)
        shutil.rmtree(redis)


async def set_up(database_url: str, redis_url: str, folder: Path) -> Setup:
    """Make a tenant with a user who is no administrator, their key, and a session of theirs."""
    settings = Settings(_env_file=None, data_dir=folder, database_url=database_url)  # pyright: ignore[reportCallIssue]
    async with open_state(settings) as context:
        user = await new_user(context.database, (await new_principal(context.database)).tenant_id, Role.USER)
        key, _ = await new_key(context.database, user)
        session_id = (await SessionService(context, user).create()).id
        said = [UserMessage(message_id=new_id(), content="q" * 100) for _ in range(MESSAGES)]
        await HistoryService(context, user).append(session_id, said, actor="user")
    return Setup(database_url, redis_url, key, session_id)


@asynccontextmanager
async def orm_peer(database_url: str, folder: Path) -> AsyncGenerator[tuple[str, int]]:
    """Run the peer of reads; yield its address and its process."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = (sys.executable, "-m", "tests.load.orm_peer", str(port), database_url)
    async with child(*command, env={}, log=folder / "log") as process, aiohttp.ClientSession() as session:
        await until_answers(session, f"{url}/health", process)
        yield url, process.pid


async def read_line(setup: Setup, carrel: CarrelServer, folder: Path, seconds: float) -> str:
    """Return the line of reads: in turns, so that what else the machine does meets both alike."""
    path = f"/api/sessions/{setup.session_id}/messages?limit={MESSAGES}"
    rates: list[list[float]] = [[], []]
    costs: list[list[float]] = [[], []]
    async with orm_peer(setup.database_url, folder) as (url, process_id):
        both = ((carrel.url, carrel.process_id), (url, process_id))
        for turn in range(TURNS + 1):
            for place, (address, pid) in enumerate(both):
                before = cpu_seconds(pid)
                found: Answers = await ask(address + path, setup.key, connections=CONNECTIONS, seconds=seconds)
                if turn:  # the first one is for connections and caches
                    rates[place].append(found.rate)
                    costs[place].append((cpu_seconds(pid) - before) / found.count)
    cells = [
        f"{statistics.median(rates[place]):.0f}/s ({statistics.median(costs[place]) * 1000:.2f} ms of its CPU each)"
        for place in (0, 1)
    ]
    as_many = statistics.median(mine / theirs for mine, theirs in zip(*rates, strict=True))
    return f"| {READ} | {cells[0]}, {as_many:.1f} times as many | FastAPI with an ORM: {cells[1]} | ≥ 1,000/s |"


async def late_line(port: int) -> str:
    """Return the line of the event loop, which Carrel measures itself; the most of the last half minute."""
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}/metrics") as reply:
        found = re.search(r"^carrel_event_loop_lag_seconds (\S+)$", await reply.text(), re.MULTILINE)
    if found is None:
        raise RuntimeError("the gateway does not tell how late its event loop is")
    return f"| {LATE} | {float(found[1]) * 1000:.1f} ms | jupyter_server does not tell | < 50 ms |"


async def measure(database_url: str, redis_url: str, *, times: int, only: str = "", read_seconds: float = 2.0) -> str:
    """Measure every line for Carrel and its peer, and return the table as Markdown."""
    lines: list[str] = []
    with tempfile.TemporaryDirectory(prefix="carrel-bench-") as name:
        folder = Path(name)
        setup = await set_up(database_url, redis_url, folder / "carrel")
        metrics_port = free_port()
        settings = {
            **SETTINGS,
            "CARREL_DATABASE_URL": database_url,
            "CARREL_REDIS_URL": redis_url,
            "CARREL_METRICS_PORT": str(metrics_port),
        }
        async with CarrelServer.start(folder / "carrel", key=setup.key, settings=settings) as carrel:
            if only in READ:
                lines.append(await read_line(setup, carrel, folder / "orm", read_seconds))
                print(lines[-1], flush=True)
            wanted = [row for row in ROWS if only in row[0]]
            if wanted:
                async with JupyterServer.start("jupyter_server", folder / "jupyter") as jupyter:
                    for work, run, target in wanted:
                        cells = [await run(carrel, times), f"jupyter_server: {await run(jupyter, times)}"]
                        lines.append("| " + " | ".join([work, *cells, target]) + " |")
                        print(lines[-1], flush=True)
                        if work == AT_ONCE:
                            lines.append(await late_line(metrics_port))
                            print(lines[-1], flush=True)
    return table(HEAD, lines)


def page(found: str, times: int) -> str:
    """Return the part of the page as Markdown."""
    jupyter, fastapi, orm = (version(name) for name in ("jupyter_server", "fastapi", "sqlalchemy"))
    return f"""
{machine()}; {times} executions per line, median and p99; the load average was {os.getloadavg()[0]:.1f} at the end.
Every call is over HTTP with an API key of a user who is no administrator, and is counted for the user's limit in Redis;
what is executed is in the history before it is answered, on a Postgres that waits for its disk, under row-level
security. Gateway, kernel hosts, Postgres, Redis, the peers and the client share the cores.

The peers are `jupyter_server` {jupyter}, which keeps no history, and for reads the same route as a program of
FastAPI {fastapi} and the ORM of SQLAlchemy {orm} on asyncpg (`tests/load/orm_peer.py`): one worker each, the same rows,
role and policies, {CONNECTIONS} connections, in turns. It remembers as Carrel does who a key is, and counts no calls.

{found}
"""


async def run(times: int, only: str) -> str:
    """Measure with servers of the run's own."""
    async with durable_servers() as (database_url, redis_url):
        return await measure(database_url, redis_url, times=times, only=only)


def main() -> None:
    """Measure and print; write the page when asked."""
    parser = argparse.ArgumentParser(description="A gateway over Postgres and Redis beside what others would have")
    parser.add_argument("--write", type=Path, help="file of the page")
    parser.add_argument("--times", type=int, default=0, help="executions per line; 200 when writing, else 40")
    parser.add_argument("--only", default="", help="only lines with this text")
    arguments = parser.parse_args()
    times = arguments.times or (200 if arguments.write else 40)
    found = uvloop.run(run(times, arguments.only))
    if arguments.write:
        write_part(arguments.write, "Gateway", page(found, times))


if __name__ == "__main__":
    main()
