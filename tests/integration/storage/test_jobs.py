"""Jobs over both databases.

Plan: a job is done, with what it leaves; of several that are due the most urgent is taken first, and none before its
time; a key has one live job; two workers that race do each of many jobs once, and none is lost; whoever lost a job
writes nothing of it; what a killed gateway began is done by another one; one that fails waits longer and longer, is
dead after its attempts, and can be tried again; one whose owners die is not begun for ever; cancelling, also of what
runs and of what a dead gateway left; a worker that ends gives back what it has; a worker says when it does not look, or
is behind.
"""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import structlog
from tests.support.state import new_principal, open_state
from tests.support.working import SOON, Working, change, claim, counted, until, until_counted, until_so, with_settings

from carrel_gateway.audit.service import AuditService
from carrel_gateway.audit.service import Filter as AuditFilter
from carrel_gateway.context import Principal, ProcessContext
from carrel_gateway.errors import Conflict, StaleJob, Unavailable
from carrel_gateway.jobs import repository, service
from carrel_gateway.jobs.model import Job, Kind, fence_of
from carrel_gateway.jobs.service import Filter, JobService
from carrel_gateway.jobs.worker import JobWorker
from carrel_gateway.settings import Settings
from carrel_gateway.storage.ids import new_id


@pytest.fixture
def context(context: ProcessContext) -> ProcessContext:
    return with_settings(context)


# ---------------------------------------------------------------------- from beginning to end


async def test_a_job_is_done_and_says_what_it_left(jobs: JobService, working: Working, context: ProcessContext) -> None:
    seen: dict[str, Any] = {}

    async def work(job: Job) -> dict[str, Any]:
        seen.update(structlog.contextvars.get_contextvars())
        return {"n": job.payload["n"] + 1}

    with structlog.contextvars.bound_contextvars(request_id="asked-for-it"):
        job_id = await jobs.enqueue(working.kind, {"n": 1})
    assert job_id is not None
    queued = await jobs.get(job_id)
    assert (queued.status, queued.attempts, queued.generation, queued.owner) == ("queued", 0, 0, None)
    working.start(context, work)
    job = await until(jobs, job_id, "succeeded")
    assert (job.result, job.attempts, job.generation, job.owner) == ({"n": 2}, 1, 1, context.gateway_id)
    assert job.started_at is not None
    assert job.finished_at is not None
    assert (job.request_id, job.error_code) == ("asked-for-it", None)
    assert seen.items() >= {"request_id": "asked-for-it", "job_id": str(job_id), "attempt": 1}.items()
    assert counted(working.kind, "succeeded") == 1


async def test_a_new_job_wakes_a_worker(jobs: JobService, working: Working, context: ProcessContext) -> None:
    working.start(with_settings(context, jobs_poll_seconds=60.0))
    await until(jobs, await jobs.enqueue(working.kind), "succeeded")
    await until(jobs, await jobs.enqueue(working.kind), "succeeded")  # it looked before: this one it was told of


async def test_a_new_job_wakes_a_worker_of_another_gateway(
    make_settings: Any, postgres_url: str, redis_url: str, kind: str, working: Working
) -> None:
    settings = make_settings(database_url=postgres_url, redis_url=redis_url)
    async with open_state(settings) as first, open_state(settings) as second:
        jobs = JobService(first, await new_principal(first.database))
        worker = working.start(with_settings(second, jobs_poll_seconds=60.0))
        await until(jobs, await jobs.enqueue(kind), "succeeded")  # this one it may have found by looking
        told = await jobs.enqueue(kind)
        assert told is not None
        async with asyncio.timeout(SOON):
            while (await jobs.get(told)).status != "succeeded":
                await asyncio.sleep(0.1)
                await jobs.enqueue(kind)  # it may not have listened before
        await worker.aclose()


async def test_the_most_urgent_first_and_none_before_its_time(
    jobs: JobService, context: ProcessContext, kind: str
) -> None:
    for priority, n in ((100, 1), (10, 2), (100, 3), (10, 4)):
        await jobs.enqueue(kind, {"n": n}, priority=priority)
    await jobs.enqueue(kind, {"n": 5}, delay_seconds=3600, priority=0)
    assert [job.payload["n"] for job in await claim(context, kind, limit=3)] == [2, 4, 1]
    assert [job.payload["n"] for job in await claim(context, kind)] == [3]
    assert await claim(context, kind) == []


async def test_what_is_not_known_here_is_left_to_others(
    jobs: JobService, working: Working, context: ProcessContext
) -> None:
    other = await jobs.enqueue(f"{working.kind}-newer")
    own = await jobs.enqueue(working.kind)
    working.start(context)
    await until(jobs, own, "succeeded")
    assert other is not None
    assert (await jobs.get(other)).status == "queued"


