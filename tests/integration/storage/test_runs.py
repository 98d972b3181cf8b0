"""Runs over both databases.

Plan: one active run per session, of many that start at once one wins and the others hear its id; start is whole or
nothing; leases are renewed by their owner alone; a silent owner's run is taken over once, of whichever tenant, and
the old owner writes nothing after `run.taken_over`, also when both write at the same moment; cancelling; another
tenant sees nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from uuid import UUID

import pytest
from tests.support.state import chunks_of, new_principal, open_state

from carrel_gateway.artifacts.service import ArtifactService
from carrel_gateway.context import Principal, ProcessContext
from carrel_gateway.errors import NotFound, SessionBusy, StaleRun
from carrel_gateway.history.service import Fence, HistoryService
from carrel_gateway.runs.service import Run, RunService, claim_expired
from carrel_gateway.sessions.service import SessionService
from carrel_gateway.settings import Settings
from carrel_gateway.storage.ids import new_id
from carrel_wire.log import LogPayload, PlanMade, RunFinished, RunStarted, RunTakenOver, UserMessage


@pytest.fixture
def runs(context: ProcessContext, principal: Principal) -> RunService:
    return RunService(context, principal)


async def start(runs: RunService, session_id: UUID) -> Run:
    run_id = new_id()
    first: list[LogPayload] = [
        UserMessage(message_id=new_id(), content="q", run_id=run_id),
        RunStarted(run_id=run_id, kind="chat", model="m"),
    ]
    return await runs.start(session_id, kind="chat", first=first, model="m", run_id=run_id)


def fence_of(run: Run) -> Fence:
    return Fence(run.id, run.generation)


def ended(run: Run) -> RunFinished:
    return RunFinished(run_id=run.id, status="succeeded")


async def types(context: ProcessContext, principal: Principal, session_id: UUID) -> list[str]:
    return [event.type for event in await HistoryService(context, principal).events(session_id)]


async def test_a_run_from_start_to_end(
    runs: RunService, session_id: UUID, context: ProcessContext, principal: Principal
) -> None:
    assert await runs.active(session_id) is None
    run = await start(runs, session_id)
    assert (run.generation, run.owner, run.kind, run.model, run.status) == (
        1,
        context.gateway_id,
        "chat",
        "m",
        "running",
    )
    assert (run.user_id, run.session_id) == (principal.user_id, session_id)
    assert await runs.active(session_id) == run
    await runs.renew(fence_of(run))
    renewed = await runs.active(session_id)
    assert renewed is not None
    assert renewed.lease_until >= run.lease_until
    await runs.finish(session_id, fence_of(run), ended(run))
    assert await runs.active(session_id) is None
    assert await types(context, principal, session_id) == [
        "session.created",
        "message.user",
        "run.started",
        "run.finished",
    ]
    for late in (runs.renew(fence_of(run)), runs.finish(session_id, fence_of(run), ended(run))):
        with pytest.raises(StaleRun):
            await late
    with pytest.raises(StaleRun):
        await runs.is_cancel_requested(fence_of(run))
    assert (await start(runs, session_id)).id != run.id


async def test_of_many_starts_one_wins_and_the_others_hear_its_id(
    runs: RunService, session_id: UUID, context: ProcessContext, principal: Principal
) -> None:
    outcomes = await asyncio.gather(*(start(runs, session_id) for _ in range(10)), return_exceptions=True)
    won = [outcome for outcome in outcomes if isinstance(outcome, Run)]
    busy = [outcome for outcome in outcomes if isinstance(outcome, SessionBusy)]
    assert (len(won), len(busy)) == (1, 9)
    assert {error.detail["run_id"] for error in busy} == {str(won[0].id)}
    assert await types(context, principal, session_id) == ["session.created", "message.user", "run.started"]


async def test_no_run_without_a_session(runs: RunService) -> None:
    with pytest.raises(NotFound):
        await start(runs, new_id())


async def test_cancelling_is_seen_by_the_owner(runs: RunService, session_id: UUID) -> None:
    assert await runs.request_cancel(session_id) is None
    run = await start(runs, session_id)
    assert not await runs.is_cancel_requested(fence_of(run))
    assert await runs.request_cancel(session_id) == run.id
    assert await runs.is_cancel_requested(fence_of(run))


@pytest.fixture
async def other(settings: Settings, context: ProcessContext, principal: Principal) -> AsyncIterator[ProcessContext]:
    """Another gateway at the same database; over SQLite, which has one process, the same pool under another id."""
    del principal
    if settings.database.startswith("sqlite"):
        yield replace(context, gateway_id=new_id())
    else:
        async with open_state(settings) as opened:
            yield opened


async def claimed_by(gateway: ProcessContext, run: Run) -> list[tuple[Principal, Run]]:
    return [(who, taken) for who, taken in await claim_expired(gateway) if taken.id == run.id]


async def test_a_silent_owners_run_is_taken_over_once(
    runs: RunService, session_id: UUID, context: ProcessContext, principal: Principal, other: ProcessContext
) -> None:
    run = await start(runs, session_id)
    await runs.hand_over(fence_of(run))
    both = await asyncio.gather(*(claimed_by(other, run) for _ in range(4)))
    ((who, taken),) = [found for each in both for found in each]
    assert who == principal
    assert (taken.generation, taken.owner) == (2, other.gateway_id)
    assert await claimed_by(other, run) == []
    last = (await HistoryService(context, principal).events(session_id))[-1]
    assert (last.payload, last.actor) == (RunTakenOver(run_id=run.id, generation=2), "system")
    plan = PlanMade(run_id=run.id, steps=[])
    with pytest.raises(StaleRun):
        await HistoryService(context, principal).append(session_id, [plan], actor="agent", fence=fence_of(run))
    for late in (runs.renew(fence_of(run)), runs.hand_over(fence_of(run))):
        with pytest.raises(StaleRun):
            await late
    await RunService(other, principal).finish(session_id, fence_of(taken), ended(taken))


async def test_a_living_owners_run_is_left_alone(runs: RunService, session_id: UUID, context: ProcessContext) -> None:
    run = await start(runs, session_id)
    assert await claimed_by(context, run) == []


async def test_the_embedded_product_takes_over_at_once_after_a_restart(
    runs: RunService, session_id: UUID, settings: Settings, other: ProcessContext
) -> None:
    run = await start(runs, session_id)
    # Nobody else can have an SQLite file; on Postgres the owner may be alive until its lease is over.
    assert len(await claimed_by(other, run)) == (1 if settings.database.startswith("sqlite") else 0)


async def test_expired_runs_of_all_tenants_are_found(context: ProcessContext, other: ProcessContext) -> None:
    wanted: dict[UUID, Principal] = {}
    for _ in range(3):
        principal = await new_principal(context.database)
        session = await SessionService(context, principal).create()
        runs = RunService(context, principal)
        run = await start(runs, session.id)
        await runs.hand_over(fence_of(run))
        wanted[run.id] = principal
    found = {run.id: who for who, run in await claim_expired(other) if run.id in wanted}
    assert found == wanted


async def test_the_old_owner_writes_nothing_after_the_takeover(
    runs: RunService, session_id: UUID, context: ProcessContext, principal: Principal, other: ProcessContext
) -> None:
    history, artifacts = HistoryService(context, principal), ArtifactService(context, principal)
    run = await start(runs, session_id)

    async def append() -> None:
        for _ in range(1000):
            await history.append(session_id, [PlanMade(run_id=run.id, steps=[])], actor="agent", fence=fence_of(run))

    async def store() -> None:
        for place in range(1000):
            await artifacts.store(
                session_id,
                name=f"{place}.txt",
                category="artifacts",
                content_type=None,
                chunks=chunks_of(b"x"),
                run_id=run.id,
                fence=fence_of(run),
            )

    writers = [asyncio.create_task(append()), asyncio.create_task(append()), asyncio.create_task(store())]
    await history.wait(session_id, after=8, seconds=30)
    await runs.hand_over(fence_of(run))
    assert len(await claimed_by(other, run)) == 1
    outcomes = await asyncio.wait_for(asyncio.gather(*writers, return_exceptions=True), 60)
    assert [type(outcome) for outcome in outcomes] == [StaleRun] * 3
    assert (await types(context, principal, session_id))[-1] == "run.taken_over"


async def test_another_tenant_sees_no_run(runs: RunService, session_id: UUID, context: ProcessContext) -> None:
    run = await start(runs, session_id)
    stranger = RunService(context, await new_principal(context.database))
    assert await stranger.active(session_id) is None
    assert await stranger.request_cancel(session_id) is None
    for late in (stranger.renew(fence_of(run)), stranger.finish(session_id, fence_of(run), ended(run))):
        with pytest.raises(StaleRun):
            await late
    with pytest.raises(NotFound):
        await start(stranger, session_id)
    assert not await runs.is_cancel_requested(fence_of(run))
