"""Sessions that are saved because the platform asks for it, with real hosts and a platform that the test plays.

Plan
- An idle session is saved, suspended and its host ended, without anybody's request; the next use has its state.
- What cannot be saved now says why and stays: a running cell, a run, a connected client, a store that is away; it is
  saved when that is over. A request that is withdrawn is dropped, and its explanation goes.
- A session without a history is ended with nothing saved, and only when nothing has run in its kernel; a host that a
  suspended session still has, or has again, is ended with the snapshot that there is.
- A gateway that dies at any step leaves the request, and the next one answers it. Of two gateways one does the work.
- Health says when requests cannot be seen.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from tests.support.desk import PRINCIPAL, Desk, opened
from tests.support.local import text_of, until
from tests.support.requesting import Platform

from carrel_gateway.errors import Unavailable
from carrel_gateway.execution.waking import Waking
from carrel_gateway.executors.base import HostEndpoint, Saved, SessionRef, SuspensionRequest
from carrel_gateway.kernels.connection import HostConnection
from carrel_gateway.runs.service import Fence, RunService
from carrel_gateway.sessions.leasing import leased
from carrel_gateway.sessions.service import SessionService
from carrel_gateway.snapshots.service import SnapshotService
from carrel_gateway.storage.ids import new_id
from carrel_gateway.storage.objects import ObjectsAway
from carrel_gateway.suspension import keeping
from carrel_gateway.suspension.keeping import SessionKeeper
from carrel_gateway.suspension.service import SuspensionService
from carrel_wire.host import ExecuteRequest
from carrel_wire.log import RunFinished, RunStarted, SessionResumed, SessionSuspended

pytestmark = pytest.mark.timeout(240)


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeping, "FIRST_PAUSE_SECONDS", 0.1)
    monkeypatch.setattr(keeping, "LONGEST_PAUSE_SECONDS", 0.2)


@asynccontextmanager
async def kept(desk: Desk, platform: Platform) -> AsyncIterator[SessionKeeper]:
    keeper = SessionKeeper(desk.context, platform)
    running = asyncio.create_task(keeper.run())
    try:
        yield keeper
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running


async def host_of(desk: Desk) -> HostEndpoint | None:
    return await desk.context.executor.find(await desk.executions.ref(desk.session_id))


async def asking(desk: Desk, reason: str = "Idle", *, name: str = "it", by_hand: bool = False) -> SuspensionRequest:
    host = await host_of(desk)
    assert host
    return SuspensionRequest(
        name=name,
        session_id=desk.session_id,
        tenant_id=None if by_hand else PRINCIPAL.tenant_id,
        owner_id=None if by_hand else PRINCIPAL.user_id,
        pod_uid=host.audience,
        reason=reason,
    )


async def is_suspended(desk: Desk) -> bool:
    session = await SessionService(desk.context, PRINCIPAL).get(desk.session_id)
    return session.suspended_at is not None and await host_of(desk) is None


@pytest.fixture
def saved(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> list[Saved]:
    """What hosts were ended with."""
    given: list[Saved] = []
    end = desk.context.executor.suspend

    async def suspend(session: SessionRef, audience: str, saved: Saved) -> None:
        given.append(saved)
        await end(session, audience, saved)

    monkeypatch.setattr(desk.context.executor, "suspend", suspend)
    return given


async def last_snapshot(desk: Desk) -> Saved:
    session = await SessionService(desk.context, PRINCIPAL).get(desk.session_id)
    assert session.snapshot_id
    snapshot = await SnapshotService(desk.context, PRINCIPAL).find(session.snapshot_id)
    return Saved(str(snapshot.id), snapshot.digest)


@pytest.mark.parametrize(("reason", "by_hand"), [("Idle", False), ("Suspending", True)])
async def test_a_session_is_saved_when_the_platform_asks(
    desk: Desk, saved: list[Saved], reason: str, by_hand: bool
) -> None:
    platform = Platform()
    await desk.run("x = 41\nopen('file', 'w').write('kept')")
    request = await asking(desk, reason, by_hand=by_hand)
    async with kept(desk, platform):
        platform.ask(request)
        await until(lambda: is_suspended(desk))
    assert saved == [await last_snapshot(desk)]
    assert platform.explained == {}
    assert text_of(await desk.run("x += 1; print(x, open('file').read())")) == "42 kept\n"
    kinds = [type(event.payload) for event in await desk.history.events(desk.session_id)]
    assert (kinds.count(SessionSuspended), kinds.count(SessionResumed)) == (1, 1)


async def test_what_was_asked_before_the_gateway_started_or_while_it_was_blind_is_seen(desk: Desk) -> None:
    platform = Platform()
    await desk.run("x = 1")
    platform.ask(await asking(desk))
    async with kept(desk, platform):
        await until(lambda: is_suspended(desk))
        platform.withdraw("it")
        await desk.run("x += 1")
        platform.requests["it"] = await asking(desk)  # nobody is told
        platform.cut()
        await until(lambda: is_suspended(desk))
    assert text_of(await desk.run("print(x)")) == "2\n"


async def explained(platform: Platform, words: str) -> bool:
    return any(words in text for text in platform.explained.values())


async def test_a_running_cell_is_not_touched_and_the_session_saved_after_it(desk: Desk) -> None:
    platform = Platform()
    await desk.run("import os, time")
    running = asyncio.create_task(
        desk.run("print('on', flush=True)\nwhile not os.path.exists('go'): time.sleep(0.02)\nx = 7")
    )

    async def busy() -> bool:
        return (await desk.executions.state(desk.session_id)).busy

    await until(busy)
    async with kept(desk, platform):
        platform.ask(await asking(desk, "Suspending"))
        await until(lambda: explained(platform, "a cell is running"))
        assert "tried again" in platform.explained["it"]
        assert len(platform.said) == 1, "the same words are written once"
        (desk.workspace / "go").touch()
        await running
        await until(lambda: is_suspended(desk))
    assert text_of(await desk.run("print(x)")) == "7\n"


async def test_a_run_and_a_client_are_waited_for(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    platform, runs = Platform(), RunService(desk.context, PRINCIPAL)
    await desk.run("x = 1")
    first = [RunStarted(run_id=(run_id := new_id()), kind="chat")]
    run = await runs.start(desk.session_id, kind="chat", first=first, model="m", run_id=run_id)
    real = HostConnection.state

    async def watched(self: HostConnection) -> Any:
        state = await real(self)
        return type(state)(**{**{name: getattr(state, name) for name in state.__struct_fields__}, "connections": 1})

    async with kept(desk, platform):
        platform.ask(await asking(desk))
        await until(lambda: explained(platform, "a run is going on"))
        monkeypatch.setattr(HostConnection, "state", watched)
        end = RunFinished(run_id=run.id, status="succeeded")
        await runs.finish(desk.session_id, Fence(run.id, run.generation), end)
        await until(lambda: explained(platform, "a client is connected"))
        assert not await is_suspended(desk)
        monkeypatch.undo()
        await until(lambda: is_suspended(desk))


async def test_a_store_that_is_away_loses_nothing(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    platform = Platform()
    await desk.run("x = [1]")

    async def full(*_: Any, **__: Any) -> None:
        raise ObjectsAway("the object store does not answer")

    async with kept(desk, platform):
        with monkeypatch.context() as patch:
            patch.setattr(desk.context.objects, "put", full)
            platform.ask(await asking(desk, "Suspending"))
            await until(lambda: explained(platform, "the object store does not answer"))
            assert text_of(await desk.run("x.append(2); print(x)")) == "[1, 2]\n"
        await until(lambda: is_suspended(desk))
    assert text_of(await desk.run("print(x)")) == "[1, 2]\n"


async def test_a_request_that_is_withdrawn_is_dropped(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    platform = Platform()
    await desk.run("x = 1")
    real = HostConnection.snapshot

    async def snapshot(self: HostConnection, *, kernel: str = "main") -> Any:
        manifest = await real(self, kernel=kernel)
        platform.withdraw("it")
        await asyncio.sleep(0.1)  # for the news to come through
        return manifest

    async with kept(desk, platform):
        monkeypatch.setattr(HostConnection, "snapshot", snapshot)
        platform.explained["it"] = "from before"
        platform.ask(await asking(desk, "Suspending"))
        await until(lambda: explains_nothing(platform))
    monkeypatch.undo()
    session = await SessionService(desk.context, PRINCIPAL).get(desk.session_id)
    assert session.suspended_at is None
    assert await host_of(desk) is not None
    assert text_of(await desk.run("x += 1; print(x)")) == "2\n"


async def explains_nothing(platform: Platform) -> bool:
    return not platform.explained


async def test_an_idle_session_that_is_used_meanwhile_is_not_suspended(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    platform, taken = Platform(), 0
    await desk.run("x = 1")
    real = HostConnection.snapshot

    async def snapshot(self: HostConnection, *, kernel: str = "main") -> Any:
        nonlocal taken
        manifest = await real(self, kernel=kernel)
        taken += 1
        platform.requests.pop("it", None)  # as the operator does when it sees that something runs
        await desk.run("x += 1")
        platform.withdraw("it")
        return manifest

    async with kept(desk, platform):
        monkeypatch.setattr(HostConnection, "snapshot", snapshot)
        platform.ask(await asking(desk))

        async def dropped() -> bool:
            return taken == 1 and not platform.requests

        await until(dropped)
    monkeypatch.undo()
    assert not await is_suspended(desk)
    assert text_of(await desk.run("print(x)")) == "2\n"


# ---------------------------------------------------------------------- hosts without a state of their own


async def unused(desk: Desk) -> tuple[SuspensionRequest, SessionRef]:
    """A session that was made with kubectl: a host is there, and no gateway has heard of it."""
    ref = SessionRef(PRINCIPAL.tenant_id, uuid4(), PRINCIPAL.user_id)
    connection = await desk.context.kernels.connect(ref)
    request = SuspensionRequest("by-hand", ref.session_id, None, None, connection.endpoint.audience, "Idle")
    return request, ref


async def test_a_session_without_a_history_is_ended_with_nothing_saved(desk: Desk, saved: list[Saved]) -> None:
    platform = Platform()
    request, ref = await unused(desk)
    async with kept(desk, platform):
        platform.ask(request)

        async def ended() -> bool:
            return await desk.context.executor.find(ref) is None

        await until(ended)
    assert saved == [Saved()]
    assert await SessionService(desk.context, PRINCIPAL).recorded(ref.session_id) is None


async def test_a_kernel_in_which_something_ran_is_never_taken_for_unused(desk: Desk, saved: list[Saved]) -> None:
    """Another gateway takes the session up at the same moment, and its cell comes first."""
    platform = Platform()
    request, ref = await unused(desk)
    connection = desk.context.kernels.held(ref.session_id)
    assert connection
    [_ async for _ in connection.execute(new_id(), ExecuteRequest(code="x = 1", silent=True, store_history=False))]
    async with kept(desk, platform):
        platform.ask(request)
        await until(lambda: explained(platform, "being used just now"))
    assert saved == []
    await desk.context.kernels.release(ref)


async def test_a_sealed_host_of_an_unused_session_is_replaced_when_it_is_used(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gateway that ended it died before it could say so, and the request was withdrawn."""
    request, ref = await unused(desk)

    async def dead(*_: Any) -> None:
        raise Dead

    with monkeypatch.context() as patch:
        patch.setattr(desk.context.executor, "suspend", dead)
        with pytest.raises(Dead):
            await SuspensionService(desk.context, PRINCIPAL).end_unused(ref, Saved())
    await SessionService(desk.context, PRINCIPAL).create(title="taken up", session_id=ref.session_id)
    other = Desk(desk.context, ref.session_id)
    assert text_of(await other.run("print('runs')")) == "runs\n"
    assert (await host_of(other)) is not None
    assert (await host_of(other)).audience != request.pod_uid  # pyright: ignore[reportOptionalMemberAccess]


