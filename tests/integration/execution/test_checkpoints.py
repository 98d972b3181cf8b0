"""Sessions at rest are saved in the background, with real hosts.

Plan
- What ran is saved after the rest, without sealing the kernel, and comes back when the host is lost; nothing new, no
  other snapshot; only what changed is stored; a session without cells or host is looked at once.
- Never while a cell or a run goes on, nor on a host that has not been given the session's state yet; a cell that comes
  meanwhile is not kept waiting by the store, and is named as lost when it is.
- A kernel that is killed while it is saved costs the snapshot only. A store that is away is tried again later; a kernel
  that cannot be saved is not asked again before something has run. A suspension goes before.
- Of two gateways one takes it; zero seconds means never.
"""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import pytest
from tests.support.desk import PRINCIPAL, Desk, lose_host
from tests.support.local import end_of, text_of, until

from carrel_gateway.errors import Unavailable
from carrel_gateway.kernels.connection import HostConnection
from carrel_gateway.runs.service import Fence, RunService
from carrel_gateway.sessions import repository as sessions
from carrel_gateway.sessions.service import SessionService
from carrel_gateway.snapshots import repository as snapshots
from carrel_gateway.snapshots.service import Snapshot, SnapshotService
from carrel_gateway.storage.ids import new_id
from carrel_gateway.storage.objects import ObjectsAway
from carrel_gateway.suspension import checkpoints
from carrel_gateway.suspension.checkpoints import Checkpoints
from carrel_gateway.suspension.service import SuspensionService
from carrel_wire.log import CellFinished, RunFinished, RunStarted, SessionRecovered, UserMessage

pytestmark = pytest.mark.timeout(240)


