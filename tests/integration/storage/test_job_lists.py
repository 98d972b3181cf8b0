"""Looking at jobs over both databases.

Plan: pages and filters; another tenant sees nothing, and only administrators look; what ended long ago is removed.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from tests.support.state import new_principal
from tests.support.working import change, claim

from carrel_gateway.context import Principal, ProcessContext
from carrel_gateway.errors import CarrelError, InvalidInput, NotFound
from carrel_gateway.jobs import service
from carrel_gateway.jobs.model import fence_of
from carrel_gateway.jobs.service import Filter, JobService
from carrel_gateway.storage.ids import new_id


async def test_another_tenant_sees_nothing(jobs: JobService, context: ProcessContext, kind: str) -> None:
    job_id = await jobs.enqueue(kind)
    assert job_id is not None
    stranger = JobService(context, await new_principal(context.database))
    assert (await stranger.list(Filter())).items == []
    for ask in (stranger.get, stranger.cancel, stranger.retry):
        with pytest.raises(NotFound) as refused:
            await ask(job_id)
        assert refused.value.code == "job_not_found"
    assert (await jobs.get(job_id)).status == "queued"


async def test_pages_and_filters(jobs: JobService, kind: str) -> None:
    made = [await jobs.enqueue(kind) for _ in range(3)]
    other = await jobs.enqueue(f"{kind}-other")
    assert made[1] is not None
    await jobs.cancel(made[1])
    first = await jobs.list(Filter(kind=kind), limit=2)
    assert [job.id for job in first.items] == [made[2], made[1]]
    second = await jobs.list(Filter(kind=kind), limit=2, cursor=first.next_cursor)
    assert ([job.id for job in second.items], second.next_cursor) == ([made[0]], None)
    with pytest.raises(InvalidInput):
        await jobs.list(Filter(), cursor=first.next_cursor)
    assert [job.id for job in (await jobs.list(Filter(status="cancelled"))).items] == [made[1]]
    assert {job.id for job in (await jobs.list(Filter())).items} == {*made, other}


async def test_what_ended_long_ago_is_removed(jobs: JobService, context: ProcessContext, kind: str) -> None:
    ages = {"succeeded": (1, 3), "dead": (29, 31), "cancelled": (29, 31)}
    kept: set[UUID] = set()
    for status, (young, old) in ages.items():
        for days in (young, old):
            await jobs.enqueue(kind)
            (job,) = await claim(context, kind)
            await service.settle(context, fence_of(job), status)  # pyright: ignore[reportArgumentType]
            await change(context, job, finished_at=datetime.now(UTC) - timedelta(days=days))
            if days == young:
                kept.add(job.id)
    await jobs.enqueue(kind)
    assert await jobs.sweep() == 3
    assert {job.id for job in (await jobs.list(Filter())).items} > kept
    assert len((await jobs.list(Filter())).items) == 4


async def test_only_an_administrator_looks_at_jobs(context: ProcessContext, principal: Principal) -> None:
    reader = JobService(context, replace(principal, rights=frozenset()))
    for ask in (reader.list(Filter()), reader.get(new_id()), reader.retry(new_id()), reader.cancel(new_id())):
        with pytest.raises(CarrelError) as refused:
            await ask
        assert refused.value.code == "permission_denied"
