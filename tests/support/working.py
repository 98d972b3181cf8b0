"""Workers of jobs, each test with a kind of its own: workers take jobs of all tenants, and tests share a database."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any
from uuid import UUID

from prometheus_client import REGISTRY
from sqlalchemy import update

from carrel_gateway.context import ProcessContext
from carrel_gateway.jobs import repository
from carrel_gateway.jobs.model import Job, Kind
from carrel_gateway.jobs.service import JobService
from carrel_gateway.jobs.tables import jobs as table
from carrel_gateway.jobs.worker import JobWorker

SOON = 20.0
"""Seconds that a busy machine may take for what takes none."""


def with_settings(context: ProcessContext, **named: Any) -> ProcessContext:
    quick = {"jobs_poll_seconds": 0.2, "job_lease_seconds": 30.0, **named}
    return replace(context, settings=context.settings.model_copy(update=quick))


class Working:
    """Workers with one kind of jobs, ended with the test."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.done: list[Job] = []
        self.workers: list[JobWorker] = []

    async def work(self, job: Job) -> Mapping[str, Any] | None:
        self.done.append(job)
        return {"n": job.payload.get("n")}

    def start(
        self, context: ProcessContext, work: Callable[[Job], Awaitable[Any]] | None = None, **options: Any
    ) -> JobWorker:
        worker = JobWorker(context, [Kind(self.kind, work or self.work, **options)], draw=lambda: 0.0)
        self.workers.append(worker)
        worker.start()
        return worker


async def until_so(jobs: JobService, job_id: UUID | None, so: Callable[[Job], bool]) -> Job:
    assert job_id is not None
    async with asyncio.timeout(SOON):
        while True:
            job = await jobs.get(job_id)
            if so(job):
                return job
            await asyncio.sleep(0.01)


async def until(jobs: JobService, job_id: UUID | None, status: str) -> Job:
    return await until_so(jobs, job_id, lambda job: job.status == status)


async def until_counted(kind: str, outcome: str, number: int) -> None:
    async with asyncio.timeout(60):
        while True:
            if counted(kind, outcome) >= number:
                return
            await asyncio.sleep(0.01)


async def claim(context: ProcessContext, kind: str, *, lease: float = 30.0, limit: int = 100) -> list[Job]:
    async with context.database.worker_transaction(write=True) as connection:
        return await repository.claim(
            connection, context.database.dialect, context.gateway_id, kinds={kind}, limit=limit, lease_seconds=lease
        )


async def change(context: ProcessContext, job: Job, **values: Any) -> None:
    async with context.database.transaction(job.tenant_id) as tx:
        same = (table.c.tenant_id == tx.tenant_id, table.c.id == job.id)
        await tx.connection.execute(update(table).where(*same).values(**values))


def counted(kind: str, outcome: str) -> float:
    return REGISTRY.get_sample_value("carrel_jobs_finished_total", {"kind": kind, "outcome": outcome}) or 0.0
