"""Jobs that come again and again, over both databases.

Plan: several gateways that look at the same time store one job for each due time and tenant; due times do not drift,
and what was missed comes once; what is not done when its next time comes is not stored twice, and is stored when it is
done; a tenant that fails keeps no other one from its turn.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, cast
from uuid import UUID

import pytest
from tests.support.state import new_principal
from tests.support.working import Working, claim, until_counted, with_settings

from carrel_gateway.context import ProcessContext
from carrel_gateway.identity.service import DEFAULT_TENANT_ID
from carrel_gateway.identity.tenants import worker_of
from carrel_gateway.jobs import service
from carrel_gateway.jobs.model import Job, Kind, fence_of
from carrel_gateway.jobs.schedules import TICK_SECONDS, Planner, Schedule, begin_of, id_of
from carrel_gateway.jobs.service import Filter, JobService
from carrel_gateway.jobs.worker import JobWorker
from carrel_gateway.storage.ids import new_id

NOON = datetime(2026, 3, 1, 12, 0, 7, tzinfo=UTC)


class Installation:
    """Some tenants of a database that tests share, with schedules and a plan of their own."""

    def __init__(self, context: ProcessContext, kind: str, tenants: list[UUID]) -> None:
        self.context = context
        self.kind = kind
        self.tenants = tenants
        self.schedules = [Schedule(kind, TICK_SECONDS), Schedule(f"{kind}-hourly", 3600, once=True)]

    def planner(self) -> Planner:
        async def all_tenants() -> list[UUID]:
            return self.tenants

        return Planner(self.context, self.schedules, tenants=all_tenants, plan=f"{self.kind}-plan")

    async def carry_out(self, now: datetime) -> dict[str, Any]:
        """Look at this time, and carry out the plan if it is new."""
        planner, result = self.planner(), dict[str, Any]()
        await planner.tick(now)
        for job in await claim(self.context, planner.kind.name):
            result.update(await planner.kind.work(replace(job, started_at=now)) or {})
            await service.settle(self.context, fence_of(job), "succeeded")
        return result

    async def stored(self, tenant_id: UUID) -> list[Job]:
        page = await JobService(self.context, worker_of(tenant_id)).list(Filter(kind=self.kind))
        return page.items


@pytest.fixture
async def installation(context: ProcessContext, kind: str) -> Installation:
    return Installation(context, kind, [(await new_principal(context.database)).tenant_id for _ in range(2)])


def test_due_times_are_multiples_and_ids_are_theirs() -> None:
    due = begin_of(NOON, TICK_SECONDS)
    assert datetime.fromtimestamp(due, UTC) == NOON.replace(second=0)
    assert begin_of(NOON + timedelta(minutes=37), 3600) == begin_of(NOON, 3600)
    tenant = new_id()
    made = id_of(tenant, "x", due)
    assert made == id_of(tenant, "x", due)
    assert (made.version, made.variant, made.int >> 80) == (7, "specified in RFC 4122", due * 1000)
    assert len({made, id_of(new_id(), "x", due), id_of(tenant, "y", due), id_of(tenant, "x", due + 600)}) == 4


async def test_many_gateways_store_one_job_for_each_due_time(installation: Installation) -> None:
    context, kind = installation.context, installation.kind
    planners = [installation.planner() for _ in range(4)]
    for _ in range(2):
        await asyncio.gather(*(planner.tick(NOON) for planner in planners))
    plan = Filter(kind=f"{kind}-plan")
    (stored,) = (await JobService(context, worker_of(DEFAULT_TENANT_ID)).list(plan)).items
    results = await asyncio.gather(*(planner.kind.work(stored) for planner in planners))
    assert sum(cast("dict[str, int]", result)["stored"] for result in results) == len(installation.tenants)
    for tenant_id in installation.tenants:
        (job,) = await installation.stored(tenant_id)
        assert job.id == id_of(tenant_id, kind, begin_of(stored.created_at, TICK_SECONDS))


async def test_what_was_missed_comes_once_and_nothing_drifts(installation: Installation) -> None:
    tenant_id = installation.tenants[0]
    found: list[int] = []
    for later in (timedelta(0), timedelta(minutes=9), timedelta(hours=5, minutes=3)):
        found.append((await installation.carry_out(NOON + later)).get("stored", 0))
        for job in await claim(installation.context, installation.kind):
            await service.settle(installation.context, fence_of(job), "succeeded")
    assert found == [2, 0, 2]
    due = [job.id.int >> 80 for job in await installation.stored(tenant_id)]
    assert due == [begin_of(NOON + timedelta(hours=5), TICK_SECONDS) * 1000, begin_of(NOON, TICK_SECONDS) * 1000]


async def test_what_is_not_done_is_not_stored_again_before_it_is(installation: Installation) -> None:
    first, second = installation.tenants
    assert await installation.carry_out(NOON) == {"stored": 2, "tenants_failed": 0}
    for job in await claim(installation.context, installation.kind):
        if job.tenant_id == first:
            await service.settle(installation.context, fence_of(job), "succeeded")
    assert (await installation.carry_out(NOON + timedelta(minutes=10)))["stored"] == 1
    assert [len(await installation.stored(tenant_id)) for tenant_id in (first, second)] == [2, 1]


async def test_a_tenant_that_fails_keeps_no_other_from_its_turn(installation: Installation) -> None:
    installation.tenants.insert(0, new_id())  # there is none of this id
    assert await installation.carry_out(NOON) == {"stored": 2, "tenants_failed": 1}


async def test_what_is_once_for_the_installation_is_the_default_tenants(installation: Installation) -> None:
    installation.tenants.append(DEFAULT_TENANT_ID)
    assert (await installation.carry_out(NOON))["stored"] == 4
    hourly = Filter(kind=f"{installation.kind}-hourly")
    for tenant_id in installation.tenants:
        found = await JobService(installation.context, worker_of(tenant_id)).list(hourly)
        assert len(found.items) == (tenant_id == DEFAULT_TENANT_ID)


async def test_a_worker_plans_and_does_what_is_due(installation: Installation, working: Working) -> None:
    planner = installation.planner()
    own = Kind(installation.kind, working.work)
    worker = JobWorker(with_settings(installation.context), [planner.kind, own], tick=planner.tick)
    working.workers.append(worker)
    worker.start()
    await until_counted(installation.kind, "succeeded", 2)
    assert {job.tenant_id for job in working.done} == set(installation.tenants)
