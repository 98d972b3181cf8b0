"""Sessions whose kernel host is lost, with real hosts that are killed.

Plan
- With a snapshot the variables come back as of then, and the log has one event that says what came back, as of when,
  and which cells are lost; files that the workspace still has stay, those that went with it come back.
- Found out before a cell runs, during one, and by two gateways at once; told once.
- Without a snapshot, after a reset, or with a snapshot that is damaged nothing comes back, and the log says so; after
  a restart files alone do. Files that people deleted stay deleted.
- A store that is away is no reason to go on without the state. A gateway that dies on the way leaves it to the next.
- A kernel that dies in a living host is no lost host.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from tests.support.desk import PRINCIPAL, Desk, lose_host, opened
from tests.support.local import end_of, text_of, until

from carrel_gateway.artifacts.service import ArtifactService
from carrel_gateway.errors import CarrelError
from carrel_gateway.execution.recovery import Recovery
from carrel_gateway.executors.local import LocalExecutor
from carrel_gateway.kernels.connection import HostConnection
from carrel_gateway.sessions.service import SessionService
from carrel_gateway.snapshots import repository
from carrel_gateway.snapshots.service import SnapshotService
from carrel_gateway.storage.ids import new_id
from carrel_gateway.storage.objects import ObjectsAway
from carrel_gateway.suspension.service import SuspensionService
from carrel_wire.log import KernelChanged, SessionRecovered, SessionResumed

pytestmark = pytest.mark.timeout(240)


async def snapshot_of(desk: Desk) -> UUID:
    """Have the session be suspended and come back: its last snapshot stays."""
    suspended = await SuspensionService(desk.context, PRINCIPAL).suspend(desk.session_id)
    await SuspensionService(desk.context, PRINCIPAL).resume(desk.session_id)
    return suspended.snapshot.id


async def changes(desk: Desk) -> list[Any]:
    kinds = (KernelChanged, SessionRecovered, SessionResumed)
    return [event.payload for event in await desk.history.events(desk.session_id) if isinstance(event.payload, kinds)]


async def recovered(desk: Desk) -> SessionRecovered:
    """Return the last change, which must be the one recovery, with nothing else told since the session came back."""
    found = await changes(desk)
    (resumed,) = [place for place, item in enumerate(found) if isinstance(item, SessionResumed)]
    (told,) = found[resumed + 1 :]
    assert isinstance(told, SessionRecovered)
    return told


@pytest.mark.parametrize("workspace", [False, True], ids=["the workspace stays", "the pod is gone"])
async def test_the_state_of_the_last_snapshot_comes_back(desk: Desk, workspace: bool) -> None:
    await desk.run("import numpy as np\nx = np.arange(100_000)\ny = (n for n in 'ab')")
    await desk.run("open('old.txt', 'w').write('old')\nopen('both.txt', 'w').write('old')")
    snapshot_id = await snapshot_of(desk)
    lost = [new_id(), new_id()]
    await desk.run("x = 'newer'\nopen('both.txt', 'w').write('new')", execution_id=lost[0], durable=True)
    await desk.run("z = 1\nopen('new.txt', 'w').write('new')", execution_id=lost[1], durable=True)
    await lose_host(desk, workspace=workspace)
    printed = text_of(
        await desk.run(
            "import os; print(x.sum(), 'z' in dir(), {n: open(n).read() for n in sorted(os.listdir()) if '.t' in n})"
        )
    )
    files = "{'both.txt': 'old', 'old.txt': 'old'}"
    if not workspace:
        files = "{'both.txt': 'new', 'new.txt': 'new', 'old.txt': 'old'}"
    assert printed == f"4999950000 False {files}\n"
    told = await recovered(desk)
    assert told.snapshot_id == snapshot_id
    assert (told.lost_cells, told.lost_cells_count) == (lost, 2)
    assert [item.name for item in told.not_restored] == ["y"]
    assert (told.variables, told.files) == (2, 2 if workspace else 1)
    snapshot = await SnapshotService(desk.context, PRINCIPAL).latest(desk.session_id)
    assert snapshot
    assert (told.as_of, told.as_of_seq) == (snapshot.created_at, snapshot.seq)
    assert (await desk.executions.state(desk.session_id)).kernel.incarnation == told.incarnation  # pyright: ignore[reportOptionalMemberAccess]
    # Lost again: from the same snapshot, with all that ran since.
    await lose_host(desk, workspace=workspace)
    assert text_of(await desk.run("print(x.sum())")) == "4999950000\n"
    again = (await changes(desk))[-1]
    assert isinstance(again, SessionRecovered)
    assert (again.as_of_seq, again.lost_cells_count) == (told.as_of_seq, 3)


async def test_a_loss_during_a_cell_is_told_once(desk: Desk) -> None:
    await desk.run("x = 1")
    await snapshot_of(desk)
    running = asyncio.create_task(desk.run("import time\nx = 2\nprint('on', flush=True)\ntime.sleep(60)"))

    async def busy() -> bool:
        return (await desk.executions.state(desk.session_id)).busy

    await until(busy)
    await lose_host(desk)
    end = end_of(await running)
    assert (end.status, end.lost_state) == ("kernel_died", True)
    assert text_of(await desk.run("print(x)")) == "1\n"
    assert (await recovered(desk)).lost_cells == [], "the cell's own end says what became of it"


async def test_without_a_snapshot_the_loss_is_told(desk: Desk) -> None:
    await desk.run("x = 1")
    await lose_host(desk)
    assert text_of(await desk.run("print('x' in dir())")) == "False\n"
    assert [(item.reason, item.lost_state) for item in await changes(desk)] == [
        ("started", False),
        ("host_lost", True),
    ]


async def test_a_reset_brings_nothing_back(desk: Desk) -> None:
    await desk.run("x = 1\nopen('file', 'w').write('old')")
    await snapshot_of(desk)
    await desk.executions.reset(desk.session_id)
    assert await SnapshotService(desk.context, PRINCIPAL).latest(desk.session_id) is None
    assert await SnapshotService(desk.context, PRINCIPAL).sweep() > 0, "its contents are removed"
    await desk.run("y = 1")
    await lose_host(desk)
    assert text_of(await desk.run("import os; print('x' in dir(), os.path.exists('file'))")) == "False False\n"
    assert [item.reason for item in (await changes(desk))[2:]] == ["reset", "started", "host_lost"]


async def test_after_a_restart_only_files_come_back(desk: Desk) -> None:
    await desk.run("x = 1\nopen('file', 'w').write('old')")
    await snapshot_of(desk)
    await desk.executions.restart(desk.session_id)
    await desk.run("y = 2")
    await lose_host(desk, workspace=True)
    assert text_of(await desk.run("print('x' in dir(), 'y' in dir(), open('file').read())")) == "False False old\n"
    told = (await changes(desk))[-1]
    assert isinstance(told, SessionRecovered)
    assert (told.variables, told.files, told.lost_cells_count) == (0, 1, 1)
    assert "restarted after the snapshot" in (told.message or "")


async def test_uploads_that_people_deleted_or_brought_since(desk: Desk) -> None:
    artifacts = ArtifactService(desk.context, PRINCIPAL)

    async def upload(name: str, data: bytes) -> None:
        async def chunks() -> AsyncIterator[bytes]:
            yield data

        stored = await artifacts.store(desk.session_id, name=name, category="data", content_type=None, chunks=chunks())
        await desk.executions.place_file(desk.session_id, stored)

    for name in ("kept.csv", "deleted.csv"):
        await upload(name, b"old")
    await desk.run("x = 1")
    await snapshot_of(desk)
    await artifacts.delete(desk.session_id, "deleted.csv", "data")
    await upload("brought.csv", b"new")
    await lose_host(desk, workspace=True)
    printed = text_of(
        await desk.run("import os\nfor n in sorted(os.listdir('data')): print(n, open(f'data/{n}').read())")
    )
    assert printed.splitlines() == ["brought.csv new", "kept.csv old"]


async def test_a_snapshot_that_is_damaged_is_told_and_the_session_goes_on(desk: Desk) -> None:
    await desk.run("x = list(range(1000))")
    await snapshot_of(desk)
    for path in (desk.settings.data_dir / "objects").rglob("*"):
        if path.is_file():
            path.unlink()
    async with desk.context.database.transaction(PRINCIPAL.tenant_id) as tx:
        await repository.retire(tx, list(await repository.ready_blobs(tx, desk.session_id)))
    await lose_host(desk)
    assert text_of(await desk.run("print('x' in dir())")) == "False\n"
    told = (await changes(desk))[-1]
    assert (told.reason, told.lost_state) == ("host_lost", True)
    assert "could not be brought back: a content of the snapshot is gone" in told.message
    before = len(await changes(desk))
    assert text_of(await desk.run("print(1)")) == "1\n"
    assert len(await changes(desk)) == before


async def test_a_store_that_is_away_is_waited_for(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    await desk.run("x = 5")
    await snapshot_of(desk)

    async def away(*_: Any, **__: Any) -> Any:
        raise ObjectsAway("away")

    await lose_host(desk)
    await desk.context.kernels.forget(desk.session_id)
    with monkeypatch.context() as patch:
        patch.setattr(desk.context.objects, "get", away)
        with pytest.raises(CarrelError) as caught:
            await desk.executions.awake(desk.session_id)
        assert caught.value.code == "object_store_away"
    assert text_of(await desk.run("print(x)")) == "5\n"
    await recovered(desk)


async def test_a_kernel_that_dies_in_a_living_host_is_told_as_that(desk: Desk) -> None:
    await desk.run("x = 1")
    await snapshot_of(desk)
    pid = int(text_of(await desk.run("import os; print(os.getpid())")))
    os.kill(pid, signal.SIGKILL)

    async def replaced() -> bool:
        with suppress(CarrelError):
            kernel = (await desk.executions.state(desk.session_id)).kernel
            return bool(kernel and kernel.pid != pid)
        return False

    await until(replaced)
    assert text_of(await desk.run("print('x' in dir())")) == "False\n"
    told = (await changes(desk))[-1]
    assert (told.reason, told.lost_state) == ("died", True)
    count = len(await changes(desk))
    assert end_of(await desk.run("import os; os.kill(os.getpid(), 9)")).status == "kernel_died"
    assert text_of(await desk.run("print('x' in dir())")) == "False\n"
    assert [item.reason for item in (await changes(desk))[count:]] == ["died"], "once"


# ---------------------------------------------------------------------- many gateways


class Dead(BaseException):
    """The gateway is gone: nothing after this runs in it."""


@pytest.mark.parametrize(
    "step",
    [(SnapshotService, "restore"), (HostConnection, "restore"), (Recovery, "_go_on"), (Recovery, "_say")],
    ids=["host found", "contents brought", "restored", "to be told"],
)
async def test_a_gateway_that_dies_on_the_way_leaves_it_to_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: tuple[type, str]
) -> None:
    async def dead(*_: Any, **__: Any) -> None:
        raise Dead

    async with opened(tmp_path / "data") as context:
        desk = Desk(context, (await SessionService(context, PRINCIPAL).create(title="test")).id)
        await desk.run("x = 7\nopen('file', 'w').write('old')")
        await snapshot_of(desk)
        await desk.run("x = 8")
        await lose_host(desk, workspace=True)
        await desk.context.kernels.forget(desk.session_id)
        with monkeypatch.context() as patch:
            patch.setattr(*step, dead)
            with pytest.raises(Dead):
                await desk.executions.awake(desk.session_id)
    async with opened(tmp_path / "data", last=True) as context:
        desk = Desk(context, desk.session_id)
        assert text_of(await desk.run("print(x, open('file').read())")) == "7 old\n"
        assert (await recovered(desk)).lost_cells_count == 1


async def test_two_gateways_find_the_new_host_and_tell_it_once(desks: tuple[Desk, Desk]) -> None:
    first, second = desks
    for desk in desks:
        assert isinstance(desk.context.executor, LocalExecutor)
    second.context.executor._locks.close()  # type: ignore[attr-defined]
    second.context.executor._locks = first.context.executor._locks  # type: ignore[attr-defined]  one API server between them
    await first.run("x = [0]")
    await snapshot_of(first)
    await second.run("x.append('lost')")
    executor = first.context.executor
    assert isinstance(executor, LocalExecutor)
    await lose_host(first)
    await asyncio.gather(first.run("x.append(1)"), second.run("x.append(2)"))
    assert sorted(eval(text_of(await second.run("print(x)")))) == [0, 1, 2]
    assert (await recovered(first)).lost_cells_count == 1