async def test_a_key_has_one_live_job(jobs: JobService, context: ProcessContext, kind: str) -> None:
    first = await jobs.enqueue(kind, key="same")
    assert await jobs.enqueue(kind, key="same") is None
    assert await jobs.enqueue(kind, key="other") is not None
    assert await jobs.enqueue(f"{kind}-other", key="same") is not None
    stranger = JobService(context, await new_principal(context.database))
    assert await stranger.enqueue(kind, key="same") is not None
    for job in await claim(context, kind):
        if job.id == first:
            assert await jobs.enqueue(kind, key="same") is None, "it is live while it runs"
        await service.settle(context, fence_of(job), "succeeded")
    again = await jobs.enqueue(kind, key="same")
    assert again not in {None, first}


async def test_a_job_is_stored_with_what_else_is_done_or_not_at_all(
    jobs: JobService, context: ProcessContext, principal: Principal, kind: str
) -> None:
    async def fail_after() -> None:
        async with context.database.transaction(principal.tenant_id) as tx:
            await jobs.enqueue(kind, tx=tx)
            raise Conflict("no")

    with pytest.raises(Conflict):
        await fail_after()
    assert await claim(context, kind) == []


# ---------------------------------------------------------------------- many at once


async def test_two_workers_do_each_of_many_jobs_once(
    settings: Settings, context: ProcessContext, working: Working, principal: Principal
) -> None:
    stranger = await new_principal(context.database)
    wanted = Counter[UUID]()
    for owner, count in ((principal, 140), (stranger, 60)):
        new = [repository.NewJob(new_id(), working.kind, {"n": n}, 3, 100) for n in range(count)]
        assert await JobService(context, owner).add(new) == count
        wanted.update(job.id for job in new)
    begun = Counter[tuple[UUID, int]]()

    async def work(job: Job) -> None:
        begun[job.id, job.generation] += 1
        await asyncio.sleep(0)

    async with open_state(settings) if context.database.dialect.shared else _same(context) as second:
        pair = [working.start(with_settings(one, jobs_concurrency=8), work) for one in (context, second)]
        await until_counted(working.kind, "succeeded", len(wanted))
        for worker in pair:
            await worker.aclose()
    assert begun == {(job_id, 1): 1 for job_id in wanted}
    for owner, count in ((principal, 140), (stranger, 60)):
        page = await JobService(context, owner).list(Filter(kind=working.kind, status="succeeded"), limit=300)
        assert len(page.items) == count
        assert {job.attempts for job in page.items} == {1}


class _same:  # noqa: N801 - stands where `open_state` would
    """Nobody else can have an embedded database: the second worker is in the same process."""

    def __init__(self, context: ProcessContext) -> None:
        self._context = context

    async def __aenter__(self) -> ProcessContext:
        return self._context

    async def __aexit__(self, *_: object) -> None:
        pass


# ---------------------------------------------------------------------- fences and leases


async def test_whoever_lost_a_job_writes_nothing_of_it(jobs: JobService, context: ProcessContext, kind: str) -> None:
    job_id = await jobs.enqueue(kind)
    (first,) = await claim(context, kind, lease=0.0)
    (second,) = await claim(context, kind)
    assert (first.id, first.generation, second.id, second.generation) == (job_id, 1, job_id, 2)
    for late in (
        service.settle(context, fence_of(first), "succeeded"),
        service.settle(context, fence_of(first), "dead", error_code="x", error="x"),
        service.try_later(context, fence_of(first), 0.0),
        service.put_back(context, fence_of(first)),
    ):
        with pytest.raises(StaleJob):
            await late
    assert await jobs.get(first.id) == second
    await service.settle(context, fence_of(second), "succeeded")
    with pytest.raises(StaleJob):
        await service.settle(context, fence_of(second), "dead")


async def test_a_worker_that_lost_its_job_stops(jobs: JobService, working: Working, context: ProcessContext) -> None:
    stopped, begun = asyncio.Event(), asyncio.Event()

    async def work(_: Job) -> None:
        begun.set()
        try:
            await asyncio.sleep(60)
        finally:
            stopped.set()

    job_id = await jobs.enqueue(working.kind)
    assert job_id is not None
    working.start(with_settings(context, job_lease_seconds=0.6, jobs_poll_seconds=60.0), work)
    await asyncio.wait_for(begun.wait(), SOON)
    await change(context, await jobs.get(job_id), due_at=datetime.now(UTC))
    other = replace(context, gateway_id=new_id())
    (taken,) = await claim(other, working.kind)
    await asyncio.wait_for(stopped.wait(), SOON)
    await until_counted(working.kind, "lost", 1)
    assert await jobs.get(job_id) == taken


