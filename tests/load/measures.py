"""What is measured of one server: each function is one line of the table, and the same for every server.

Every measure has a desk, or desks, of its own, so the order does not matter. Times are wall time as a client sees it.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from pathlib import Path

from tests.load.peers import Desk, Server

from carrel_kernel.limits import cpu_seconds

WARM_SECONDS = 3
"""By then caches are filled, and what a server does behind a new kernel is done."""
REST_SECONDS = 60
RESTING_CPU_SECONDS = 0.2
"""In a second; so much is used by eight idle kernels and their hosts."""
STDOUT_BYTES = 10_000_000
STDOUT_CODE = f"for _ in range({STDOUT_BYTES // 100}): print('x' * 99)"
LIBRARIES_CODE = "import numpy, pandas, matplotlib.pyplot; pandas.DataFrame({'a': [1]}).a.sum()"
ARRAYS_CODE = "import numpy; a, b, c, d, e = (numpy.random.default_rng().random(2_500_000) for _ in range(5))"
"""100 MB, none of which was ever saved before."""
KERNELS = 8
FURTHER_KERNELS = 3
SNAPSHOTS = 3


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


async def warm(desk: Desk) -> None:
    warm_at = time.monotonic() + WARM_SECONDS
    while time.monotonic() < warm_at:
        await desk.execute("1+1")


async def come_to_rest(server: Server) -> None:
    """Wait until a server has done what it does behind new kernels, such as imports for the next ones."""
    for _ in range(REST_SECONDS):
        before = cpu_seconds_below(server.process_id)
        await asyncio.sleep(1)
        if cpu_seconds_below(server.process_id) - before < RESTING_CPU_SECONDS:
            return


async def _first_reply(server: Server, code: str, times: int) -> str:
    samples: list[float] = []
    for _ in range(times):
        await server.rest()
        began = time.perf_counter()
        async with server.desk() as desk:
            await desk.execute(code)
            samples.append(time.perf_counter() - began)
    return quantiles(samples)


async def first_reply(server: Server, times: int) -> str:
    return await _first_reply(server, "1+1", max(2, times // 20))


async def first_reply_with_libraries(server: Server, times: int) -> str:
    return await _first_reply(server, LIBRARIES_CODE, max(2, times // 20))


async def warm_execution(server: Server, times: int) -> str:
    async with server.desk() as desk:
        await warm(desk)
        return quantiles(await timed(lambda: desk.execute("1+1"), times))


async def executions_at_once(server: Server, times: int) -> str:
    """Executions per second of eight kernels with a client each."""
    async with AsyncExitStack() as stack:
        desks = [await stack.enter_async_context(server.desk()) for _ in range(KERNELS)]
        await asyncio.gather(*(desk.execute("1+1") for desk in desks))
        await come_to_rest(server)
        await warm(desks[0])
        began = time.perf_counter()
        await asyncio.gather(*(timed(lambda desk=desk: desk.execute("1+1"), times) for desk in desks))
        return f"{KERNELS * times / (time.perf_counter() - began):.0f}/s"


async def standard_output(server: Server, _times: int) -> str:
    async with server.desk() as desk:
        await warm(desk)
        began = time.perf_counter()
        received = await desk.execute(STDOUT_CODE)
        seconds = time.perf_counter() - began
        return f"{min(received / STDOUT_BYTES, 1):.0%} in {seconds:.2f} s"


async def snapshot(server: Server, _times: int) -> str:
    """All variables of a kernel that holds 100 MB of arrays, written and hashed."""
    async with server.desk() as desk:
        await warm(desk)
        samples: list[float] = []
        saved = 0
        for _ in range(SNAPSHOTS):
            await desk.execute(ARRAYS_CODE)
            began = time.perf_counter()
            saved = await desk.snapshot()
            samples.append(time.perf_counter() - began)
        return f"{saved / 1e6:.0f} MB in {statistics.median(samples):.2f} s" if saved else "none"


async def attach(server: Server, times: int) -> str:
    """A second client of a running kernel: its connection, and one reply."""

    async def once() -> None:
        async with desk.attach() as other:
            await other.execute("1+1")

    async with server.desk() as desk:
        await warm(desk)
        return quantiles(await timed(once, times))


async def restart(server: Server, times: int) -> str:
    """From the request to the first reply of the new kernel; Jupyter's clients connect anew, too."""

    async def once() -> None:
        await desk.restart()
        async with desk.attach() as other:
            await other.execute("1+1")

    async with server.desk() as desk:
        samples: list[float] = []
        for _ in range(max(2, times // 20)):
            await warm(desk)
            samples += await timed(once, 1)
        return quantiles(samples)


async def interrupt(server: Server, times: int) -> str:
    """From the request to the end of the cell."""
    async with server.desk() as desk:
        await warm(desk)
        samples: list[float] = []
        for _ in range(max(2, times // 10)):
            running = asyncio.create_task(desk.execute("import time; time.sleep(60)"))
            await asyncio.sleep(0.2)
            began = time.perf_counter()
            await desk.interrupt()
            await running
            samples.append(time.perf_counter() - began)
        return quantiles(samples)


async def memory(server: Server, _times: int) -> str:
    """Proportional memory of the server with its processes, and of each kernel that has imported pandas."""
    await server.rest()
    idle = proportional_bytes(server.process_id)
    async with AsyncExitStack() as stack:
        before = 0
        for n in range(1 + FURTHER_KERNELS):
            desk = await stack.enter_async_context(server.desk())
            await desk.execute(LIBRARIES_CODE)
            if n == 0:
                await server.rest()
                before = proportional_bytes(server.process_id)
        await server.rest()
        each = (proportional_bytes(server.process_id) - before) / FURTHER_KERNELS
    return f"{idle / 2**20:.0f} MiB idle, {each / 2**20:.0f} MiB per kernel"


def proportional_bytes(root: int) -> int:
    """Return the proportional set size of a process and all below it. Source: proc(5), `smaps_rollup`."""
    total = 0
    for pid in (root, *below(root)):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1]) * 1024
    return total


def cpu_seconds_below(root: int) -> float:
    """Return the CPU time of a process and all below it."""
    return sum(map(cpu_seconds, (root, *below(root))))


def below(pid: int) -> list[int]:
    found: list[int] = []
    with suppress(OSError):  # a process that has ended meanwhile has none
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in map(int, (task / "children").read_text().split()):
                found += [child, *below(child)]
    return found
