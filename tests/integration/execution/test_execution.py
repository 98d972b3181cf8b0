"""Executions through the service: a real kernel host, SQLite and the object store on disk.

Plan: what a caller sees and what the history holds are the same; errors, rich output and clears arrive; files that a
cell makes are artifacts, uploads are in the workspace; the same id never runs twice, also from two callers at once; a
caller who goes away changes nothing; interrupt, timeout, restart, reset; a dead host is replaced between cells; large
output is whole; a reader that does not read is cut off and nothing is lost; memory is bounded; the pace of `1+1`.
"""

from __future__ import annotations

import asyncio
import gc
import hashlib
import os
import resource
import statistics
import sys
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any

import msgspec
import pytest
from tests.support.desk import Desk, lose_host
from tests.support.local import end_of, text_of, until

from carrel_gateway.artifacts.service import ArtifactService
from carrel_gateway.errors import CarrelError, Conflict, NotFound
from carrel_gateway.execution.ledger import Ledger
from carrel_gateway.execution.routes import _collect
from carrel_gateway.executors.local import HostRecord
from carrel_gateway.history.service import StoredEvent
from carrel_gateway.kernels.outputs import fold
from carrel_gateway.storage.database import DatabaseAway
from carrel_gateway.storage.ids import new_id
from carrel_wire.events import Artifact, Display, Error, Result, Started, Stdout
from carrel_wire.log import ArtifactStored, CellFinished, CellIntended, CellOutputs, KernelChanged


async def logged(desk: Desk) -> list[StoredEvent]:
    events: list[StoredEvent] = []
    while page := await desk.history.events(desk.session_id, after=events[-1].seq if events else 0, limit=500):
        events.extend(page)
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    return events


async def of_type(desk: Desk, kind: type) -> list:
    return [event.payload for event in await logged(desk) if isinstance(event.payload, kind)]


async def text_in_history(desk: Desk) -> str:
    parts = [output for part in await of_type(desk, CellOutputs) for output in part.outputs]
    return "".join(output["text"] for output in fold(parts) if output.get("name") == "stdout")