async def test_a_lease_is_kept_while_the_work_goes_on(
    jobs: JobService, working: Working, context: ProcessContext
) -> None:
    free = asyncio.Event()

    async def work(_: Job) -> None:
        await free.wait()

    job_id = await jobs.enqueue(working.kind)
    assert job_id is not None
    working.start(with_settings(context, job_lease_seconds=1.5), work)
    begun = await until(jobs, job_id, "running")
    await until_so(jobs, job_id, lambda job: job.due_at > begun.due_at + timedelta(seconds=1))
    free.set()
    assert (await until(jobs, job_id, "succeeded")).generation == 1


async def test_another_gateway_does_what_a_killed_one_began(
    jobs: JobService, working: Working, context: ProcessContext, settings: Settings, tmp_path: Path
) -> None:
    if not context.database.dialect.shared:
        pytest.skip("nobody else can have an embedded database")
    job_id = await jobs.enqueue(working.kind)
    arguments = [str(settings.database_url), str(tmp_path / "victim"), working.kind]
    victim = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.support.job_victim", *arguments, stdout=asyncio.subprocess.PIPE
    )
    try:
        assert victim.stdout
        assert await asyncio.wait_for(victim.stdout.readline(), 60) == b"began 1\n"
        working.start(context)
    finally:
        victim.kill()
        await victim.wait()
    begun = await jobs.get(job_id or new_id())
    assert (begun.status, begun.owner == context.gateway_id) == ("running", False)
    done = await until(jobs, job_id, "succeeded")
    assert (done.generation, done.attempts, done.owner) == (2, 2, context.gateway_id)


async def test_what_an_embedded_gateway_began_waits_for_no_lease(
    jobs: JobService, working: Working, context: ProcessContext
) -> None:
    if context.database.dialect.shared:
        pytest.skip("over Postgres it may be another gateway that goes on")
    job_id = await jobs.enqueue(working.kind)
    await claim(replace(context, gateway_id=new_id()), working.kind, lease=3600.0)
    working.start(context)
    assert (await until(jobs, job_id, "succeeded")).generation == 2


async def test_a_job_whose_owners_die_is_not_begun_for_ever(
    jobs: JobService, working: Working, context: ProcessContext
) -> None:
    job_id = await jobs.enqueue(working.kind, max_attempts=2)
    for _ in range(2):
        (await claim(context, working.kind, lease=0.0)).pop()
    working.start(context)
    job = await until(jobs, job_id, "dead")
    assert (job.error_code, working.done) == ("job_abandoned", [])


# ---------------------------------------------------------------------- failing


async def test_a_failing_job_waits_longer_and_is_dead_in_the_end(
    jobs: JobService, working: Working, context: ProcessContext, principal: Principal
) -> None:
    errors: list[Exception] = [Unavailable("the store is away", code="away"), RuntimeError("secret of a driver")]

    async def work(job: Job) -> None:
        if job.generation <= len(errors):
            raise errors[job.generation - 1]

    job_id = await jobs.enqueue(working.kind, max_attempts=2)
    assert job_id is not None
    working.start(context, work)
    job = await until_so(jobs, job_id, lambda job: job.error_code is not None)
    assert (job.status, job.attempts, job.error_code, job.error) == ("queued", 1, "away", "the store is away")
    assert timedelta(seconds=0) < job.due_at - datetime.now(UTC) <= timedelta(seconds=5)
    await change(context, job, due_at=datetime.now(UTC))
    dead = await until(jobs, job_id, "dead")
    assert (dead.attempts, dead.error_code, dead.error) == (2, "internal", _said(dead))
    assert "secret" not in _said(dead)
    again = await jobs.retry(job_id)
    assert (again.status, again.attempts, again.generation, again.finished_at) == ("queued", 0, 2, None)
    done = await until(jobs, job_id, "succeeded")
    assert (done.error_code, done.attempts) == (None, 1)
    assert [counted(working.kind, outcome) for outcome in ("retried", "dead", "succeeded")] == [1, 1, 1]
    found = await AuditService(context, principal).list(AuditFilter(target=str(job_id)))
    assert [entry.action for entry in found.items] == ["job.retried"]


def _said(job: Job) -> str:
    assert job.error
    return job.error


async def test_work_that_takes_too_long_is_stopped(jobs: JobService, working: Working, context: ProcessContext) -> None:
    async def work(_: Job) -> None:
        await asyncio.sleep(60)

    job_id = await jobs.enqueue(working.kind, max_attempts=1)
    working.start(context, work, timeout_seconds=0.05)
    assert (await until(jobs, job_id, "dead")).error_code == "job_timeout"


async def test_what_is_not_dead_is_not_tried_again(jobs: JobService, context: ProcessContext, kind: str) -> None:
    job_id = await jobs.enqueue(kind, key="one", max_attempts=1)
    assert job_id is not None
    with pytest.raises(Conflict, match="the job is queued") as refused:
        await jobs.retry(job_id)
    assert refused.value.code == "job_live"
    (job,) = await claim(context, kind)
    await service.settle(context, fence_of(job), "dead")
    await jobs.enqueue(kind, key="one")
    with pytest.raises(Conflict, match="another job") as refused:
        await jobs.retry(job_id)
    assert refused.value.code == "job_live"


