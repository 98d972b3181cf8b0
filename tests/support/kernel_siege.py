"""A kernel host under fire: cells run while the kernel, the zygote, the host or the connection is killed at some point.

It does what the gateway does: it keeps events, acknowledges what it has kept, and asks for the rest after a cut. What
must hold whatever was killed, and is checked for each cell:

* it ends, once, within the deadline; its events have no gap and none twice, and what was kept stays as it was;
* it ran at most once, and once when anything came out of it;
* what it wrote arrives whole when it ended well, else a beginning of it, with all that was acknowledged;
* only the death of its kernel or of the host ends it before its time.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import uuid
from collections import Counter
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, Protocol

import aiohttp
from tests.integration.kernel.host import Host, Refused, until

from carrel_wire.events import ExecutionEvent, Finished, Result, Started, Stdout, decode_event

DEADLINE: Final = 60.0
"""Seconds for one cell with whatever is killed: a host and an interpreter start well within them."""
RETRY_SECONDS: Final = 0.05
TRANSIENT: Final = frozenset({"unbound", "kernel_unavailable", "execution_not_found"})
"""Refusals of a host that has just been replaced; any other is a defect."""
LINES: Final = 12

Victim = Literal["kernel", "zygote", "host", "connection"]
Point = Literal["sent", "started", "output", "result", "idle"]
VICTIMS: Final[tuple[Victim, ...]] = ("kernel", "zygote", "host", "connection")
POINTS: Final[tuple[Point, ...]] = ("sent", "started", "output", "result", "idle")

CODE: Final = """
import os, time
with open("runs.txt", "a") as runs:
    runs.write("{mark}\\n")
for line in range({lines}):
    print("{mark}", line, flush=True)
    time.sleep(0.004)