async def test_a_host_that_a_suspended_session_has_again_is_ended(desk: Desk, saved: list[Saved]) -> None:
    """Somebody set it to `Running` with kubectl: the platform made a host, and nobody has used it."""
    platform = Platform()
    await desk.run("x = 5")
    await SuspensionService(desk.context, PRINCIPAL).suspend(desk.session_id)
    await desk.context.kernels.connect(await desk.executions.ref(desk.session_id))
    async with kept(desk, platform):
        platform.ask(await asking(desk))
        await until(lambda: is_suspended(desk))
    assert saved == [await last_snapshot(desk)] * 2
    assert text_of(await desk.run("print(x)")) == "5\n"


async def test_a_session_that_is_deleted_or_archived_is_not_saved(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    platform, sessions = Platform(), SessionService(desk.context, PRINCIPAL)
    await desk.run("x = 1")
    request = await asking(desk)
    with monkeypatch.context() as patch:

        async def away(session: SessionRef) -> None:
            raise Unavailable("away")

        patch.setattr(desk.context.executor, "release", away)
        with pytest.raises(Unavailable):
            await sessions.archive(desk.session_id)
    async with kept(desk, platform):
        platform.ask(request)

        async def ended() -> bool:
            return await desk.context.executor.find(SessionRef(PRINCIPAL.tenant_id, desk.session_id, uuid4())) is None

        await until(ended)
    assert platform.said == []


# ---------------------------------------------------------------------- many gateways


class Dead(BaseException):
    """The gateway is gone: nothing after this runs in it."""


STEPS: dict[str, tuple[type, str]] = {
    "taken": (SnapshotService, "_store"),
    "stored": (SnapshotService, "_record"),
    "recorded": (SuspensionService, "_seal"),
    "sealed": (Waking, "say"),
    "said": (SuspensionService, "_give_up"),
}


async def test_a_gateway_that_dies_at_any_step_leaves_the_request_to_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data_dir = tmp_path / "data"
    async with opened(data_dir) as context:
        session_id = (await SessionService(context, PRINCIPAL).create(title="test")).id
        await Desk(context, session_id).run("x = 0")
    for count, step in enumerate(STEPS.values(), 1):
        platform = Platform()
        async with opened(data_dir) as context:
            desk = Desk(context, session_id)
            await desk.run("x += 1")
            request = await asking(desk)
            died = asyncio.Event()

            async def dead(*_: Any, died: asyncio.Event = died, **__: Any) -> None:
                died.set()
                await asyncio.Event().wait()  # nothing after this runs in it; its lease stays

            with monkeypatch.context() as patch:
                patch.setattr(*step, dead)
                async with kept(desk, platform):
                    platform.ask(request)
                    await died.wait()
        async with opened(data_dir) as context:
            desk = Desk(context, session_id)
            async with kept(desk, platform):
                await until(lambda desk=desk: is_suspended(desk))
            assert text_of(await desk.run("print(x)")) == f"{count}\n", step
    async with opened(data_dir, last=True) as context:
        assert text_of(await Desk(context, session_id).run("print(x)")) == f"{len(STEPS)}\n"


async def test_of_two_gateways_one_saves(desks: tuple[Desk, Desk], monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = desks
    platform, taken = Platform(), 0
    real = HostConnection.snapshot

    async def snapshot(self: HostConnection, *, kernel: str = "main") -> Any:
        nonlocal taken
        taken += 1
        await asyncio.sleep(0.3)  # the other one has looked by then
        return await real(self, kernel=kernel)

    await first.run("x = 1")
    monkeypatch.setattr(HostConnection, "snapshot", snapshot)
    async with kept(first, platform), kept(second, platform):
        platform.ask(await asking(first))
        await until(lambda: is_suspended(first))
        await until(lambda: settled(platform))
    assert taken == 1
    assert text_of(await second.run("print(x)")) == "1\n"


async def settled(platform: Platform) -> bool:
    platform.withdraw("it")
    return not platform.requests


async def test_a_lease_is_one_gateways_until_it_ends_or_its_holder_dies(desks: tuple[Desk, Desk]) -> None:
    def lease(desk: Desk) -> Any:
        return leased(desk.context, PRINCIPAL.tenant_id, desk.session_id)

    first, second = desks
    async with lease(first) as mine, lease(second) as theirs:
        assert (mine, theirs) == (True, False)
        await asyncio.sleep(2 * first.settings.run_lease_seconds)  # renewed meanwhile
        async with lease(second) as late:
            assert late is False
    async with lease(second) as theirs:
        assert theirs is True
    held = lease(first)
    assert await held.__aenter__()
    for task in asyncio.all_tasks():
        if task.get_name() == f"lease-{first.session_id}":
            task.cancel()  # as when its process is killed

    async def free() -> bool:
        async with lease(second) as theirs:
            return theirs

    await until(free)
    await held.__aexit__(None, None, None)


# ---------------------------------------------------------------------- health


async def test_health_says_when_requests_cannot_be_seen(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    platform = Platform()
    platform.away = True
    monkeypatch.setattr(keeping, "SILENCE_SECONDS", 0.0)
    monkeypatch.setattr(keeping, "_LONGEST_WATCH_PAUSE_SECONDS", 0.2)

    async def answers(keeper: SessionKeeper) -> bool:
        with suppress(Unavailable):
            await keeper.ping()
            return True
        return False

    def refuses(keeper: SessionKeeper) -> Callable[[], Any]:
        async def asked() -> bool:
            return not await answers(keeper)

        return asked

    async with kept(desk, platform) as keeper:
        with pytest.raises(Unavailable, match="cannot be seen"):
            await keeper.ping()
        platform.away = False
        await until(lambda: answers(keeper))
        platform.away = True
        platform.cut()
        await until(refuses(keeper))
        platform.away = False
        await until(lambda: answers(keeper))
