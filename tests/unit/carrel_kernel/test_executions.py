"""At most once, and nothing lost before it is acknowledged: the bookkeeping of executions, on a real folder.

Plan
- An id is claimed once, whatever its code is the second time; not by another kernel; not again after its end.
- Bounds of number and bytes refuse a new one and never a known one; what was not queued has not run.
- News are waited for, at most so long.
- Readers: any number, at any time, from any number on; released events are gone and said to be.
- Another host on the same folder: what ran is not run again, ends where it had no end, and only for its own session.
- Events that JSON cannot carry are replaced; a disk that fails makes the execution lossy, not endless.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from carrel_kernel import spool as spool_module
from carrel_kernel.errors import (
    AlreadyAcknowledged,
    BadRequest,
    EventsReleased,
    ExecutionNotFound,
    KernelNotFound,
    OtherKernel,
    SpoolFull,
)
from carrel_kernel.executions import Execution, Executions
from carrel_kernel.metrics import Metrics
from carrel_wire.events import Display, ExecutionEvent, Finished, Stdout, decode_event
from carrel_wire.host import ExecuteRequest


def book(folder: Path, *, session: str = "s", most: int = 10, size: int = 10**6) -> Executions:
    found = Executions(folder, Metrics(), max_unacknowledged=most, spool_bytes=size)
    found.load(session)
    return found


def claim(executions: Executions, id_: str = "e", *, kernel: str = "main", code: str = "1") -> tuple[Execution, str]:
    return executions.claim(id_, kernel, "i", ExecuteRequest(code=code), admit=lambda: None)


def run(executions: Executions, id_: str = "e", texts: int = 2) -> Execution:
    execution, kind = claim(executions, id_)
    assert kind == "new"
    for number in range(texts):
        execution.emit(Stdout(n=execution.next_n, text=str(number)))
    execution.finish(Finished(n=execution.next_n, status="ok", wall_seconds=0.1))
    return execution


async def events(execution: Execution, after: int = 0) -> list[ExecutionEvent]:
    found = b""
    ends: list[bool] = []
    async with asyncio.timeout(10):
        async for chunk, last in execution.read(after):
            found += chunk
            ends.append(last)
    assert ends in ([], [*[False] * (len(ends) - 1), True])
    return [decode_event(line) for line in found.splitlines()]


async def test_news_are_waited_for_at_most_so_long(tmp_path: Path) -> None:
    execution, _ = claim(book(tmp_path))
    assert not await execution.wait(0, 0.001)
    waiting = asyncio.create_task(execution.wait(0, 1000.0))
    await asyncio.sleep(0)
    execution.emit(Stdout(n=1, text="a"))
    assert not waiting.done()
    execution.flush()
    assert await waiting
    assert await execution.wait(0, 1000.0)
    execution.finish(Finished(n=2, status="ok", wall_seconds=0.1))
    assert not await execution.wait(2, 1000.0)


async def test_an_id_is_claimed_once(tmp_path: Path) -> None:
    executions = book(tmp_path)
    first, kind = claim(executions)
    assert kind == "new"
    again, kind = claim(executions, code="other code")
    assert (again, kind) == (first, "known")
    assert first.request == ExecuteRequest(code="1")
    with pytest.raises(OtherKernel) as refused:
        claim(executions, kernel="second")
    assert refused.value.detail == {"kernel": "main"}


async def test_after_acknowledgement_nothing_runs_again(tmp_path: Path) -> None:
    executions = book(tmp_path)
    execution = run(executions)
    assert executions.ack("e", "main", 1).acknowledged is False
    assert executions.ack("e", "main", execution.spool.last_n).acknowledged is True
    for host in (executions, book(tmp_path)):
        with pytest.raises(AlreadyAcknowledged) as refused:
            claim(host)
        assert refused.value.detail == {"id": "e", "status": "ok", "acknowledged": True}
        with pytest.raises(EventsReleased):
            host.get("e", "main")
        assert host.ack("e", "main", 1).status == "ok"
        assert host.knows("e")
        assert host.unacknowledged() == []
        assert host.spool_bytes() == 0


@pytest.mark.parametrize("n", [-1, 4, 10**9])
async def test_only_what_there_is_can_be_acknowledged(tmp_path: Path, n: int) -> None:
    executions = book(tmp_path)
    run(executions)
    with pytest.raises(BadRequest, match="up to 3"):
        executions.ack("e", "main", n)
    with pytest.raises(ExecutionNotFound):
        executions.ack("unknown", "main", 1)
    with pytest.raises(OtherKernel):
        executions.ack("e", "second", 1)


@pytest.mark.parametrize("id_", ["", "-a", "a b", "a/b", "..", "ä", "x" * 65, "a\n", "a.b"])
async def test_ids_that_are_no_names_are_refused(tmp_path: Path, id_: str) -> None:
    with pytest.raises(BadRequest, match="UUID"):
        claim(book(tmp_path), id_)


async def test_bounds_refuse_new_ones_and_keep_known_ones(tmp_path: Path) -> None:
    executions = book(tmp_path / "number", most=1)
    run(executions)
    with pytest.raises(SpoolFull, match="acknowledge"):
        claim(executions, "f")
    assert claim(executions)[1] == "known"
    executions.ack("e", "main", 3)
    assert claim(executions, "f")[1] == "new"
    executions = book(tmp_path / "bytes", size=200)
    run(executions, texts=10)
    with pytest.raises(SpoolFull):
        claim(executions, "f")


async def test_what_is_not_admitted_or_not_queued_has_not_run(tmp_path: Path) -> None:
    executions = book(tmp_path)

    def refuse() -> None:
        raise KernelNotFound("no such kernel")

    with pytest.raises(KernelNotFound):
        executions.claim("e", "main", "i", ExecuteRequest(code="1"), admit=refuse)
    assert not executions.knows("e")
    execution, _ = claim(executions)
    executions.discard(execution)
    assert not executions.knows("e")
    assert not list((tmp_path / "spool").iterdir())
    assert claim(executions)[1] == "new"
    with patch.object(spool_module, "_create", side_effect=OSError(28, "full")), pytest.raises(SpoolFull, match="full"):
        claim(executions, "f")
    assert not executions.knows("f")


async def test_readers_get_all_of_it_whenever_they_come(tmp_path: Path) -> None:
    execution, _ = claim(book(tmp_path))
    readers = [asyncio.create_task(events(execution)) for _ in range(3)]
    for number in range(5):
        execution.emit(Stdout(n=execution.next_n, text=str(number)))
        execution.emit(Stdout(n=execution.next_n, text="x" * 50_000))
        execution.flush()
        readers.append(asyncio.create_task(events(execution, 2 * number)))
        await asyncio.sleep(0)
    execution.finish(Finished(n=execution.next_n, status="ok", wall_seconds=0))
    found = [*await asyncio.gather(*readers), await events(execution)]
    for each in (*found[:3], found[-1]):
        assert [event.n for event in each] == list(range(1, 12))
    for number, each in enumerate(found[3:-1]):
        assert [event.n for event in each] == list(range(2 * number + 1, 12))


async def test_released_events_are_said_to_be_gone(tmp_path: Path) -> None:
    with patch.object(spool_module, "SEGMENT_BYTES", 10):
        execution, _ = claim(book(tmp_path))
        for number in range(5):
            execution.emit(Stdout(n=execution.next_n, text=f"{number}" * 10))
            execution.flush()
        execution.spool.release(3)
        with pytest.raises(EventsReleased):
            await events(execution, 1)


async def test_another_host_delivers_what_was_left(tmp_path: Path) -> None:
    executions = book(tmp_path)
    run(executions, "done")
    begun, _ = claim(executions, "begun")
    begun.emit(Stdout(n=1, text="so far"))
    begun.flush()
    claim(executions, "queued")
    for _ in range(2):  # and the one after that finds the same
        executions = book(tmp_path)
        for id_ in ("done", "begun", "queued"):
            assert claim(executions, id_)[1] == "known"
        assert [event.n for event in await events(executions.get("done", "main"))] == [1, 2, 3]
        text, end = await events(executions.get("begun", "main"))
        assert text == Stdout(n=1, text="so far")
        (only,) = await events(executions.get("queued", "main"))
        for finished in (end, only):
            assert isinstance(finished, Finished)
            assert (finished.status, finished.lost_state) == ("kernel_died", True)
        assert not any(executions.get(id_, "main").lossy for id_ in ("done", "begun", "queued"))
        assert {item.id: item.finished for item in executions.unacknowledged()} == {
            "done": True,
            "begun": True,
            "queued": True,
        }


async def test_another_sessions_executions_are_left_alone(tmp_path: Path) -> None:
    run(book(tmp_path))
    other = book(tmp_path, session="other")
    assert not other.knows("e")
    assert book(tmp_path).knows("e")


async def test_what_json_cannot_carry_is_replaced(tmp_path: Path) -> None:
    deep: Any = "end"
    for _ in range(100_000):
        deep = [deep]
    execution, _ = claim(book(tmp_path))
    for data, metadata in (({"a": "\ud800"}, {}), ({"a": deep}, {}), ({}, {"a": deep})):
        execution.emit(Display(n=execution.next_n, data={"text/plain": "x", **data}, metadata=metadata))
    execution.finish(Finished(n=execution.next_n, status="ok", wall_seconds=0))
    found = await events(execution)
    assert [event.n for event in found] == [1, 2, 3, 4]
    assert found[0] == Display(n=1, data={"text/plain": "x", "a": "?"})
    assert found[1] == Display(n=2, data={"text/plain": "(nested too deeply)"})
    assert found[2] == Display(n=3, data={"text/plain": "(nested too deeply)"})
    while isinstance(deep, list):  # taking it apart at once would overflow the interpreter's own stack
        deep = deep[0]


async def test_a_disk_that_fails_makes_it_lossy_and_not_endless(tmp_path: Path) -> None:
    execution, _ = claim(book(tmp_path))
    with patch.object(spool_module, "_write_all", side_effect=OSError(28, "full")):
        execution.emit(Stdout(n=1, text="x"))
        execution.flush()
        assert execution.lossy
        execution.finish(Finished(n=2, status="ok", wall_seconds=0))
    assert [event.n for event in await events(execution)] == [1, 2]
