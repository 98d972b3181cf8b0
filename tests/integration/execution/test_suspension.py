"""Sessions that are suspended, resumed and forked, with real hosts.

Plan
- Suspended: the host is gone and the state is kept; resumed by name or by running code: variables and files are as
  they were, what could not be saved is named in the answer and in the log; nothing is stored twice.
- Refused with a reason: a running cell, a run, no kernel, archived; again is no error; cells that come while a snapshot
  is taken are never lost.
- A gateway that dies at any step of either loses nothing: the next one finds the state, once; what it sealed is said to
  be suspended by whoever comes next, without a host being made for it.
- A failed snapshot or restore leaves the session as it was; files that people delete meanwhile stay deleted.
- Forked: history, files and state go separate ways; from a running and from a suspended session; by its owner alone.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from tests.support.desk import PRINCIPAL, Desk, opened
from tests.support.local import end_of, text_of

from carrel_gateway.artifacts.service import ArtifactService
from carrel_gateway.context import Principal
from carrel_gateway.errors import CarrelError, Conflict, KernelLost, PermissionDenied, SessionBusy
from carrel_gateway.execution.startup import recover_left_behind
from carrel_gateway.execution.waking import Waking
from carrel_gateway.executors.base import HostEndpoint, SessionRef
from carrel_gateway.history.service import HistoryService
from carrel_gateway.kernels.connection import HostConnection
from carrel_gateway.runs.service import RunService
from carrel_gateway.sessions.service import SessionService
from carrel_gateway.snapshots.service import SnapshotService
from carrel_gateway.storage.ids import new_id
from carrel_gateway.storage.objects import ObjectsAway
from carrel_gateway.suspension.service import SuspensionService
from carrel_wire.events import Stdout
from carrel_wire.host import ExecuteRequest
from carrel_wire.log import (
    AssistantMessage,
    CellFinished,
    KernelChanged,
    RunStarted,
    SessionForked,
    SessionResumed,
    SessionSuspended,
    UserMessage,
)

STATE = """
import os, random
import numpy as np, pandas as pd
values = np.arange(100_000)
frame = pd.DataFrame({"a": values, "b": "x"})
def total(): return int(frame.a.sum())
numbers = (n for n in range(3))
os.makedirs("out", exist_ok=True)
open("out/result.txt", "w").write("result")
open("marks.txt", "a").write("once\\n")
random.seed(7)
"""
LOOK = "print(total(), open('out/result.txt').read(), open('marks.txt').read().count('once'), os.getcwd() != '')"
SEEN = "4999950000 result 1 True\n"


def suspensions(desk: Desk) -> SuspensionService:
    return SuspensionService(desk.context, PRINCIPAL)


async def host_of(desk: Desk) -> object:
    return await desk.context.executor.find(await desk.executions.ref(desk.session_id))


async def log(desk: Desk, session_id: UUID | None = None) -> list[Any]:
    events = await HistoryService(desk.context, PRINCIPAL).events(session_id or desk.session_id)
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    return [event.payload for event in events]


async def objects(desk: Desk) -> list[str]:
    folder = desk.settings.data_dir / "objects"
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


async def test_a_session_is_suspended_and_comes_back(desk: Desk) -> None:
    await desk.run(STATE)
    before = len(await objects(desk))
    suspended = await suspensions(desk).suspend(desk.session_id)
    assert suspended.session.suspended_at is not None
    assert {"values", "frame", "total", "np"} <= set(suspended.snapshot.variables)
    assert suspended.snapshot.files == ["marks.txt", "out/result.txt"]
    assert [(item.name, item.reason) for item in suspended.snapshot.not_saved] == [
        ("numbers", "a generator cannot be saved")
    ]
    assert await host_of(desk) is None
    assert (await desk.executions.state(desk.session_id)).status == "suspended"
    assert (await desk.executions.variables(desk.session_id)).variables == []
    stored = len(await objects(desk))
    assert stored > before
    again = await suspensions(desk).suspend(desk.session_id)
    assert again.snapshot == suspended.snapshot
    resumed = await suspensions(desk).resume(desk.session_id)
    assert resumed.session.suspended_at is None
    assert [item.name for item in resumed.not_restored] == ["numbers"]
    assert text_of(await desk.run(LOOK)) == SEEN
    assert (await suspensions(desk).resume(desk.session_id)).variables == resumed.variables
    payloads = await log(desk)
    assert [type(payload) for payload in payloads if isinstance(payload, SessionSuspended | SessionResumed)] == [
        SessionSuspended,
        SessionResumed,
    ]
    assert sum(isinstance(payload, KernelChanged) for payload in payloads) == 1  # the first start
    # Only what changed is stored again, and what is not needed any more is removed.
    await suspensions(desk).suspend(desk.session_id)
    assert await SnapshotService(desk.context, PRINCIPAL).sweep() == 1  # the pickle: random numbers were drawn
    assert len(await objects(desk)) == stored
    assert text_of(await desk.run(LOOK)) == SEEN  # resumed by running code


async def test_what_cannot_be_suspended_says_why(desk: Desk) -> None:
    async def refusal(act: Any = None) -> tuple[type[CarrelError], str]:
        with pytest.raises(CarrelError) as caught:
            await (act or suspensions(desk).suspend)(desk.session_id)
        return type(caught.value), caught.value.code

    assert await refusal() == (Conflict, "no_kernel")
    assert await refusal(suspensions(desk).resume) == (Conflict, "not_suspended")
    await desk.run("x = 1")
    events = desk.executions.execute(desk.session_id, "import time\nprint('on', flush=True)\ntime.sleep(30)")
    async for event in events:
        if isinstance(event, Stdout):
            break
    assert await refusal() == (Conflict, "kernel_busy")
    assert await refusal(suspensions(desk).fork) == (Conflict, "kernel_busy")
    await desk.executions.interrupt(desk.session_id)
    await desk.context.kernels.in_flight.wait(desk.session_id, seconds=30)
    run_id = new_id()
    first = [RunStarted(run_id=run_id, kind="chat")]
    await RunService(desk.context, PRINCIPAL).start(desk.session_id, kind="chat", first=first, model="m", run_id=run_id)
    assert await refusal() == (SessionBusy, "busy")
    assert await refusal(suspensions(desk).fork) == (SessionBusy, "busy")
    await SessionService(desk.context, PRINCIPAL).archive(desk.session_id)
    for act in (suspensions(desk).suspend, suspensions(desk).resume, suspensions(desk).fork):
        assert await refusal(act) == (Conflict, "archived")


async def test_a_cell_that_comes_meanwhile_is_never_lost(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    await desk.run("x = 1")
    real = HostConnection.snapshot
    taken: list[int] = []

    async def snapshot(self: HostConnection, *, kernel: str = "main") -> Any:
        manifest = await real(self, kernel=kernel)
        if not taken:  # a cell of another gateway, that had its connection before
            assert end_of(await desk.run("x = 2")).status == "ok"
        taken.append(1)
        return manifest

    monkeypatch.setattr(HostConnection, "snapshot", snapshot)
    await suspensions(desk).suspend(desk.session_id)
    assert len(taken) == 2
    assert text_of(await desk.run("print(x)")) == "2\n"
    # With cells all the time it gives up, and the session goes on.
    always = iter(range(100))

    async def restless(self: HostConnection, *, kernel: str = "main") -> Any:
        manifest = await real(self, kernel=kernel)
        await desk.run(f"y = {next(always)}")
        return manifest

    monkeypatch.setattr(HostConnection, "snapshot", restless)
    with pytest.raises(SessionBusy):
        await suspensions(desk).suspend(desk.session_id)
    assert text_of(await desk.run("print(x, y)")) == "2 2\n"


async def test_a_cell_on_a_sealed_host_goes_on_elsewhere(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in another gateway, whose connection is as good as ever when the session is suspended."""
    await desk.run("x = 1")
    held = desk.context.kernels.held(desk.session_id)
    real = desk.context.kernels.forget

    async def forget(session_id: UUID) -> None:
        if desk.context.kernels.held(session_id) is not held:
            await real(session_id)

    async def keep(*_: Any) -> None:
        pass

    monkeypatch.setattr(desk.context.kernels, "forget", forget)
    monkeypatch.setattr(desk.context.executor, "suspend", keep)
    await suspensions(desk).suspend(desk.session_id)
    assert desk.context.kernels.held(desk.session_id) is held
    monkeypatch.undo()
    assert text_of(await desk.run("x += 1; print(x)")) == "2\n"
    assert desk.context.kernels.held(desk.session_id) is not held


