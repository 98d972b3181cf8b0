"""The part "Database" of the benchmarks: what every request does, by the driver itself and by SQLAlchemy's connection.

    python -m tests.load.database                            SQLite alone, printed
    python -m tests.load.database --postgres URL             and a Postgres with the schema, whose login has the roles
    python -m tests.load.database --write PATH               printed and written; the page's other parts stay

Both are the same steps, in the same process and in turn, so what else the machine does meets both alike.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeAlias

import uvloop
from tests.load.page import machine, write_part
from tests.support.state import new_principal, open_state

from carrel_gateway.context import ProcessContext
from carrel_gateway.execution import repository as executions
from carrel_gateway.history import repository
from carrel_gateway.history.service import Appended, HistoryService
from carrel_gateway.sessions.service import SessionService
from carrel_gateway.settings import Settings
from carrel_gateway.storage.ids import new_id
from carrel_gateway.storage.steps import Steps
from carrel_wire.log import CellFinished, CellOutputs, UserMessage

Work: TypeAlias = Callable[[], Awaitable[object]]

MESSAGES = 10
TURNS = 6
TURN_SECONDS = 0.5
HEAD = "| database | work | at once | by the driver | by SQLAlchemy's connection | as many | CPU of the loop, each |"


async def _rate(work: Work, at_once: int) -> tuple[float, float]:
    """Return how often it was done in a second, and the CPU seconds of the loop's thread for each."""
    began, cpu, done = time.perf_counter(), time.thread_time(), 0

    async def again() -> None:
        nonlocal done
        while time.perf_counter() - began < TURN_SECONDS:
            await work()
            done += 1

    await asyncio.gather(*(again() for _ in range(at_once)))
    return done / (time.perf_counter() - began), (time.thread_time() - cpu) / done


async def _compared(name: str, work: str, direct: Work, plain: Work, at_once: int) -> str:
    pairs = [(await _rate(direct, at_once), await _rate(plain, at_once)) for _ in range(TURNS + 1)][1:]
    (rate, cpu), (plain_rate, plain_cpu) = (
        [sum(pair[way][part] for pair in pairs) / TURNS for part in (0, 1)] for way in (0, 1)
    )
    costs = f"{cpu * 1000:.2f} beside {plain_cpu * 1000:.2f} ms"
    return (
        f"| {name} | {work} | {at_once} | {rate:.0f}/s | {plain_rate:.0f}/s | {rate / plain_rate:.1f} times | {costs} |"
    )


async def _measured(name: str, context: ProcessContext) -> list[str]:
    principal = await new_principal(context.database)
    tenant_id, database = principal.tenant_id, context.database
    session_id = (await SessionService(context, principal).create()).id
    history = HistoryService(context, principal)
    said = [UserMessage(message_id=new_id(), content="q" * 100) for _ in range(MESSAGES)]
    await history.append(session_id, said, actor="user")

    def read() -> Steps[object]:
        return (yield from repository.conversation(tenant_id, session_id, limit=MESSAGES))

    def commit() -> Steps[Appended]:
        own = new_id()
        outputs = CellOutputs(execution_id=own, last_n=2, outputs=[{"output_type": "stream", "text": "2"}])
        end = CellFinished(execution_id=own, status="ok", code="1+1")
        yield from executions.intend(
            database.dialect.name, tenant_id, own, session_id=session_id, code="1+1", status="ok", last_n=3
        )
        return (yield from history.appending(session_id, [outputs, end], actor="kernel"))

    lines: list[str] = []
    for work, begin, write in ((f"read {MESSAGES} messages", read, False), ("commit the end of `1+1`", commit, True)):

        async def plainly(begin: Callable[[], Steps[object]] = begin, write: bool = write) -> None:
            async with database.transaction(tenant_id, write=write) as tx:
                await tx.run(begin())

        async def directly(begin: Callable[[], Steps[object]] = begin, write: bool = write) -> None:
            await database.run(tenant_id, begin, write=write)

        for at_once in (1, 4):
            lines.append(await _compared(name, work, directly, plainly, at_once))
            print(lines[-1], flush=True)
    return lines


async def measure(postgres: str | None) -> str:
    """Measure both databases, or SQLite alone, and return the table as Markdown."""
    print(HEAD, flush=True)
    lines = [HEAD, "|---" * HEAD.count(" | ") + "|---|"]
    with tempfile.TemporaryDirectory(prefix="carrel-bench-") as folder:
        for name, url in (("SQLite", None), ("Postgres", postgres)):
            if name == "SQLite" or url:
                settings = Settings(_env_file=None, data_dir=Path(folder) / name, database_url=url)
                async with open_state(settings) as context:
                    lines += await _measured(name, context)
    return "\n".join(lines)


def page(table: str) -> str:
    """Return the part of the page as Markdown."""
    return f"""
{machine()}; the load average was {os.getloadavg()[0]:.1f} when it was measured.
The same steps in one process and in turn: by asyncpg, or in SQLite's own thread, and by a transaction
of SQLAlchemy's. On Postgres both are under row-level security, on the same machine. A commit is that of an execution's
record, its events and its cell.

{table}
"""


def main() -> None:
    """Measure and print; write the page when asked."""
    parser = argparse.ArgumentParser(description="Steps by the driver itself beside SQLAlchemy's connection")
    parser.add_argument("--postgres", help="address of a Postgres with the schema of this version")
    parser.add_argument("--write", type=Path, help="file of the page")
    arguments = parser.parse_args()
    table = uvloop.run(measure(arguments.postgres))
    if arguments.write:
        write_part(arguments.write, "Database", page(table))


if __name__ == "__main__":
    main()
