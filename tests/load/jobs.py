"""The part "Jobs" of the benchmarks: how many background jobs are stored and done in a second.

    python -m tests.load.jobs                   printed
    python -m tests.load.jobs --write PATH      printed and written; the page's other parts stay

The jobs do nothing. A Postgres is started for the run, on the same machine; like SQLite it waits for its disk.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

import structlog
import uvloop
from tests.load.gateway_bench import durable_servers
from tests.load.page import machine, write_part
from tests.support.state import new_principal, open_state

from carrel_gateway.jobs.model import Job, Kind
from carrel_gateway.jobs.service import JobService, NewJob
from carrel_gateway.jobs.worker import JobWorker
from carrel_gateway.settings import Settings
from carrel_gateway.storage.ids import new_id

JOBS: Final = 2000
BATCH: Final = 200
HEAD: Final = "| database | workers, at once each | stored | done | wait of a job that comes alone |"


class _Counted:
    """A kind of jobs that do nothing, and when each was begun."""

    def __init__(self, wanted: int) -> None:
        self.name = f"bench-{new_id().hex}"
        self.begun: dict[object, float] = {}
        self._wanted = wanted
        self.all = asyncio.Event()
        self.news = asyncio.Event()

    async def work(self, job: Job) -> None:
        self.begun[job.id] = time.perf_counter()
        self.news.set()
        if len(self.begun) >= self._wanted:
            self.all.set()

    @property
    def kind(self) -> Kind:
        return Kind(self.name, self.work)


async def line(name: str, settings: Settings, *, workers: int, jobs: int) -> str:
    """Measure one line of the table."""
    async with AsyncExitStack() as stack:
        contexts = [await stack.enter_async_context(open_state(settings)) for _ in range(workers)]
        service = JobService(contexts[0], await new_principal(contexts[0].database))
        counted = _Counted(jobs)
        began = time.perf_counter()
        for _ in range(jobs // BATCH):
            await service.add([NewJob(new_id(), counted.name, {}, 3, 100) for _ in range(BATCH)])
        stored = jobs / (time.perf_counter() - began)
        began = time.perf_counter()
        for context in contexts:
            worker = JobWorker(context, [counted.kind])
            worker.start()
            stack.push_async_callback(worker.aclose)
        await counted.all.wait()
        done = jobs / (time.perf_counter() - began)
        waits = [await _wait_of_one(service, counted) for _ in range(20)]
    at_once = settings.jobs_concurrency
    return f"| {name} | {workers}, {at_once} | {stored:.0f}/s | {done:.0f}/s | {sorted(waits)[10] * 1000:.1f} ms |"


async def _wait_of_one(service: JobService, counted: _Counted) -> float:
    await asyncio.sleep(0.05)
    counted.news.clear()
    began = time.perf_counter()
    job_id = await service.enqueue(counted.name)
    await counted.news.wait()
    return counted.begun[job_id] - began


async def measure(jobs: int = JOBS) -> str:
    """Measure both databases, and return the table as Markdown."""
    lines = [HEAD, "|---" * HEAD.count(" | ") + "|---|"]
    with tempfile.TemporaryDirectory(prefix="carrel-bench-") as folder:
        async with durable_servers() as (database_url, redis_url):
            embedded = Settings(_env_file=None, data_dir=Path(folder) / "sqlite")  # pyright: ignore[reportCallIssue]
            shared = embedded.model_copy(update={"database_url": database_url, "redis_url": redis_url})
            for name, settings, workers in (("SQLite", embedded, 1), ("Postgres", shared, 1), ("Postgres", shared, 2)):
                lines.append(await line(name, settings, workers=workers, jobs=jobs))
                print(lines[-1], flush=True)
    return "\n".join(lines)


def page(table: str) -> str:
    """Return the part of the page as Markdown."""
    return f"""
{machine()}; the load average was {os.getloadavg()[0]:.1f} when it was measured.
{JOBS} jobs that do nothing, stored {BATCH} at a time, and then done by workers that are all in one process; the last
column is the median of 20 jobs, each stored when there is nothing else to do.

{table}
"""


def main() -> None:
    """Measure and print; write the page when asked."""
    parser = argparse.ArgumentParser(description="Background jobs in a second")
    parser.add_argument("--write", type=Path, help="file of the page")
    arguments = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(30))
    table = uvloop.run(measure())
    if arguments.write:
        write_part(arguments.write, "Jobs", page(table))


if __name__ == "__main__":
    main()
