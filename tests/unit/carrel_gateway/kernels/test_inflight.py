"""Recordings in flight.

Plan: found while they go on, forgotten when done; closing waits for those that end and stops those that do not.
"""

from __future__ import annotations

import asyncio
from uuid import UUID, uuid4

from carrel_gateway.kernels.inflight import InFlight


class Work:
    def __init__(self, session_id: UUID, until: asyncio.Event) -> None:
        self.session_id = session_id
        self.finished = False
        self.task = asyncio.create_task(self._run(until))

    async def _run(self, until: asyncio.Event) -> None:
        await until.wait()
        self.finished = True


async def test_found_while_it_goes_on():
    flight, until, execution = InFlight(), asyncio.Event(), uuid4()
    work = Work(uuid4(), until)
    flight.add(execution, work)
    assert flight.get(execution) is work
    until.set()
    await work.task
    assert flight.get(execution) is None


async def test_waits_for_one_session_only():
    flight, until, never = InFlight(), asyncio.Event(), asyncio.Event()
    mine, other = Work(uuid4(), until), Work(uuid4(), never)
    flight.add(uuid4(), mine)
    flight.add(uuid4(), other)
    until.set()
    await flight.wait(mine.session_id, seconds=30)
    assert mine.finished
    assert not other.finished
    await flight.aclose(drain_seconds=0)


async def test_closing_stops_what_does_not_end():
    flight, never = InFlight(), asyncio.Event()
    work = Work(uuid4(), never)
    flight.add(uuid4(), work)
    await flight.aclose(drain_seconds=0)
    assert work.task.cancelled()
    assert not work.finished
