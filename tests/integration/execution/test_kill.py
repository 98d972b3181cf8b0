"""SIGKILL at every step of an execution, for gateway, kernel host and kernel.

A process of its own (`tests.support.victim`) runs a cell that appends a marker to a file, prints, and waits a moment;
it is hit at one step. Then another gateway recovers the session. Whatever the step and the victim:

* whoever saw `finished` finds it in the history, with the same status;
* no marker is in the file twice: no code ran twice; where the end is `ok` the marker is there;
* the log has no gap, and exactly one `cell.finished` per execution whose intent was committed or whose host lived;
* output that was committed is there once;
* nothing stays unacknowledged, and the session runs the next cell.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from tests.support.desk import PRINCIPAL, opened
from tests.support.victim import STEPS

from carrel_gateway.context import ProcessContext
from carrel_gateway.execution.service import ExecutionService
from carrel_gateway.history.service import HistoryService, StoredEvent
from carrel_gateway.kernels.outputs import fold
from carrel_gateway.sessions.service import SessionService
from carrel_gateway.storage.ids import new_id
from carrel_wire.events import ExecutionEvent, Finished, Stdout
from carrel_wire.log import CellFinished, CellIntended, CellOutputs

ROOT = Path(__file__).parents[3]
DRIVER_SECONDS = 90
CELL = """
import time
with open("markers.txt", "a") as markers:
    markers.write("{mark}\\n")
print("first", flush=True)
time.sleep(0.4)
print("second")
"""

pytestmark = pytest.mark.timeout(400)


@pytest.fixture
async def session(tmp_path: Path) -> AsyncIterator[tuple[Path, UUID]]:
    data_dir = tmp_path / "data"
    async with opened(data_dir) as context:
        session = await SessionService(context, PRINCIPAL).create(title="test", model=None, config=None)
    yield data_dir, session.id
    async with opened(data_dir, last=True):
        pass


async def drive(data_dir: Path, session_id: UUID, execution_id: UUID, *arguments: str) -> list[dict[str, Any]]:
    """Run the victim to its end, however it comes, and return what it said."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.support.victim"),
        *(str(data_dir), str(session_id), str(execution_id), *arguments),
        cwd=ROOT,
        env={"PYTHONPATH": "operator:gateway:kernel-image:.", "PATH": "/usr/bin:/bin"},
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        out, _ = await asyncio.wait_for(process.communicate(), DRIVER_SECONDS)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return [json.loads(line) for line in out.splitlines()]


def said(lines: list[dict[str, Any]], what: str) -> list[dict[str, Any]]:
    return [line for line in lines if line["what"] == what]


async def log_of(context: ProcessContext, session_id: UUID) -> list[StoredEvent]:
    history, events = HistoryService(context, PRINCIPAL), list[StoredEvent]()
    while page := await history.events(session_id, after=events[-1].seq if events else 0, limit=500):
        events.extend(page)
    return events


def check_log(events: list[StoredEvent]) -> dict[UUID, CellFinished]:
    """Check what must hold for every log, and return the ends by execution."""
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    ends = [event.payload for event in events if isinstance(event.payload, CellFinished)]
    assert max(Counter(end.execution_id for end in ends).values(), default=1) == 1
    finished = {end.execution_id: end for end in ends}
    intended = {event.payload.execution_id for event in events if isinstance(event.payload, CellIntended)}
    assert intended <= set(finished)
    return finished


def stdout_of(events: list[StoredEvent], execution_id: UUID) -> str:
    parts = [
        output
        for event in events
        if isinstance(event.payload, CellOutputs) and event.payload.execution_id == execution_id
        for output in event.payload.outputs
    ]
    return "".join(output["text"] for output in fold(parts) if output.get("name") == "stdout")


async def check(
    data_dir: Path, session_id: UUID, execution_id: UUID, mark: str, lines: list[dict[str, Any]]
) -> CellFinished | None:
    """Recover as the next gateway does, check everything, and return the execution's end."""
    async with opened(data_dir) as context:
        service = ExecutionService(context, PRINCIPAL)
        await service.recover(session_id)
        await context.kernels.in_flight.wait(session_id, seconds=60)
        next_cell = [event async for event in service.execute(session_id, "print(1 + 1)")]
        assert next_cell[-1].status == "ok" if isinstance(next_cell[-1], Finished) else False
        assert _text(next_cell) == "2\n"
        events = await log_of(context, session_id)
        await context.kernels.in_flight.wait(session_id, seconds=60)
        assert (await service.state(session_id)).unacknowledged == 0
    ends = check_log(events)
    end = ends.get(execution_id)
    markers = data_dir / "workspaces" / str(session_id) / "markers.txt"
    count = markers.read_text().split().count(mark) if markers.exists() else 0
    assert count <= 1
    for line in said(lines, "acknowledged"):
        assert end is not None
        # What the caller is told of a lost execution is `kernel_died`; the log says precisely that it is unknown.
        assert end.status == line["status"] or (end.status, line["status"]) == ("outcome_unknown", "kernel_died")
    if end is not None and end.status == "ok":
        assert count == 1
        assert stdout_of(events, execution_id) == "first\nsecond\n"
    return end


def _text(events: list[ExecutionEvent]) -> str:
    return "".join(event.text for event in events if isinstance(event, Stdout))


@pytest.mark.parametrize("kind", ["durable", "plain"])
async def test_gateway_killed_at_every_step(session: tuple[Path, UUID], kind: str):
    data_dir, session_id = session
    outcomes: dict[str, str | None] = {}
    for step in STEPS if kind == "durable" else STEPS[1:]:
        execution_id, mark = new_id(), f"{kind}-{step}"
        lines = await drive(data_dir, session_id, execution_id, "gateway", step, kind, CELL.format(mark=mark))
        assert said(lines, "struck"), lines
        assert not said(lines, "done"), lines
        end = await check(data_dir, session_id, execution_id, mark, lines)
        outcomes[step] = end.status if end else None
    assert outcomes.pop("intended", "outcome_unknown") == "outcome_unknown"
    assert set(outcomes.values()) == {"ok"}, outcomes


@pytest.mark.parametrize("victim", ["host", "kernel"])
async def test_host_or_kernel_killed_at_every_step(session: tuple[Path, UUID], victim: str):
    data_dir, session_id = session
    outcomes: dict[str, str | None] = {}
    for step in STEPS:
        execution_id, mark = new_id(), f"{victim}-{step}"
        lines = await drive(data_dir, session_id, execution_id, victim, step, "durable", CELL.format(mark=mark))
        assert said(lines, "struck"), lines
        assert said(lines, "acknowledged"), lines
        end = await check(data_dir, session_id, execution_id, mark, lines)
        outcomes[step] = end.status if end else None
    # What ended before the blow stays as it was; what had begun has died. A host that is dying may still take a request
    # from its socket, and nobody can know what became of it.
    assert {outcomes[step] for step in ("finished", "committed", "acknowledged")} == {"ok"}, outcomes
    assert {outcomes[step] for step in ("started", "output")} == {"kernel_died"}, outcomes
    assert outcomes["sent"] in {"kernel_died", "outcome_unknown"}, outcomes
    assert outcomes["intended"] in {"ok", "kernel_died", "outcome_unknown"}, outcomes
