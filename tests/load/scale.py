"""The operator with thousands of sessions on nodes that are not real: filling, lists, churn, and a restart by SIGKILL.

Filling starts pods cold; churn claims from a pool, which it empties as fast as the operator fills it. Sessions are kept
through all sizes, so the growth from one to the next is of one process. What a client sees is measured at the API; that
a new process has looked at every session is read from its metrics.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

import httpx
from tests.load.kube import SESSIONS, RequestFailed, until
from tests.load.rows import NOTHING, Row, milliseconds, quantile
from tests.load.starts import START_SECONDS, Bench, pool
from tests.load.usage import resident_bytes

FILL_RATE = 45.0
"""Sessions made in a second while filling."""
IN_FLIGHT = 300
"""Filling waits when so many are not Ready yet."""
PAGE = 500
"""Objects in one part of a list, as kubectl asks for them."""
LISTS = 20
RECOVERY_SECONDS = 600.0
HEAD = (
    "sessions", "filled", "list of 500, p50 / p99", "list of all, p50",
    "churn asked / reached", "from the pool", "create → Ready p50 / p95 / p99", "not Ready",
    "operator's writes per session", "CPU of the operator / of the control plane", "operator's memory",
    "back after SIGKILL",
)  # fmt: skip


@dataclass(frozen=True)
class Churn:
    """How sessions come and go."""

    rate: float
    """In a second."""
    seconds: float
    pool: int
    """Pods that are kept ready for them."""


@dataclass
class Churned:
    """What came of it."""

    churn: Churn
    row: Row = field(default_factory=lambda: Row("churn"))
    warm: int = 0
    """Sessions that came from the pool; the others found it empty."""
    late: int = 0
    """Sessions that were not Ready in time."""
    resident: int = 0
    """Bytes of the operator, afterwards."""

    def cells(self) -> list[str]:
        """Return its part of the table's line."""
        row, spent, times = self.row, self.row.spent, max(len(self.row.samples), 1)
        shares = [milliseconds(quantile(row.samples, share)) for share in (0.5, 0.95, 0.99)] if row.samples else []
        cpu = [f"{spent.cpu.get(name, 0) / spent.seconds:.0%}" for name in ("operator", "control plane")]
        return [
            f"{self.churn.rate:.0f}/s / {len(row.samples) / spent.seconds:.0f}/s",
            f"{self.warm / times:.0%}",
            " / ".join(shares) or NOTHING,
            str(self.late),
            f"{len(row.own()) / times:.1f}" if spent.writes else NOTHING,
            " / ".join(cpu),
            f"{self.resident / 2**20:.0f} MiB",
        ]


@dataclass
class Level:
    """What was measured with one number of sessions."""

    sessions: int
    filled_per_second: float = 0.0
    pages: list[float] = field(default_factory=list)
    lists: list[float] = field(default_factory=list)
    churns: list[Churned] = field(default_factory=list)
    recovery: float = 0.0

    def markdown(self) -> list[str]:
        """Return a line of the table for each churn."""
        known = [
            f"{self.sessions:,}",
            f"{self.filled_per_second:.0f}/s",
            f"{milliseconds(quantile(self.pages, 0.5))} / {milliseconds(quantile(self.pages, 0.99))}",
            milliseconds(quantile(self.lists, 0.5)),
        ]
        recovery = f"{self.recovery:.1f} s"
        return ["| " + " | ".join([*known, *churned.cells(), recovery]) + " |" for churned in self.churns]


async def level(bench: Bench, class_name: str, count: int, churns: Sequence[Churn]) -> Level:
    """Fill up to this number of sessions and measure there."""
    found = Level(count)
    found.filled_per_second = await _fill(bench, class_name, count)
    await _list(bench, found)
    for churn in churns:
        async with pool(bench, class_name, churn.pool):
            found.churns.append(await _churn(bench, class_name, churn))
    found.recovery = await _recover(bench, class_name, count)
    return found


async def _fill(bench: Bench, class_name: str, count: int) -> float:
    sessions, began = bench.sessions, time.perf_counter()
    missing = count - len(sessions.seen)
    going: set[asyncio.Task[object]] = set()
    async for _ in _ticks(FILL_RATE, missing):
        going.add(asyncio.create_task(sessions.start(class_name, RECOVERY_SECONDS)))
        if len(going) >= IN_FLIGHT:
            done, going = await asyncio.wait(going, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
    await asyncio.gather(*going)
    return missing / (time.perf_counter() - began)


async def _ticks(rate: float, count: int) -> AsyncIterator[int]:
    """Give numbers at a rate; what comes late is not made up for by going faster later."""
    at = time.perf_counter()
    for n in range(count):
        yield n
        at = max(at + 1 / rate, time.perf_counter() - 1 / rate)
        await asyncio.sleep(at - time.perf_counter())


async def _list(bench: Bench, found: Level) -> None:
    for _ in range(LISTS):
        began = time.perf_counter()
        await bench.kube.call("GET", SESSIONS, bench.sessions.namespace, query={"limit": str(PAGE)})
        found.pages.append(time.perf_counter() - began)
    for _ in range(LISTS // 4):
        began = time.perf_counter()
        async for _item in bench.kube.items(SESSIONS, bench.sessions.namespace, PAGE):
            pass
        found.lists.append(time.perf_counter() - began)


async def _churn(bench: Bench, class_name: str, churn: Churn) -> Churned:
    """Make sessions at a rate; whenever one was seen Ready, delete the oldest."""
    found, sessions = Churned(churn), bench.sessions
    found.row.operator, found.row.client = bench.operator.user, bench.client
    oldest = deque(sorted(sessions.seen))

    async def once() -> None:
        try:
            name, taken = await sessions.start(class_name, START_SECONDS)
        except (TimeoutError, RequestFailed):
            found.late += 1
            return
        found.row.samples.append(taken)
        found.warm += bool(sessions.seen[name].status.get("pool"))
        oldest.append(name)
        await sessions.delete(oldest.popleft())

    async with bench.meter.window(found.row.spent), asyncio.TaskGroup() as group:
        async for _ in _ticks(churn.rate, int(churn.rate * churn.seconds)):
            group.create_task(once())
    found.resident = resident_bytes(bench.operator.process_id)
    return found


async def _recover(bench: Bench, class_name: str, count: int) -> float:
    """Kill the operator and start it again; return the seconds until it has seen all, and a new session is Ready."""
    operator = bench.operator
    began = time.perf_counter()
    operator.kill()
    operator.start()
    bench.meter.set("operator", {"operator": operator.process_id})

    async def observed() -> bool:
        try:
            return await asyncio.to_thread(_observed, bench, count)
        except httpx.TransportError:  # it has just been started
            return False

    await until(observed, RECOVERY_SECONDS)
    name, _ = await bench.sessions.start(class_name, START_SECONDS)
    taken = time.perf_counter() - began
    await bench.sessions.delete(name)
    return taken


def _observed(bench: Bench, count: int) -> bool:
    passes = bench.operator.metric("carrel_operator_passes_total", kind="session")
    return passes >= count and bench.operator.metric("carrel_operator_queue_depth") == 0
