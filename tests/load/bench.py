"""The table of `docs/benchmarks.md`: Carrel beside a plain jupyter_server, both measured here in one run.

    python -m tests.load.bench                   a short run, printed
    python -m tests.load.bench --write PATH      a full run, printed and written

Absolute times are noisy and belong to one machine; the ratio in one run is what counts. It measures from outside, over
loopback HTTP, with the authentication and the committed history that a user has.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import platform
import statistics
import tempfile
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from tests.load.peers import CarrelServer, Desk, JupyterServer

WARM_SECONDS = 3
"""By then caches are filled, and what a server does behind a new kernel is done."""
STDOUT_BYTES = 10_000_000
STDOUT_CODE = f"for _ in range({STDOUT_BYTES // 100}): print('x' * 99)"

OpenDesk: TypeAlias = Callable[[], contextlib.AbstractAsyncContextManager[Desk]]


@dataclass(frozen=True)
class Row:
    """One line of the table; times in milliseconds."""

    work: str
    carrel: str
    peer: str
    target: str


def quantiles(samples: list[float]) -> str:
    """Return `median (p99)` of seconds, in milliseconds."""
    ordered = sorted(samples)
    p99 = ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]
    return f"{statistics.median(ordered) * 1000:.1f} ms (p99 {p99 * 1000:.1f})"


async def timed(work: Callable[[], Awaitable[object]], times: int) -> list[float]:
    """Return the seconds that each of the runs took, one after the other."""
    samples: list[float] = []
    for _ in range(times):
        began = time.perf_counter()
        await work()
        samples.append(time.perf_counter() - began)
    return samples


async def execute_in_warm_session(desk: Desk, times: int) -> str:
    warm_at = time.monotonic() + WARM_SECONDS
    while time.monotonic() < warm_at:
        await desk.execute("1+1")
    return quantiles(await timed(lambda: desk.execute("1+1"), times))


async def warm_session(open_desk: OpenDesk, times: int) -> tuple[str, str]:
    """Return what one session of a server does, while no other one is open."""
    async with open_desk() as desk:
        return await execute_in_warm_session(desk, times), await stdout_delivered(desk)


async def first_reply(open_desk: OpenDesk, times: int) -> str:
    samples: list[float] = []
    for _ in range(times):
        began = time.perf_counter()
        async with open_desk() as desk:
            await desk.execute("1+1")
            samples.append(time.perf_counter() - began)
    return quantiles(samples)


async def stdout_delivered(desk: Desk) -> str:
    began = time.perf_counter()
    received = await desk.execute(STDOUT_CODE)
    seconds = time.perf_counter() - began
    return f"{min(received / STDOUT_BYTES, 1):.0%} in {seconds:.2f} s"


@contextlib.asynccontextmanager
async def servers(folder: Path) -> AsyncGenerator[tuple[CarrelServer, JupyterServer]]:
    async with CarrelServer.start(folder / "carrel") as carrel, JupyterServer.start(folder / "jupyter") as jupyter:
        yield carrel, jupyter


async def measure(times: int) -> list[Row]:
    """Run every line of the table once for each server."""
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="carrel-bench-") as folder:
        async with servers(Path(folder)) as (carrel, jupyter):
            starts = max(2, times // 40)
            rows.append(
                Row(
                    "create a session → first reply of its kernel",
                    await first_reply(carrel.desk, starts),
                    await first_reply(jupyter.desk, starts),
                    "later < 100 ms (fork server)",
                )
            )
            results = [await warm_session(server.desk, times) for server in (carrel, jupyter)]
            warm = "`1+1` in a warm session, to the committed `finished`"
            rows.append(Row(warm, results[0][0], results[1][0], "< 10 ms"))
            rows.append(Row("10 MB of stdout", results[0][1], results[1][1], "100 %"))
    return rows


def table(rows: list[Row], times: int) -> str:
    """Return the page as Markdown."""
    machine = (
        f"{os.cpu_count()} cores, {platform.machine()}, Linux {platform.release()}, Python {platform.python_version()}"
    )
    lines = [
        "# Benchmarks",
        "",
        f"`make bench` on {machine}; {times} executions per line, median and p99.",
        "The peer is a plain `jupyter_server` with its default settings, started beside Carrel in the same run and",
        "driven over its own WebSocket. Carrel is driven over HTTP, with its key; every reply is in the committed",
        "history (SQLite) before it is sent. Times belong to the machine; the ratio in one run is what counts.",
        "",
        "| work | Carrel | jupyter_server | target |",
        "|---|---|---|---|",
        *(f"| {row.work} | {row.carrel} | {row.peer} | {row.target} |" for row in rows),
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    """Measure and print; write the page when asked."""
    parser = argparse.ArgumentParser(description="Carrel beside a plain jupyter_server")
    parser.add_argument("--write", type=Path, help="file of the page")
    parser.add_argument("--times", type=int, default=0, help="executions per line; 200 when writing, else 40")
    arguments = parser.parse_args()
    times = arguments.times or (200 if arguments.write else 40)
    page = table(asyncio.run(measure(times)), times)
    print(page)
    if arguments.write:
        arguments.write.write_text(page)


if __name__ == "__main__":
    main()