async def chunks(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


# ---------------------------------------------------------------------- what is seen and what is kept


async def test_what_the_caller_sees_is_in_the_history(desk: Desk):
    events = await desk.run("print('hello')\n1 + 1")
    assert isinstance(events[0], Started)
    assert text_of(events) == "hello\n"
    assert [event.data["text/plain"] for event in events if isinstance(event, Result)] == ["2"]
    assert end_of(events).status == "ok"
    (finished,) = await of_type(desk, CellFinished)
    assert (finished.status, finished.code, finished.execution_count) == ("ok", "print('hello')\n1 + 1", 1)
    (cell,) = await desk.history.cells(desk.session_id)
    assert [output["output_type"] for output in fold(cell.outputs)] == ["stream", "execute_result"]


@pytest.mark.parametrize(
    ("seconds", "code", "shown"),
    [
        # Longer than the slowest machine takes to end a cell, and shorter than outputs wait for their commit.
        (60.0, "print('a')", 0),
        (0.02, "import time\nfor word in 'ab':\n    print(word, flush=True)\n    time.sleep(0.3)", 2),
    ],
    ids=["short", "long"],
)
async def test_followers_see_what_comes_before_it_is_committed(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, seconds: float, code: str, shown: int
):
    await desk.run("None")
    monkeypatch.setattr("carrel_gateway.execution.recording.SHOW_SECONDS", seconds)
    monkeypatch.setattr("carrel_gateway.execution.recording.COMMIT_SECONDS", 120.0)
    seen: list[str] = []
    after = (await logged(desk))[-1].seq
    async with asyncio.timeout(60), aclosing(desk.history.follow(desk.session_id, after=after)) as followed:
        running = asyncio.create_task(desk.run(code))
        async for event in followed:
            seen.append(event.type)
            if event.type == "cell.finished":
                break
    assert seen == ["output"] * shown + ["cell.outputs", "cell.finished"]
    assert end_of(await running).status == "ok"


async def test_nothing_of_an_execution_is_left_for_the_garbage_collector(desk: Desk):
    left: list[str] = []
    hooks = sys.get_asyncgen_hooks()

    def finalize(generator: AsyncGenerator[Any, Any]) -> None:
        left.append(generator.__qualname__)
        assert hooks.finalizer
        hooks.finalizer(generator)

    sys.set_asyncgen_hooks(finalizer=finalize)
    try:
        for durable in (False, True):
            execution_id = new_id()
            events = desk.executions.execute(desk.session_id, "1 + 1", execution_id=execution_id, durable=durable)
            assert (await _collect(events, execution_id)).status == "ok"
        await asyncio.sleep(0.1)
        gc.collect()
    finally:
        sys.set_asyncgen_hooks(*hooks)
    assert left == [], "each of them costs a task, and lives on until it is found"


async def test_an_exception_is_an_outcome(desk: Desk):
    events = await desk.run("1 / 0")
    assert end_of(events).status == "error"
    assert [event.name for event in events if isinstance(event, Error)] == ["ZeroDivisionError"]
    (cell,) = await desk.history.cells(desk.session_id)
    assert cell.status == "error"


async def test_displays_are_updated_and_cleared(desk: Desk):
    await desk.run(
        "from IPython.display import clear_output, display\n"
        "print('gone'); clear_output()\n"
        "handle = display('0 %', display_id=True); handle.update('100 %')"
    )
    (cell,) = await desk.history.cells(desk.session_id)
    (output,) = fold(cell.outputs)
    assert output["data"]["text/plain"] == "'100 %'"


async def test_a_silent_execution_leaves_no_trace(desk: Desk):
    before = len(await logged(desk))
    assert end_of(await desk.run("x = 41", silent=True)).status == "ok"
    assert text_of(await desk.run("print(x + 1)")) == "42\n"
    assert len(await of_type(desk, CellFinished)) == 1
    assert len(await logged(desk)) > before
    assert (await desk.executions.state(desk.session_id)).unacknowledged == 0


async def test_output_is_committed_while_the_cell_runs(desk: Desk):
    execution = new_id()
    running = asyncio.create_task(
        desk.run(
            "import time, os\nprint('early', flush=True)\n"
            "while not os.path.exists('go'): time.sleep(0.01)\nprint('late')",
            execution_id=execution,
            durable=True,
        )
    )
    await until(lambda: of_type(desk, CellOutputs))
    assert await text_in_history(desk) == "early\n"
    assert not await of_type(desk, CellFinished)
    (desk.workspace / "go").touch()
    assert end_of(await running).status == "ok"
    assert await text_in_history(desk) == "early\nlate\n"


# ---------------------------------------------------------------------- at most once


async def test_the_same_id_never_runs_twice(desk: Desk):
    execution = new_id()
    code = "open('count', 'a').write('x'); print('ran')"
    first = await desk.run(code, execution_id=execution, durable=True)
    second = await desk.run(code, execution_id=execution, durable=True)
    assert (desk.workspace / "count").read_text() == "x"
    assert text_of(first) == text_of(second) == "ran\n"
    assert end_of(second).status == "ok"
    assert len(await of_type(desk, CellIntended)) == len(await of_type(desk, CellFinished)) == 1
    with pytest.raises(Conflict, match="taken"):
        await desk.run("print('other code')", execution_id=execution, durable=True)


async def test_two_callers_with_one_id_share_the_execution(desk: Desk):
    execution = new_id()
    code = "import time\nprint('a', flush=True); time.sleep(0.3); open('count', 'a').write('x'); print('b')"
    both = await asyncio.gather(
        *(desk.run(code, execution_id=execution, durable=True) for _ in range(4)), return_exceptions=False
    )
    assert {text_of(events) for events in both} == {"a\nb\n"}
    assert (desk.workspace / "count").read_text() == "x"
    assert len(await of_type(desk, CellFinished)) == 1


async def test_a_session_s_own_id_is_an_id_like_any_other(desk: Desk):
    async with asyncio.timeout(60):
        assert text_of(await desk.run("print(1)", execution_id=desk.session_id, durable=True)) == "1\n"
        assert text_of(await desk.run("print(2)")) == "2\n"


async def test_a_commit_whose_reply_is_lost_gives_the_output_once(desk: Desk, monkeypatch: pytest.MonkeyPatch):
    commit, lost = Ledger._commit, []

    async def unheard(self: Ledger, *arguments: Any) -> None:
        await commit(self, *arguments)
        if not lost:
            lost.append(arguments)
            raise DatabaseAway("the commit was applied, and its reply was lost")

    monkeypatch.setattr(Ledger, "_commit", unheard)
    events = await desk.run("print('hello')")
    assert lost
    assert text_of(events) == "hello\n"
    assert end_of(events).execution_count == 1


async def test_an_id_of_another_session_is_refused(desk: Desk):
    from carrel_gateway.sessions.service import SessionService

    other = await SessionService(desk.context, desk.principal).create(title="other", model=None, config=None)
    execution = new_id()
    await desk.run("1", execution_id=execution, durable=True)
    with pytest.raises(Conflict, match="taken"):
        [_ async for _ in desk.executions.execute(other.id, "1", execution_id=execution, durable=True)]


async def test_a_caller_who_goes_away_changes_nothing(desk: Desk):
    stream = desk.executions.execute(
        desk.session_id, "import time\nprint('a', flush=True); time.sleep(0.2); print('b')"
    )
    async for event in stream:
        if isinstance(event, Stdout):
            break
    await stream.aclose()
    await desk.context.kernels.in_flight.wait(desk.session_id, seconds=60)
    assert await text_in_history(desk) == "a\nb\n"
    assert [end.status for end in await of_type(desk, CellFinished)] == ["ok"]


async def test_cells_of_many_callers_run_one_after_the_other(desk: Desk):
    results = await asyncio.gather(*(desk.run(f"print({n})") for n in range(10)))
    assert sorted(int(text_of(events)) for events in results) == list(range(10))
    assert len(await of_type(desk, CellFinished)) == 10


async def test_another_tenants_session_is_not_there(desk: Desk):
    from carrel_gateway.context import Principal
    from carrel_gateway.execution.service import ExecutionService

    await desk.run("secret = 1")
    stranger = ExecutionService(desk.context, Principal(new_id(), new_id()))
    with pytest.raises(NotFound):
        [_ async for _ in stranger.execute(desk.session_id, "print(secret)")]
    with pytest.raises(NotFound):
        await stranger.variables(desk.session_id)


# ---------------------------------------------------------------------- files


async def test_files_that_a_cell_makes_are_artifacts(desk: Desk):
    events = await desk.run(
        "import os\nos.makedirs('plots')\nopen('plots/a.bin', 'wb').write(bytes(range(256)) * 4096)"
    )
    (reported,) = [event for event in events if isinstance(event, Artifact)]
    assert reported.path == "plots/a.bin"
    (stored,) = await of_type(desk, ArtifactStored)
    assert (stored.name, stored.size, stored.sha256) == ("plots/a.bin", 1048576, reported.sha256)
    artifact, data = await ArtifactService(desk.context, desk.principal).open(
        desk.session_id, "plots/a.bin", "artifacts"
    )
    content = b"".join([chunk async for chunk in data])
    assert hashlib.sha256(content).hexdigest() == artifact.sha256
    log = [type(event.payload) for event in await logged(desk)]
    assert log.index(ArtifactStored) < log.index(CellFinished)


async def test_uploads_are_in_the_workspace(desk: Desk):
    artifacts = ArtifactService(desk.context, desk.principal)
    early = await artifacts.store(
        desk.session_id, name="early.csv", category="data", content_type=None, chunks=chunks(b"a\n", b"1\n")
    )
    await desk.executions.place_file(desk.session_id, early)
    assert text_of(await desk.run("print(open('data/early.csv').read(), end='')")) == "a\n1\n"
    late = await artifacts.store(
        desk.session_id, name="late.csv", category="data", content_type=None, chunks=chunks(b"late")
    )
    await desk.executions.place_file(desk.session_id, late)
    assert text_of(await desk.run("print(open('data/late.csv').read())")) == "late\n"
    await desk.executions.remove_file(desk.session_id, late)
    assert text_of(await desk.run("import os; print(os.listdir('data'))")) == "['early.csv']\n"


# ---------------------------------------------------------------------- the kernel's life


async def test_no_kernel_is_started_by_looking(desk: Desk):
    assert (await desk.executions.state(desk.session_id)).status == "none"
    assert (await desk.executions.variables(desk.session_id)).variables == []
    assert (await desk.executions.interrupt(desk.session_id)).was_busy is False
    assert not desk.workspace.exists()


async def test_interrupt_ends_the_cell_and_keeps_the_variables(desk: Desk):
    await desk.run("kept = 7")
    running = asyncio.create_task(desk.run("print('in', flush=True)\nwhile True: pass"))

    async def busy() -> bool:
        return (await desk.executions.state(desk.session_id)).status == "busy"

    await until(busy)
    assert (await desk.executions.interrupt(desk.session_id)).was_busy
    assert end_of(await running).status == "interrupted"
    assert text_of(await desk.run("print(kept)")) == "7\n"


async def test_a_timeout_is_an_outcome(desk: Desk):
    assert end_of(await desk.run("import time; time.sleep(600)", timeout=0.5)).status == "timeout"


async def test_restart_loses_variables_and_says_so(desk: Desk):
    await desk.run("x = 1; open('kept.txt', 'w').write('kept')")
    await desk.executions.restart(desk.session_id)
    assert end_of(await desk.run("x")).status == "error"
    assert text_of(await desk.run("print(open('kept.txt').read())")) == "kept\n"
    changes = await of_type(desk, KernelChanged)
    assert [(change.reason, change.lost_state) for change in changes] == [("started", False), ("restarted", True)]


async def test_reset_gives_a_workspace_as_new_with_the_uploads(desk: Desk):
    artifacts = ArtifactService(desk.context, desk.principal)
    await artifacts.store(desk.session_id, name="in.csv", category="data", content_type=None, chunks=chunks(b"in"))
    await desk.run("x = 1; open('scratch.txt', 'w').write('x')")
    await desk.executions.reset(desk.session_id)
    assert (
        text_of(await desk.run("import os; print('scratch.txt' in os.listdir(), os.listdir('data'))"))
        == "False ['in.csv']\n"
    )
    assert (await of_type(desk, KernelChanged))[1].reason == "reset"


async def test_variables_and_completion(desk: Desk):
    await desk.run("import pandas as pd\nframe = pd.DataFrame({'a': [1, 2]})\nfrequency = 3")
    names = {variable.name for variable in (await desk.executions.variables(desk.session_id)).variables}
    assert {"frame", "frequency"} <= names
    assert "frequency" in (await desk.executions.complete(desk.session_id, "frequ", 5)).matches


async def test_a_host_that_died_between_cells_is_replaced_and_said(desk: Desk):
    await desk.run("x = 1")
    await lose_host(desk)
    events = await desk.run("print('x' in dir())")
    assert text_of(events) == "False\n"
    change = (await of_type(desk, KernelChanged))[-1]
    assert (change.reason, change.lost_state) == ("host_lost", True)


async def test_a_deleted_session_leaves_nothing_behind(desk: Desk):
    from carrel_gateway.sessions.service import SessionService

    await desk.run("x = 1")
    record = desk.settings.data_dir / "hosts" / f"{desk.session_id}.json"
    host = msgspec.json.decode(record.read_bytes(), type=HostRecord)
    await SessionService(desk.context, desk.principal).delete(desk.session_id)
    assert not desk.workspace.exists()
    assert not record.exists()
    with pytest.raises(ProcessLookupError):
        os.kill(host.pid, 0)
    with pytest.raises(NotFound):
        await desk.run("1")


# ---------------------------------------------------------------------- amounts


async def test_ten_megabytes_arrive_and_are_kept_whole(desk: Desk):
    events = await desk.run("for n in range(100_000): print('%099d' % n)")
    expected = "".join(f"{n:099d}\n" for n in range(100_000))
    assert end_of(events).status == "ok"
    assert text_of(events) == expected
    assert await text_in_history(desk) == expected
    assert max(len(msgspec.json.encode(part)) for part in await of_type(desk, CellOutputs)) < 4 * 1024 * 1024


async def test_a_slow_reader_costs_no_memory_and_loses_nothing(desk: Desk):
    await desk.run("1")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    lengths = 0
    async for event in desk.executions.execute(desk.session_id, "print('x' * 40_000_000)"):
        if isinstance(event, Stdout):
            lengths += len(event.text)
            await asyncio.sleep(0.001)
        elif isinstance(event, Display):
            pytest.fail("there is no display")
    assert lengths == 40_000_001
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert grown < 64, f"{grown:.0f} MiB"


async def test_a_reader_that_does_not_read_is_cut_off_and_nothing_is_lost(desk: Desk):
    stream = desk.executions.execute(desk.session_id, "print('x' * 20_000_000)")
    await anext(stream)
    reader_error: CarrelError | None = None
    await desk.context.kernels.in_flight.wait(desk.session_id, seconds=100)
    try:
        async for _ in stream:
            pass
    except CarrelError as error:
        reader_error = error
    assert reader_error is not None
    assert reader_error.code == "slow_reader"
    assert await text_in_history(desk) == "x" * 20_000_000 + "\n"


async def test_pace_of_a_small_cell(desk: Desk, capsys: pytest.CaptureFixture[str]):
    await desk.run("1 + 1")
    times: list[float] = []
    for _ in range(60):
        started = time.perf_counter()
        await desk.run("1 + 1")
        times.append((time.perf_counter() - started) * 1000)
    with capsys.disabled():
        print(f"\n1+1 to its committed end: p50 {statistics.median(times):.1f} ms, max {max(times):.1f} ms")
    assert statistics.median(times) < 250  # of a loaded machine; the target of 8 ms is measured by `make bench`
