"""The part "Execution" of the benchmarks: Carrel beside jupyter_server and Kernel Gateway, all measured in one run.

    python -m tests.load.bench                   a short run, printed
    python -m tests.load.bench --write PATH      a full run, printed and written; the page's other parts stay

Absolute times are noisy and belong to one machine; the ratio in one run is what counts. It measures from outside, over
loopback, with the authentication and the committed history that a user has.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import tempfile
from collections.abc import AsyncGenerator, Awaitable, Callable
from importlib.metadata import version
from pathlib import Path
from typing import TypeAlias

from tests.load import measures
from tests.load.page import machine, write_part
from tests.load.peers import CarrelServer, HostServer, JupyterServer, Server

Measure: TypeAlias = Callable[[Server, int], Awaitable[str]]

ROWS: tuple[tuple[str, Measure, str], ...] = (
    ("create → first reply", measures.first_reply, "< 100 ms"),
    ("create → first reply with numpy, pandas, pyplot", measures.first_reply_with_libraries, "< 100 ms"),
    ("`1+1`, warm", measures.warm_execution, "gateway < 8 ms, host < 6 ms"),
    ("executions of 8 clients with a kernel each", measures.executions_at_once, "≥ 450/s"),
    ("10 MB of stdout", measures.standard_output, "100 % in < 0.3 s"),
    ("snapshot of 100 MB of arrays", measures.snapshot, "< 1 s"),
    ("attach to a running kernel → reply", measures.attach, "< 20 ms"),
    ("restart → reply", measures.restart, "< 150 ms"),
    ("interrupt → end of the cell", measures.interrupt, "< 50 ms"),
    ("memory (PSS)", measures.memory, "host ≤ 120 MiB, kernel ≤ 40 MiB"),
)


@contextlib.asynccontextmanager
async def servers(folder: Path) -> AsyncGenerator[list[Server]]:
    async with (
        CarrelServer.start(folder / "carrel") as carrel,
        HostServer.start(folder / "host") as host,
        JupyterServer.start("jupyter_server", folder / "jupyter") as jupyter,
        JupyterServer.start("kernel_gateway", folder / "kernel-gateway") as kernel_gateway,
    ):
        yield [carrel, host, jupyter, kernel_gateway]


async def measure(times: int, only: str) -> str:
    """Run every line of the table once for each server, and return it as Markdown."""
    lines: list[str] = []
    with tempfile.TemporaryDirectory(prefix="carrel-bench-") as folder:
        async with servers(Path(folder)) as all_servers:
            lines += ["| work | " + " | ".join(server.name for server in all_servers) + " | target |"]
            lines += ["|---" * (len(all_servers) + 2) + "|"]
            for work, run, target in ROWS:
                if only in work:
                    cells = [await run(server, times) for server in all_servers]
                    lines.append("| " + " | ".join([work, *cells, target]) + " |")
                    print(lines[-1], flush=True)
    return "\n".join(lines)


def page(table: str, times: int) -> str:
    """Return the part of the page as Markdown."""
    peers = f"`jupyter_server` {version('jupyter_server')} and Kernel Gateway {version('jupyter_kernel_gateway')}"
    return f"""
{machine()}; {times} executions per line, median and p99; a twentieth as many starts.
The peers are {peers} with their default settings, started beside
Carrel in the same run and driven over their own WebSocket. The gateway is driven over HTTP, with its key; every reply
is in the committed history (SQLite) before it is sent. The kernel host is driven alone, as the gateway drives it, and
attached to over its WebSocket. Before a start there is a pause of 4 to 5 s, in which Carrel makes ready the one host
and the one kernel that it keeps for whoever comes next; a start without them costs about what it costs the peers.
Executions at once begin when a server's processes are at rest, for Carrel's import libraries behind new kernels.
A snapshot is every variable of a kernel on disk with its digest, which the gateway leaves to the host; the peers have
nothing that saves a kernel's state.
Memory is the proportional set size of all processes of a server.

{table}
"""


def main() -> None:
    """Measure and print; write the page when asked."""
    parser = argparse.ArgumentParser(description="Carrel beside jupyter_server and Kernel Gateway")
    parser.add_argument("--write", type=Path, help="file of the page")
    parser.add_argument("--times", type=int, default=0, help="executions per line; 200 when writing, else 40")
    parser.add_argument("--only", default="", help="only lines with this text")
    arguments = parser.parse_args()
    times = arguments.times or (200 if arguments.write else 40)
    table = asyncio.run(measure(times, arguments.only))
    if arguments.write:
        write_part(arguments.write, "Execution", page(table, times))


if __name__ == "__main__":
    main()