# ---------------------------------------------------------------------- failures


async def test_a_failure_leaves_the_session_as_it_was(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    await desk.run(STATE)
    put = desk.context.objects.put

    async def full(key: str, *arguments: Any, **more: Any) -> None:
        raise ObjectsAway("full")

    monkeypatch.setattr(desk.context.objects, "put", full)
    for act in (suspensions(desk).suspend, suspensions(desk).fork):
        with pytest.raises(ObjectsAway):
            await act(desk.session_id)
    monkeypatch.setattr(desk.context.objects, "put", put)
    assert text_of(await desk.run(LOOK)) == SEEN
    assert [item.id for item in (await SessionService(desk.context, PRINCIPAL).list()).items] == [desk.session_id]
    await suspensions(desk).suspend(desk.session_id)
    get = desk.context.objects.get

    async def gone(key: str, **more: Any) -> Any:
        raise ObjectsAway("away")

    monkeypatch.setattr(desk.context.objects, "get", gone)
    with pytest.raises(ObjectsAway):
        await suspensions(desk).resume(desk.session_id)
    assert (await SessionService(desk.context, PRINCIPAL).get(desk.session_id)).suspended_at is not None
    monkeypatch.setattr(desk.context.objects, "get", get)
    assert text_of(await desk.run(LOOK)) == SEEN
    assert await SnapshotService(desk.context, PRINCIPAL).sweep() > 0  # what was half stored


async def test_files_that_people_delete_or_bring_meanwhile(desk: Desk) -> None:
    artifacts = ArtifactService(desk.context, PRINCIPAL)

    async def upload(name: str, data: bytes) -> None:
        async def chunks() -> AsyncIterator[bytes]:
            yield data

        stored = await artifacts.store(desk.session_id, name=name, category="data", content_type=None, chunks=chunks())
        await desk.executions.place_file(desk.session_id, stored)

    for name in ("kept.csv", "deleted.csv", "removed.csv"):
        await upload(name, b"old")
    await desk.run("import os\nos.remove('data/removed.csv')\nopen('data/own.csv', 'w').write('own')")
    await suspensions(desk).suspend(desk.session_id)
    await upload("kept.csv", b"new")
    await upload("brought.csv", b"brought")
    await artifacts.delete(desk.session_id, "deleted.csv", "data")
    printed = text_of(await desk.run("for n in sorted(os.listdir('data')): print(n, open(f'data/{n}').read())"))
    assert printed.splitlines() == ["brought.csv brought", "kept.csv new", "own.csv own"]


async def test_reset_forgets_the_state(desk: Desk) -> None:
    await desk.run("x = 1\nopen('file', 'w').close()")
    await suspensions(desk).suspend(desk.session_id)
    await desk.executions.reset(desk.session_id)
    assert text_of(await desk.run("import os; print('x' in globals(), os.path.exists('file'))")) == "False False\n"


# ---------------------------------------------------------------------- a gateway that dies


class Dead(BaseException):
    """The gateway is gone: nothing after this runs in it."""


SUSPENDING = {
    "taken": (SnapshotService, "_store"),
    "stored": (SnapshotService, "_record"),
    "recorded": (SuspensionService, "_seal"),
    "sealed": (Waking, "say"),
    "said": (SuspensionService, "_give_up"),
}
RESUMING = {
    "host found": (SnapshotService, "restore"),
    "contents brought": (HostConnection, "restore"),
    "restored": (Waking, "_note"),
}
"""The step, and what comes after it and is never begun."""


@asynccontextmanager
async def gateway(data_dir: Path, session_id: UUID | None = None, *, last: bool = False) -> AsyncIterator[Desk]:
    """Open a gateway, which leaves its hosts alive when it ends unless it is the last."""
    async with opened(data_dir, last=last) as context:
        if session_id is None:
            session_id = (await SessionService(context, PRINCIPAL).create(title="test")).id
        yield Desk(context, session_id)


async def die_at(monkeypatch: pytest.MonkeyPatch, step: tuple[type, str], act: Any) -> None:
    async def dead(*arguments: Any, **more: Any) -> None:
        raise Dead

    with monkeypatch.context() as patch:
        patch.setattr(*step, dead)
        with suppress(Dead):
            await act
            raise AssertionError("the step was not reached")


@pytest.mark.timeout(300)
async def test_a_gateway_that_dies_at_any_step_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data_dir = tmp_path / "data"
    async with gateway(data_dir) as desk:
        await desk.run("x = 0\nopen('marks.txt', 'w').close()")
        session_id = desk.session_id
    expected = 0
    for name, step in SUSPENDING.items():
        async with gateway(data_dir, session_id) as desk:
            await die_at(monkeypatch, step, suspensions(desk).suspend(session_id))
        async with gateway(data_dir, session_id) as desk:
            if name in ("recorded", "said"):  # suspended again without being used in between
                await suspensions(desk).suspend(session_id)
            expected += 1
            outcome = await desk.run("x += 1; print(x, file=open('marks.txt', 'a')); print(x)")
            assert text_of(outcome) == f"{expected}\n", name
    for name, step in RESUMING.items():
        async with gateway(data_dir, session_id) as desk:
            await suspensions(desk).suspend(session_id)
            await die_at(monkeypatch, step, suspensions(desk).resume(session_id))
        async with gateway(data_dir, session_id) as desk:
            expected += 1
            outcome = await desk.run("x += 1; print(x, file=open('marks.txt', 'a')); print(x)")
            assert text_of(outcome) == f"{expected}\n", name
    async with gateway(data_dir, session_id, last=True) as desk:
        marks = text_of(await desk.run("print(open('marks.txt').read().split())"))
        assert marks == f"{[str(n) for n in range(1, expected + 1)]}\n"
        payloads = await log(desk)
        cells = [payload for payload in payloads if isinstance(payload, CellFinished)]
        assert [cell.status for cell in cells] == ["ok"] * (expected + 2)
        assert not any(isinstance(payload, KernelChanged) and payload.lost_state for payload in payloads)
        resumed = [payload for payload in payloads if isinstance(payload, SessionResumed)]
        assert len(resumed) == len({payload.incarnation for payload in resumed})
        told = [type(payload) for payload in payloads if isinstance(payload, SessionSuspended | SessionResumed)]
        assert told == [SessionSuspended, SessionResumed] * len(resumed)
        assert (await desk.executions.state(session_id)).unacknowledged == 0


@pytest.mark.parametrize("by", ["suspend", "fork", "recover"])
async def test_a_suspension_that_was_begun_is_finished_without_a_new_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    data_dir = tmp_path / "data"
    async with gateway(data_dir) as desk:
        session_id = desk.session_id
        await desk.run("x = 6")
        await die_at(monkeypatch, SUSPENDING["sealed"], suspensions(desk).suspend(session_id))
    async with gateway(data_dir, session_id, last=True) as desk:
        with monkeypatch.context() as patch:

            async def none(session: SessionRef) -> HostEndpoint:
                raise AssertionError("a host was asked for")

            patch.setattr(desk.context.executor, "acquire", none)
            if by == "recover":
                await recover_left_behind(desk.context)
            elif by == "suspend":
                await suspensions(desk).suspend(session_id)
                assert await host_of(desk) is None
            else:
                forked = await suspensions(desk).fork(session_id)
                assert forked.snapshot
        assert text_of(await desk.run("print(x * 7)")) == "42\n"
        told = [type(it) for it in await log(desk) if isinstance(it, SessionSuspended | SessionResumed)]
        assert told == [SessionSuspended, SessionResumed]


async def test_a_restore_that_was_broken_off_is_begun_again(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    await desk.run("x = [1]")
    await suspensions(desk).suspend(desk.session_id)
    real = HostConnection.restore

    async def broken(self: HostConnection, manifest: Any, **more: Any) -> Any:
        await real(self, manifest, **more)
        connection = desk.context.kernels.held(desk.session_id)
        assert connection
        [_ async for _ in connection.execute(new_id(), ExecuteRequest(code="x.append(2)"))]
        monkeypatch.setattr(HostConnection, "restore", real)
        raise KernelLost("broken off")

    monkeypatch.setattr(HostConnection, "restore", broken)
    await suspensions(desk).resume(desk.session_id)
    assert HostConnection.restore is real  # it was broken off once
    assert text_of(await desk.run("print(x)")) == "[1]\n"


# ---------------------------------------------------------------------- forks


@pytest.mark.parametrize("suspended", [False, True])
async def test_a_fork_goes_its_own_way(desk: Desk, suspended: bool) -> None:
    question, answer = new_id(), new_id()
    artifacts = ArtifactService(desk.context, PRINCIPAL)
    await desk.run(STATE)
    await desk.context.kernels.in_flight.wait(desk.session_id, seconds=30)
    [file] = [item for item in await artifacts.list(desk.session_id) if item.name == "out/result.txt"]
    messages = [
        UserMessage(message_id=question, content="why?"),
        AssistantMessage(message_id=answer, content="because", artifact_ids=[file.id]),
    ]
    await desk.history.append(desk.session_id, messages, actor="user")
    if suspended:
        await suspensions(desk).suspend(desk.session_id)
    forked = await suspensions(desk).fork(desk.session_id, title="Another way")
    fork = Desk(desk.context, forked.session.id)
    assert (forked.session.title, forked.session.forked_from) == ("Another way", desk.session_id)
    assert forked.session.suspended_at is not None
    assert forked.snapshot
    # The history is the same up to there, under ids of its own.
    theirs, ours = await log(desk), await log(fork)
    assert isinstance(ours[-1], SessionForked)
    assert ours[-1].session_id == desk.session_id
    assert [type(payload) for payload in ours[:-1]] == [type(payload) for payload in theirs[: len(ours) - 1]]
    told = await fork.history.messages(fork.session_id)
    assert [(item.role, item.content) for item in told] == [("user", "why?"), ("assistant", "because")]
    assert {item.id for item in told}.isdisjoint({question, answer})
    [copy] = [item for item in await artifacts.list(fork.session_id) if item.name == "out/result.txt"]
    assert told[1].artifact_ids == [copy.id] != [file.id]
    assert b"".join([chunk async for chunk in await artifacts.read(copy)]) == b"result"
    assert len(await fork.history.cells(fork.session_id)) == len(await desk.history.cells(desk.session_id))
    # State and files are the same, and change for each alone.
    assert text_of(await fork.run(LOOK)) == SEEN
    await fork.run("frame['a'] = 0\nopen('out/result.txt', 'w').write('other')")
    assert text_of(await desk.run(LOOK)) == SEEN
    assert text_of(await fork.run(LOOK)) == "0 other 1 True\n"
    await SessionService(desk.context, PRINCIPAL).delete(desk.session_id)
    await suspensions(fork).suspend(fork.session_id)
    assert text_of(await fork.run(LOOK)) == "0 other 1 True\n"


async def test_only_the_owner_forks(desk: Desk) -> None:
    await desk.run("x = 1")
    other = SuspensionService(desk.context, Principal(PRINCIPAL.tenant_id, new_id()))
    with pytest.raises(PermissionDenied) as caught:
        await other.fork(desk.session_id)
    assert caught.value.code == "not_owner"
    assert [item.id for item in (await SessionService(desk.context, PRINCIPAL).list()).items] == [desk.session_id]


async def test_a_fork_of_a_session_without_a_kernel_has_its_history(desk: Desk) -> None:
    await desk.history.append(desk.session_id, [UserMessage(message_id=new_id(), content="hello")], actor="user")
    forked = await suspensions(desk).fork(desk.session_id)
    assert forked.snapshot is None
    assert (forked.session.title, forked.session.suspended_at) == ("test (fork)", None)
    assert [item.content for item in await desk.history.messages(forked.session.id)] == ["hello"]


async def test_a_fork_that_is_not_finished_is_never_seen(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    sessions = SessionService(desk.context, PRINCIPAL)
    before = await objects(desk)
    await desk.run("x = 1")

    async def dead(*_: Any, **__: Any) -> None:
        raise Dead

    monkeypatch.setattr(HistoryService, "adopt", dead)
    with pytest.raises(Dead):
        await suspensions(desk).fork(desk.session_id)
    monkeypatch.undo()
    assert [item.id for item in (await sessions.list()).items] == [desk.session_id]
    assert len(await objects(desk)) > len(before)
    assert await sessions.sweep() == 0  # it may still be at it
    monkeypatch.setattr("carrel_gateway.sessions.service.FORK_AGE", timedelta())
    assert await sessions.sweep() == 1
    assert text_of(await desk.run("print(x)")) == "1\n"