# ---------------------------------------------------------------------- cancelling


async def test_cancelling_what_waits_and_what_is_over(
    jobs: JobService, working: Working, context: ProcessContext, principal: Principal
) -> None:
    job_id = await jobs.enqueue(working.kind)
    assert job_id is not None
    assert (await jobs.cancel(job_id)).status == "cancelled"
    with pytest.raises(Conflict) as refused:
        await jobs.cancel(job_id)
    assert refused.value.code == "job_over"
    await jobs.retry(job_id)
    working.start(context)
    assert (await until(jobs, job_id, "succeeded")).cancel_requested is False
    found = await AuditService(context, principal).list(AuditFilter(target=str(job_id)))
    assert [entry.action for entry in found.items] == ["job.retried", "job.cancelled"]


async def test_cancelling_what_runs(jobs: JobService, working: Working, context: ProcessContext) -> None:
    async def work(_: Job) -> None:
        await asyncio.sleep(60)

    job_id = await jobs.enqueue(working.kind)
    working.start(context, work)
    running = await until(jobs, job_id, "running")
    assert (await jobs.cancel(running.id)).cancel_requested
    await until(jobs, job_id, "cancelled")
    assert counted(working.kind, "cancelled") == 1


async def test_a_cancelled_job_of_a_dead_gateway_is_not_done(
    jobs: JobService, working: Working, context: ProcessContext
) -> None:
    job_id = await jobs.enqueue(working.kind)
    assert job_id is not None
    await claim(context, working.kind, lease=0.0)
    assert (await jobs.cancel(job_id)).status == "running"
    working.start(context)
    await until(jobs, job_id, "cancelled")
    assert working.done == []


# ---------------------------------------------------------------------- ends, and the truth


async def test_a_worker_that_ends_gives_back_what_it_has(
    jobs: JobService, working: Working, context: ProcessContext
) -> None:
    async def work(_: Job) -> None:
        await asyncio.sleep(60)

    job_id = await jobs.enqueue(working.kind)
    first = working.start(context, work)
    await until(jobs, job_id, "running")
    await first.aclose()
    back = await until(jobs, job_id, "queued")
    assert (back.attempts, back.generation) == (0, 1)
    working.start(context)
    done = await until(jobs, job_id, "succeeded")
    assert (done.attempts, done.generation) == (1, 2)
    assert counted(working.kind, "handed_back") == 1


async def test_what_is_being_taken_as_a_worker_ends_is_given_back(
    jobs: JobService, working: Working, context: ProcessContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    right, taken, go_on = repository.claim, asyncio.Event(), asyncio.Event()

    async def slow(*arguments: Any, **named: Any) -> list[Job]:
        found = await right(*arguments, **named)
        taken.set()
        await go_on.wait()
        return found

    monkeypatch.setattr(repository, "claim", slow)
    job_id = await jobs.enqueue(working.kind)
    worker = working.start(context)
    await asyncio.wait_for(taken.wait(), SOON)
    ending = asyncio.create_task(worker.aclose())
    await asyncio.sleep(0)
    go_on.set()
    await ending
    back = await until(jobs, job_id, "queued")
    assert (back.attempts, back.generation, working.done) == (0, 1, [])


async def test_a_worker_says_when_it_is_behind_or_does_not_look(
    jobs: JobService, working: Working, context: ProcessContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = await jobs.enqueue(working.kind)
    assert job_id is not None
    await change(context, await jobs.get(job_id), due_at=datetime.now(UTC) - timedelta(hours=1))
    worker = JobWorker(with_settings(context, jobs_concurrency=1), [Kind(working.kind, working.work)])
    await worker.ping()
    await worker._measure()
    with pytest.raises(Unavailable, match="Jobs wait for 3"):
        await worker.ping()
    await worker._look()
    await worker._measure()
    await worker.ping()
    monkeypatch.setattr(worker, "_looked", worker._looked - 3600)
    with pytest.raises(Unavailable, match="No job was looked for"):
        await worker.ping()
    await worker.aclose()


async def test_looking_goes_on_after_an_error(
    jobs: JobService, working: Working, context: ProcessContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures: list[Exception] = [RuntimeError("as it may"), Unavailable("away")]
    right = repository.claim

    async def wrong(*arguments: Any, **named: Any) -> list[Job]:
        if failures:
            raise failures.pop()
        return await right(*arguments, **named)

    monkeypatch.setattr(repository, "claim", wrong)
    working.start(context)
    await until(jobs, await jobs.enqueue(working.kind), "succeeded")
