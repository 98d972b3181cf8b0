"""A gateway's worker that is killed in the middle of a job; run as `python -m tests.support.job_victim`.

Arguments: address of the database, data folder, kind. It prints `began <generation>` for each job that it begins, and
never ends one.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from tests.support.state import open_state

from carrel_gateway.jobs.model import Job, Kind
from carrel_gateway.jobs.worker import JobWorker
from carrel_gateway.settings import Settings


async def main(url: str, folder: str, kind: str) -> None:
    async def work(job: Job) -> None:
        sys.stdout.write(f"began {job.generation}\n")
        sys.stdout.flush()
        await asyncio.Event().wait()

    settings = Settings(_env_file=None, database_url=url, data_dir=Path(folder), job_lease_seconds=2.0)
    async with open_state(settings) as context:
        JobWorker(context, [Kind(kind, work)]).start()
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
