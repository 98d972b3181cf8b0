"""What a gateway that starts does about the one before it.

Plan: output that nobody acknowledged is read on without being asked; the host of a session that was deleted meanwhile
is ended with its files; a session that cannot be recovered, or takes for ever, does not keep the gateway from starting.
"""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import msgspec
import pytest
from tests.support.desk import Desk

from carrel_gateway.execution.startup import recover_left_behind
from carrel_gateway.executors import processes
from carrel_gateway.executors.local import HostRecord
from carrel_gateway.storage.ids import new_id
from carrel_wire.host import ExecuteRequest
from carrel_wire.log import CellFinished


def record_path(desk: Desk) -> Path:
    return desk.settings.data_dir / "hosts" / f"{desk.session_id}.json"


async def run_unseen(desk: Desk) -> None:
    """Run a cell past the service: nothing of it is committed or acknowledged, as after a kill."""
    await desk.run("x = 1")
    connection = desk.context.kernels.held(desk.session_id)
    assert connection
    [_ async for _ in connection.execute(new_id(), ExecuteRequest(code="print('unseen')"))]
    await desk.context.kernels.forget(desk.session_id)


async def test_what_nobody_acknowledged_is_read_on(desk: Desk):
    await run_unseen(desk)
    assert await recover_left_behind(desk.context) == 1
    events = await desk.history.events(desk.session_id)
    codes = [event.payload.code for event in events if isinstance(event.payload, CellFinished)]
    assert codes == ["x = 1", "print('unseen')"]
    await desk.context.kernels.in_flight.wait(desk.session_id, seconds=60)
    assert (await desk.executions.state(desk.session_id)).unacknowledged == 0


async def test_the_host_of_a_deleted_session_is_ended(desk: Desk):
    from carrel_gateway.sessions.service import SessionService

    await run_unseen(desk)
    record = await asyncio.to_thread(record_path(desk).read_bytes)
    host = msgspec.json.decode(record, type=HostRecord)
    release = desk.context.kernels.release
    desk.context.kernels.release = _nothing  # as when the gateway is killed after the rows are gone
    await SessionService(desk.context, desk.principal).delete(desk.session_id)
    desk.context.kernels.release = release
    assert processes.is_alive(host.pid, host.started)
    await recover_left_behind(desk.context)
    assert not processes.is_alive(host.pid, host.started)
    assert not desk.workspace.exists()


async def test_a_dead_host_does_not_keep_the_gateway_from_starting(desk: Desk):
    await run_unseen(desk)
    record = msgspec.json.decode(await asyncio.to_thread(record_path(desk).read_bytes), type=HostRecord)
    os.kill(record.pid, signal.SIGKILL)
    assert await recover_left_behind(desk.context) == 1


async def test_a_host_that_stands_still_does_not_hold_the_start_up(desk: Desk, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("carrel_gateway.execution.startup.PATIENCE_SECONDS", 0.5)
    await run_unseen(desk)
    record = msgspec.json.decode(await asyncio.to_thread(record_path(desk).read_bytes), type=HostRecord)
    os.kill(record.pid, signal.SIGSTOP)
    try:
        async with asyncio.timeout(20):
            assert await recover_left_behind(desk.context) == 1
    finally:
        os.kill(record.pid, signal.SIGCONT)
    await desk.run("None")
    await desk.context.kernels.in_flight.wait(desk.session_id, seconds=60)
    events = await desk.history.events(desk.session_id)
    codes = {event.payload.code for event in events if isinstance(event.payload, CellFinished)}
    assert codes == {"x = 1", "print('unseen')", "None"}


async def _nothing(*_: object) -> None:
    """Do nothing."""
