"""A session that two gateways suspend and resume at the same time, over one Postgres.

Plan: a gateway whose connection was good goes on after another has suspended the session, with its state; both resume
at once and both cells run on the one state, once each; both suspend at once and the state is there; one finishes what
the other has begun; a fork made at one is used at the other. Whatever happens, the log tells each suspension and each
resumption once, in turn.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import pytest
from tests.support.desk import PRINCIPAL, Desk
from tests.support.local import text_of

from carrel_gateway.errors import Conflict
from carrel_gateway.executors.local import LocalExecutor
from carrel_gateway.suspension.service import SuspensionService
from carrel_wire.log import KernelChanged, SessionResumed, SessionSuspended

pytestmark = pytest.mark.timeout(240)


@pytest.fixture
def both(desks: tuple[Desk, Desk]) -> tuple[Desk, Desk]:
    """Two gateways that start one host between them, as on a cluster, where the API server sees to it."""
    executors = [desk.context.executor for desk in desks]
    assert isinstance(executors[0], LocalExecutor)
    assert isinstance(executors[1], LocalExecutor)
    executors[1]._locks.close()
    executors[1]._locks = executors[0]._locks
    return desks


def suspensions(desk: Desk) -> SuspensionService:
    return SuspensionService(desk.context, PRINCIPAL)


async def changes(desk: Desk) -> list[str]:
    events = await desk.history.events(desk.session_id)
    assert not any(isinstance(event.payload, KernelChanged) and event.payload.lost_state for event in events)
    kinds = (SessionSuspended, SessionResumed)
    return [event.type.removeprefix("session.") for event in events if isinstance(event.payload, kinds)]


async def test_the_other_gateway_goes_on_with_the_state(both: tuple[Desk, Desk]) -> None:
    first, second = both
    await first.run("x = 0")
    await second.run("x += 1")  # its connection is as good as ever
    await suspensions(first).suspend(first.session_id)
    assert text_of(await second.run("x += 1; print(x)")) == "2\n"
    assert text_of(await first.run("x += 1; print(x)")) == "3\n"
    forked = await suspensions(first).fork(first.session_id)
    fork = Desk(second.context, forked.session.id)
    assert text_of(await fork.run("x += 10; print(x)")) == "13\n"
    assert text_of(await second.run("print(x)")) == "3\n"
    assert await changes(first) == ["suspended", "resumed"]


async def test_both_resume_at_once(both: tuple[Desk, Desk]) -> None:
    first, second = both
    await first.run("x = []")
    await suspensions(first).suspend(first.session_id)
    await asyncio.gather(first.run("x.append('first')"), second.run("x.append('second')"))
    assert text_of(await first.run("print(sorted(x))")) == "['first', 'second']\n"
    assert await changes(first) == ["suspended", "resumed"]


async def test_both_suspend_at_once_while_cells_come(both: tuple[Desk, Desk]) -> None:
    first, second = both
    await first.run("x = 0")
    done = 0

    async def suspend(desk: Desk) -> None:
        with suppress(Conflict):  # it is busy, or the other gateway is at it
            await suspensions(desk).suspend(desk.session_id)

    async def cells(desk: Desk) -> None:
        nonlocal done
        for _ in range(5):
            await desk.run("x += 1")
            done += 1

    for _ in range(3):
        await asyncio.gather(suspend(first), suspend(second), cells(first))
    assert text_of(await second.run("print(x)")) == f"{done}\n"
    told = await changes(first)
    assert told == ["suspended", "resumed"] * (len(told) // 2)


@pytest.mark.parametrize("late", [False, True], ids=["seen when it looks", "seen when it saves"])
async def test_each_suspension_is_told_once_whoever_finishes_it(
    both: tuple[Desk, Desk], monkeypatch: pytest.MonkeyPatch, late: bool
) -> None:
    """The first gateway has sealed the kernel and not said so when the second, which was asked, too, comes to it."""
    first, second = both
    await first.run("x = 7")
    ours, theirs = suspensions(first), suspensions(second)
    seal, suspend = SuspensionService._seal, SuspensionService._suspend
    sealed, said = asyncio.Event(), asyncio.Event()

    async def seal_and_wait(service: SuspensionService, *arguments: Any) -> bool:
        done = await seal(service, *arguments)
        if service is ours:
            sealed.set()
            await said.wait()
        return done

    async def suspend_late(service: SuspensionService, *arguments: Any) -> None:
        if service is theirs and late:
            await sealed.wait()
        await suspend(service, *arguments)

    monkeypatch.setattr(SuspensionService, "_seal", seal_and_wait)
    monkeypatch.setattr(SuspensionService, "_suspend", suspend_late)
    task = asyncio.create_task(ours.suspend(first.session_id))
    if not late:
        await sealed.wait()
    await theirs.suspend(second.session_id)
    said.set()
    await task
    assert await changes(first) == ["suspended"]
    assert text_of(await first.run("print(x)")) == "7\n"
    assert await changes(first) == ["suspended", "resumed"]
