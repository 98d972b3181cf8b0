"""Two gateways over one Postgres and one Redis, and one kernel host that both can reach.

Plan: the same id at both runs once, and both callers get all of it; when the one that records stops, the other waits
for the time of a lease and goes on from what is committed; when both record at once, one wins each commit and the other
follows; nothing is twice and nothing is missing.
"""

from __future__ import annotations

import asyncio

import pytest
from tests.support.desk import Desk
from tests.support.local import end_of, text_of, until

from carrel_gateway.kernels.outputs import fold
from carrel_gateway.storage.ids import new_id
from carrel_wire.events import ExecutionEvent
from carrel_wire.log import CellFinished, CellOutputs

TICKS = 30
SLOW = f"""
import os, time
for n in range({TICKS}):
    open("ticks.txt", "a").write(f"{{n}}\\n")
    print(n, flush=True)
    time.sleep(0.1)
    while n == 10 and not os.path.exists("go"):
        time.sleep(0.05)
"""
"""It goes on to its end when it is let."""
PRINTED = "".join(f"{n}\n" for n in range(TICKS))


async def check(desk: Desk, cells: int = 2) -> None:
    events = []
    while page := await desk.history.events(desk.session_id, after=events[-1].seq if events else 0):
        events.extend(page)
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    ends = [event.payload for event in events if isinstance(event.payload, CellFinished)]
    assert [end.status for end in ends] == ["ok"] * cells
    parts = [part for event in events if isinstance(event.payload, CellOutputs) for part in event.payload.outputs]
    assert "".join(output["text"] for output in fold(parts)) == PRINTED
    assert await asyncio.to_thread((desk.workspace / "ticks.txt").read_text) == PRINTED


def begin(desk: Desk, execution) -> asyncio.Task[list[ExecutionEvent]]:
    return asyncio.create_task(desk.run(SLOW, execution_id=execution, durable=True))


def let(desk: Desk) -> None:
    (desk.workspace / "go").touch()


async def some_committed(desk: Desk) -> bool:
    return any(isinstance(event.payload, CellOutputs) for event in await desk.history.events(desk.session_id))


async def test_the_same_id_at_both_runs_once(desks: tuple[Desk, Desk]):
    first, second = desks
    execution = new_id()
    running = begin(first, execution)
    await until(lambda: some_committed(first))
    joined = begin(second, execution)
    let(first)
    both = await asyncio.gather(running, joined)
    for events in both:
        assert text_of(events) == PRINTED
        assert end_of(events).status == "ok"
    await check(second)


async def test_one_goes_on_where_the_other_stopped(desks: tuple[Desk, Desk]):
    first, second = desks
    execution = new_id()
    running = begin(first, execution)
    await until(lambda: some_committed(first))
    recording = first.context.kernels.in_flight.get(execution)
    assert recording
    recording.task.cancel()  # as when its process is stopped in the middle
    let(first)
    events = await second.run(SLOW, execution_id=execution, durable=True)
    assert text_of(events) == PRINTED
    assert end_of(events).status == "ok"
    with pytest.raises(Exception, match="closing"):
        await running
    await check(second)


async def test_both_record_and_nothing_is_twice(desks: tuple[Desk, Desk]):
    first, second = desks
    running = begin(first, new_id())
    await until(lambda: some_committed(first))
    await second.executions.recover(second.session_id)  # it believes that the first is dead
    let(first)
    assert end_of(await running).status == "ok"
    for desk in desks:
        await desk.context.kernels.in_flight.wait(desk.session_id, seconds=60)
    await check(second)

    async def acknowledged() -> bool:
        """By whichever recorded it, a moment after its commit."""
        return (await second.executions.state(second.session_id)).unacknowledged == 0

    await until(acknowledged)


async def test_a_plain_request_that_another_gateway_finds_is_recorded_once(desks: tuple[Desk, Desk]):
    first, second = desks
    running = asyncio.create_task(first.run(SLOW))

    async def busy() -> bool:
        return (await first.executions.state(first.session_id)).busy

    async def looked(desk: Desk) -> bool:
        held = desk.context.kernels.held(desk.session_id)
        return held is not None and held.prepared

    await until(busy)
    behind = asyncio.create_task(second.run("print(end='')"))  # its first look at the host finds the other's cell
    await until(lambda: looked(second))
    let(first)
    assert text_of(await behind) == ""
    assert end_of(await running).status == "ok"
    for desk in desks:
        await desk.context.kernels.in_flight.wait(desk.session_id, seconds=60)
    await check(second, cells=3)