"{mark}"
"""


class Besieged(Protocol):
    """A kernel host that is bound, wherever it runs."""

    def request(
        self, method: str, path: str, **options: Any
    ) -> AbstractAsyncContextManager[aiohttp.ClientResponse]: ...

    async def call(self, method: str, path: str, **options: Any) -> Any: ...

    async def cut(self) -> None:
        """Close all connections, of which none is in use."""
        ...

    async def replace(self) -> None:
        """Kill the host, and return when another one on the same workspace is bound."""
        ...

    def processes(self) -> list[int]:
        """Return the ids, as this process sees them, of all children of the host."""
        ...

    async def runs(self) -> Counter[str]:
        """Return how often each mark is in `runs.txt`."""
        ...


class Cut(Exception):
    """The connection is to be closed now, in the middle of its events."""


@dataclass
class Cell:
    """One execution, as its caller knows it."""

    mark: str
    victim: Victim | None = None
    point: Point = "idle"
    after_lines: int = 0
    """For the point `output`."""
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    kept: list[ExecutionEvent] = field(default_factory=list[ExecutionEvent])
    acknowledged: int = 0
    struck: bool = False
    striking: asyncio.Task[None] | None = None
    """The kill while the request is on its way."""

    @property
    def code(self) -> str:
        return CODE.format(mark=self.mark, lines=LINES)

    @property
    def path(self) -> str:
        return f"/v1/kernels/main/executions/{self.id}"

    @property
    def finished(self) -> Finished | None:
        last = self.kept[-1] if self.kept else None
        return last if isinstance(last, Finished) else None

    @property
    def text(self) -> str:
        return "".join(event.text for event in self.kept if isinstance(event, Stdout))

    def reached(self, point: Point) -> bool:
        match point:
            case "started":
                return any(isinstance(event, Started) for event in self.kept)
            case "output":
                return self.text.count("\n") >= self.after_lines
            case "result":
                return any(isinstance(event, Result) for event in self.kept)
            case "sent" | "idle":
                return False


class KernelSiege:
    """Runs cells in a host, and kills."""

    def __init__(self, host: Besieged, seed: int) -> None:
        self._host = host
        self._chance = random.Random(seed)
        self.kills: Counter[str] = Counter()
        self.outcomes: Counter[str] = Counter()
        self.cells: list[Cell] = []

    async def run(self, victim: Victim, point: Point) -> None:
        """Run a cell, kill something at a point of it, and check the cell; then one that nothing happens to.

        The next one may meet the death of its kernel before the host has seen it: then it has not begun.
        """
        await self._ready(victim)
        self.kills[victim] += 1
        async with asyncio.timeout(DEADLINE):
            cell = await self._run(Cell(self._mark(), victim, point, self._chance.randrange(1, LINES)))
            if point == "idle":
                await (self._host.cut() if victim == "connection" else self._strike(victim))
        self._check(cell)
        async with asyncio.timeout(DEADLINE):
            following = await self._run(Cell(self._mark()))
            if victim == "kernel" and following.kept == [following.finished]:
                following = await self._run(Cell(self._mark()))
        self._check(following)

    async def verify(self) -> None:
        """Check that no cell ran twice, and that each ran that says so."""
        runs = await self._host.runs()
        assert set(runs) <= {cell.mark for cell in self.cells}
        for cell in self.cells:
            count = runs[cell.mark]
            assert count <= 1, f"{cell.mark} ran {count} times"
            assert count == 1 or not cell.text, f"{cell.mark} put something out and has not run"

    def _mark(self) -> str:
        return f"m{len(self.cells)}-{self._chance.randrange(16**8):08x}"

    async def _ready(self, victim: Victim) -> None:
        """Wait for a fork server when it shall be killed: after its last death it imports everything again."""

        async def forks() -> bool:
            return (await self._host.call("GET", "/v1/state"))["fresh_because"] is None

        if victim == "zygote":
            await until(forks, seconds=DEADLINE, what="a fork server")

    # ------------------------------------------------------------------ one cell

    async def _run(self, cell: Cell) -> Cell:
        self.cells.append(cell)
        while cell.finished is None:
            try:
                await self._send(cell)
            except (aiohttp.ClientError, ConnectionError, Cut):
                await asyncio.sleep(RETRY_SECONDS)
            except Refused as refused:
                if refused.code not in TRANSIENT:
                    raise
                await asyncio.sleep(RETRY_SECONDS)
        await self._acknowledge(cell)
        return cell

    async def _send(self, cell: Cell) -> None:
        """Send the cell, with whatever is killed while it is on its way."""
        if cell.victim is None or cell.point != "sent" or cell.struck:
            await self._read(cell)
            return
        cell.struck = True
        delay = self._chance.uniform(0, 0.02)
        if cell.victim == "connection":
            with suppress(TimeoutError):
                async with asyncio.timeout(delay):
                    await self._read(cell)
            return
        striking = asyncio.create_task(self._strike(cell.victim, delay))
        try:
            await self._read(cell)
        finally:
            await striking

    async def _read(self, cell: Cell) -> None:
        """Send the cell, or ask for the rest of its events, and read until the end or a cut."""
        sending = not cell.kept
        method, path = ("PUT", cell.path) if sending else ("GET", f"{cell.path}/events?after={len(cell.kept)}")
        async with self._host.request(method, path, json={"code": cell.code} if sending else None) as reply:
            if reply.status >= 400:
                raise Refused(reply.status, await reply.json())
            rest = b""
            async for chunk in reply.content.iter_any():
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    event = decode_event(line)
                    assert event.n == len(cell.kept) + 1, f"{event} after {cell.kept[-1:]}"
                    cell.kept.append(event)
                    if cell.victim and not cell.struck and cell.reached(cell.point):
                        cell.struck = True
                        await self._strike(cell.victim)
                if self._chance.random() < 0.3:
                    await self._acknowledge(cell)

    async def _acknowledge(self, cell: Cell) -> None:
        """Acknowledge what was kept; again when no answer came, as often as it needs."""
        n = len(cell.kept)
        while cell.acknowledged < n:
            try:
                await self._host.call("POST", f"{cell.path}/ack", json={"n": n})
                cell.acknowledged = n
            except (aiohttp.ClientError, ConnectionError):
                await asyncio.sleep(RETRY_SECONDS)

    # ------------------------------------------------------------------ kills

    async def _strike(self, victim: Victim, delay: float = 0) -> None:
        await asyncio.sleep(delay)
        if victim == "host":
            await self._host.replace()
        elif victim == "connection":
            raise Cut
        else:
            children = self._host.processes()
            if victim == "zygote":
                targets = [pid for pid in children if is_zygote(pid)]
            else:  # spares are made after the kernel `main` was taken, so that is the oldest
                targets = sorted((pid for pid in children if not is_zygote(pid)), key=started_at)[:1]
            for pid in targets:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    # ------------------------------------------------------------------ what must hold

    def _check(self, cell: Cell) -> None:
        finished = cell.finished
        assert finished
        self.outcomes[finished.status] += 1
        whole = "".join(f"{cell.mark} {line}\n" for line in range(LINES))
        assert whole.startswith(cell.text), f"{cell.text!r} is no beginning of what it wrote"
        assert cell.struck == (cell.victim is not None and cell.point != "idle"), cell
        if finished.status == "ok":
            assert cell.text == whole
        else:
            assert finished.status == "kernel_died", finished
            assert finished.lost_state
            assert cell.struck, f"{finished} without a cause"
            assert cell.victim in ("kernel", "host"), f"{finished} for the death of the {cell.victim}"


def started_at(pid: int) -> int:
    """Return when a process started, in clock ticks since boot. Source: proc(5), field 22 of `stat`."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])


def is_zygote(pid: int) -> bool:
    """Whether a process is a fork server itself: forks have its command line, but many threads."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        threads = len(list(Path(f"/proc/{pid}/task").iterdir()))
    except FileNotFoundError:
        return False
    return any(word.endswith(b"zygote.py") for word in words) and threads == 1


def children(pid: int) -> list[int]:
    """Return the process ids of all children of a process."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(FileNotFoundError):
            found += map(int, (task / "children").read_text().split())
    return found


class LocalHost:
    """A host as a child of the test."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self.request = host.request
        self.call = host.call
        self.cut = host.cut

    async def replace(self) -> None:
        await self._host.restart_program()
        await self._host.bind()

    def processes(self) -> list[int]:
        assert self._host.process
        return children(self._host.process.pid)

    async def runs(self) -> Counter[str]:
        return Counter((await asyncio.to_thread((self._host.workspace / "runs.txt").read_text)).split())