@pytest.fixture(autouse=True)
def at_rest_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have sessions be at rest as soon as nothing is written any more."""

    async def at_rest(self: SessionService, *, seconds: float, limit: int) -> Any:
        del seconds
        async with self._database.transaction(PRINCIPAL.tenant_id, write=False) as tx:
            return await sessions.at_rest(tx, before=datetime.now(UTC), limit=limit)

    monkeypatch.setattr(SessionService, "at_rest", at_rest)
    monkeypatch.setattr(checkpoints, "FIRST_PAUSE_SECONDS", 0.0)


def of(desk: Desk) -> Checkpoints:
    return Checkpoints(desk.context, PRINCIPAL)


async def latest(desk: Desk) -> Snapshot | None:
    return await SnapshotService(desk.context, PRINCIPAL).latest(desk.session_id)


async def ran(desk: Desk, code: str) -> str:
    """Run code, and wait until all of it is recorded and acknowledged."""
    printed = text_of(await desk.run(code))
    await desk.context.kernels.in_flight.wait(desk.session_id, seconds=30)
    held = desk.context.kernels.held(desk.session_id)
    assert held
    await held.acknowledge()
    return printed


async def test_what_ran_is_saved_at_rest_and_comes_back(desk: Desk) -> None:
    await ran(desk, "x = 1")
    assert await of(desk).look() == ["taken"]
    first = await latest(desk)
    assert first
    assert await of(desk).look() == [], "nothing has happened since"
    assert await ran(desk, "x += 1; print(x)") == "2\n", "its kernel goes on"
    assert await of(desk).look() == ["taken"]
    second = await latest(desk)
    assert second
    assert second.id != first.id
    await desk.history.append(desk.session_id, [UserMessage(message_id=new_id(), content="hello")], actor="user")
    assert await of(desk).look() == ["nothing"], "nothing has run"
    await ran(desk, "x = 'lost'")
    await lose_host(desk)
    assert await ran(desk, "print(x)") == "2\n"
    events = await desk.history.events(desk.session_id)
    (told,) = [event.payload for event in events if isinstance(event.payload, SessionRecovered)]
    assert (told.snapshot_id, told.lost_cells_count) == (second.id, 1)
    session = await SessionService(desk.context, PRINCIPAL).get(desk.session_id)
    assert (session.snapshot_id, session.suspended_at) == (None, None)


async def test_a_session_without_a_host_is_looked_at_once(desk: Desk) -> None:
    assert await of(desk).look() == [], "it never had one"
    await ran(desk, "x = 1")
    await lose_host(desk)
    assert await of(desk).look() == ["failed"], "its connection is as good as ever"
    assert await of(desk).look() == ["nothing"]
    assert await of(desk).look() == []


async def test_never_while_a_cell_or_a_run_goes_on(desk: Desk) -> None:
    await ran(desk, "import os, time")
    looking, runs = of(desk), RunService(desk.context, PRINCIPAL)
    running = asyncio.create_task(desk.run("while not os.path.exists('go'): time.sleep(0.02)"))

    async def busy() -> bool:
        return (await desk.executions.state(desk.session_id)).busy

    await until(busy)
    assert await looking.look() == ["in_use"]
    (desk.workspace / "go").touch()
    await running
    await desk.context.kernels.in_flight.wait(desk.session_id, seconds=30)
    first = [RunStarted(run_id=(run_id := new_id()), kind="chat")]
    run = await runs.start(desk.session_id, kind="chat", first=first, model="m", run_id=run_id)
    assert await looking.look() == ["in_use"]
    assert await latest(desk) is None
    end = RunFinished(run_id=run.id, status="succeeded")
    await runs.finish(desk.session_id, Fence(run.id, run.generation), end)
    assert await looking.look() == ["taken"]


async def test_a_cell_that_comes_meanwhile_waits_for_the_kernel_alone(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    await ran(desk, "x = [1]")
    put, stored = desk.context.objects.put, asyncio.Event()

    async def slow(*arguments: Any, **more: Any) -> Any:
        await stored.wait()
        return await put(*arguments, **more)

    monkeypatch.setattr(desk.context.objects, "put", slow)
    looking = asyncio.create_task(of(desk).look())

    async def storing() -> bool:
        async with desk.context.database.transaction(PRINCIPAL.tenant_id, write=False) as tx:
            return bool(await snapshots.unsettled(tx, pending_before=datetime.now(UTC), limit=1))

    await until(storing)
    execution = new_id()
    await desk.run("x.append(2)", execution_id=execution, durable=True)
    held = desk.context.kernels.held(desk.session_id)
    assert held
    held.prepared = False  # as in another gateway, which takes the session's lock to make the host ready
    assert text_of(await desk.run("print(x)")) == "[1, 2]\n"
    stored.set()
    assert await looking == ["taken"]
    await lose_host(desk)
    assert await ran(desk, "print(x)") == "[1]\n"
    events = await desk.history.events(desk.session_id)
    (told,) = [event.payload for event in events if isinstance(event.payload, SessionRecovered)]
    assert execution in told.lost_cells
    ends = [event.payload for event in events if isinstance(event.payload, CellFinished)]
    assert told.lost_cells == [end.execution_id for end in ends[1:3]]


async def test_a_kernel_that_is_killed_while_it_is_saved_costs_the_snapshot_only(desk: Desk) -> None:
    pid = int(await ran(desk, "import os, time\nprint(os.getpid())"))
    await ran(desk, "x = 1")
    assert await of(desk).look() == ["taken"]
    kept = await latest(desk)
    await ran(
        desk,
        "class Slow:\n"
        "    def __reduce__(self):\n"
        "        open('saving', 'w').close(); time.sleep(5); return (str, ())\n"
        "y = Slow()",
    )
    looking = asyncio.create_task(of(desk).look())

    async def saving() -> bool:
        return (desk.workspace / "saving").exists()

    await until(saving)
    os.kill(pid, signal.SIGKILL)
    assert await looking == ["failed"]
    assert await latest(desk) == kept
    assert await of(desk).look() == [], "it is not asked again before something has run"
    assert end_of(await desk.run("print('goes on')")).status == "ok"


async def test_a_store_that_is_away_is_tried_again_and_a_kernel_that_refuses_is_not(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    await ran(desk, "x = 1")
    looking = of(desk)

    async def away(*_: Any, **__: Any) -> Any:
        raise ObjectsAway("away")

    with monkeypatch.context() as patch:
        patch.setattr(desk.context.objects, "put", away)
        assert await looking.look() == ["failed"]
        monkeypatch.setattr(checkpoints, "FIRST_PAUSE_SECONDS", 3600.0)
        looking._put_off.clear()
        assert await looking.look() == ["failed"]
        assert await looking.look() == [], "put off"
        looking._put_off.clear()
    assert await looking.look() == ["taken"]
    await ran(desk, "x = 2")

    async def refuses(*_: Any, **__: Any) -> Any:
        raise Unavailable("the kernel did not answer", code="kernel_unavailable")

    with monkeypatch.context() as patch:
        patch.setattr(HostConnection, "snapshot", refuses)
        assert await looking.look() == ["failed"]
    looking._put_off.clear()
    assert await looking.look() == []
    await ran(desk, "x = 3")
    assert await looking.look() == ["taken"]


async def test_a_host_that_has_not_been_given_the_state_is_not_saved(desk: Desk) -> None:
    await ran(desk, "x = 1")
    assert await of(desk).look() == ["taken"]
    kept = await latest(desk)
    await ran(desk, "x = 2")
    await lose_host(desk)
    await desk.context.kernels.forget(desk.session_id)
    await desk.context.kernels.connect(await desk.executions.ref(desk.session_id))  # the operator made it
    assert await of(desk).look() == ["nothing"]
    assert await latest(desk) == kept
    assert await ran(desk, "print(x)") == "1\n"


async def test_a_suspension_goes_before(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    await ran(desk, "x = 1")
    real = SnapshotService._record
    suspended = False

    async def record(self: SnapshotService, *arguments: Any, suspends: bool) -> Any:
        nonlocal suspended
        if not suspends and not suspended:
            suspended = True
            await SuspensionService(desk.context, PRINCIPAL).suspend(desk.session_id)
        return await real(self, *arguments, suspends=suspends)

    monkeypatch.setattr(SnapshotService, "_record", record)
    assert await of(desk).look() == ["in_use"]
    assert await of(desk).look() == []
    assert await ran(desk, "print(x)") == "1\n"


async def test_of_two_gateways_one_takes_it(desks: tuple[Desk, Desk], monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = desks
    await ran(first, "x = 1")
    real, taking = HostConnection.snapshot, asyncio.Event()

    async def snapshot(self: HostConnection, *, kernel: str = "main") -> Any:
        taking.set()
        await asyncio.sleep(0.3)
        return await real(self, kernel=kernel)

    monkeypatch.setattr(HostConnection, "snapshot", snapshot)
    looking = asyncio.create_task(of(first).look())
    await taking.wait()
    assert await of(second).look() == ["elsewhere"]
    assert await looking == ["taken"]
    assert await of(second).look() == []
    assert await ran(second, "print(x)") == "1\n"


async def test_it_is_done_by_itself_and_never_with_zero_seconds(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "LOOK_SECONDS", 0.05)
    await ran(desk, "x = 1")
    running = asyncio.create_task(checkpoints.checkpoint_for_ever(desk.context))

    async def saved() -> bool:
        return await latest(desk) is not None

    await until(saved)
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running
    never = desk.settings.model_copy(update={"checkpoint_seconds": 0.0})
    monkeypatch.setattr(type(desk.context), "settings", never, raising=False)
    await asyncio.wait_for(checkpoints.checkpoint_for_ever(desk.context), 5)
