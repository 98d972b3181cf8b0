"""From messages to events: nothing lost, nothing doubled, in order and within the limit, whatever the messages hold.

Plan
- Random text on both streams with a random limit (Hypothesis): what was delivered and what is in the file are together
  all of it, in order; one `truncated` with the bytes that are left out, or none.
- Text is joined up to 64 KiB or 20 ms; another stream or output ends the joining.
- Shapes that are none: nothing raises, and numbers stay without gaps.
- Errors are told although there is no room, and shortened; the file has a limit and needs a disk.
"""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carrel_kernel.executions import Execution
from carrel_kernel.outputs import CHUNK_CHARACTERS, Outputs, Overflow
from carrel_kernel.spool import Meta, Spool
from carrel_wire.events import (
    Clear,
    Display,
    Error,
    ExecutionEvent,
    Result,
    Stderr,
    Stdout,
    Truncated,
    decode_event,
)

META = Meta(id="e", kernel_id="main", incarnation="i", session_uid="s", code="")
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


class Sink:
    """An execution in a folder, with its outputs."""

    def __init__(self, folder: Path, *, limit: int = 10**6, file_limit: int = 10**6, room: bool = True) -> None:
        self.file = folder / "overflow" / "e.txt"
        self.execution = Execution(Spool.create(folder, META))
        overflow = Overflow(self.file, file_limit, lambda: room)
        self.outputs = Outputs(self.execution, overflow, limit_bytes=limit, overflow_path="overflow/e.txt")

    def text(self, text: Any, name: Any = "stdout") -> None:
        assert self.outputs.take("stream", {"name": name, "text": text}, 0)

    def take(self, msg_type: str, content: dict[str, Any], size: int = 0) -> bool:
        return self.outputs.take(msg_type, content, size)

    def flushed(self) -> list[ExecutionEvent]:
        self.execution.flush()
        spool = self.execution.spool
        data, _ = spool.tail(0) or (b"", 0)
        events = [decode_event(line) for line in data.splitlines()]
        assert [event.n for event in events] == list(range(1, len(events) + 1))
        return events

    def end(self) -> list[ExecutionEvent]:
        self.outputs.close()
        events = self.flushed()
        self.execution.spool.close()
        return events


WRITES = st.lists(st.tuples(st.sampled_from(["stdout", "stderr"]), st.text(max_size=80)), max_size=12)


@settings(max_examples=200)
@given(WRITES, st.integers(1, 1500))
def test_delivered_and_file_together_are_all_of_it(writes: list[tuple[str, str]], limit: int) -> None:
    async def check(folder: Path) -> None:
        sink = Sink(folder, limit=limit)
        for name, text in writes:
            sink.text(text, name)
        events = sink.end()
        cut = [event for event in events if isinstance(event, Truncated)]
        shown = "".join(event.text for event in events if isinstance(event, Stdout | Stderr))
        rest = sink.file.read_bytes().decode() if sink.file.exists() else ""
        assert shown + rest == "".join(text for _, text in writes)
        assert len(shown.encode()) <= limit
        assert sink.outputs.bytes_out == len((shown + rest).encode())
        assert sink.outputs.truncated == bool(cut)
        assert bool(cut) == bool(rest)
        if cut:
            assert cut == [events[-1]]
            assert cut[0].omitted_bytes == len(rest.encode())
            assert cut[0].limit_bytes == limit
        else:
            assert [text for text in (getattr(event, "text", "") for event in events) if not text] == []

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(check(Path(folder)))


async def test_text_is_joined_until_another_output_comes(tmp_path: Path) -> None:
    sink = Sink(tmp_path)
    for text in ("a", "b"):
        sink.text(text)
    sink.text("c", "stderr")
    sink.text("d")
    sink.take("display_data", {"data": {"text/plain": "e"}})
    sink.text("f", "a name that is none")
    sink.take("clear_output", {"wait": True})
    assert sink.end() == [
        Stdout(n=1, text="ab"),
        Stderr(n=2, text="c"),
        Stdout(n=3, text="d"),
        Display(n=4, data={"text/plain": "e"}),
        Stdout(n=5, text="f"),
        Clear(n=6, wait=True),
    ]


async def test_a_lone_line_does_not_wait_for_the_next(tmp_path: Path) -> None:
    sink = Sink(tmp_path)
    sink.text("alone")
    async with asyncio.timeout(10):
        assert await anext(sink.execution.read(0)) == b'{"type":"stdout","n":1,"text":"alone"}\n'
    assert sink.end() == [Stdout(n=1, text="alone")]


async def test_long_text_comes_in_pieces_at_once(tmp_path: Path) -> None:
    sink = Sink(tmp_path)
    sink.text("x" * (2 * CHUNK_CHARACTERS + 1))
    assert [len(event.text) for event in sink.flushed() if isinstance(event, Stdout)] == [
        CHUNK_CHARACTERS,
        CHUNK_CHARACTERS,
        1,
    ]
    sink.end()


async def test_results_and_displays_keep_their_fields(tmp_path: Path) -> None:
    sink = Sink(tmp_path)
    sink.take("execute_result", {"data": {"text/plain": "1"}, "metadata": {"m": 1}, "execution_count": 7})
    sink.take("display_data", {"data": {}, "transient": {"display_id": "d" * 20_000}})
    sink.take("update_display_data", {"data": {}, "transient": {"display_id": "d"}})
    result, shown, updated = sink.end()
    assert result == Result(n=1, data={"text/plain": "1"}, metadata={"m": 1}, execution_count=7)
    assert isinstance(shown, Display)
    assert shown.display_id == "d" * 10_000
    assert updated == Display(n=3, data={}, display_id="d", update=True)


@pytest.mark.parametrize("count", [None, -1, 2**31, 2**80, 1.5, "1", [], {}])
async def test_an_execution_count_that_nothing_can_store_is_none(tmp_path: Path, count: Any) -> None:
    sink = Sink(tmp_path)
    sink.take("execute_result", {"data": {}, "execution_count": count})
    assert sink.end() == [Result(n=1, data={}, execution_count=0)]


@settings(max_examples=300)
@given(
    st.sampled_from(["stream", "display_data", "update_display_data", "execute_result", "clear_output", "error"]),
    st.dictionaries(
        st.sampled_from(
            ["name", "text", "data", "metadata", "transient", "wait", "traceback", "ename", "evalue", "execution_count"]
        ),
        JSON,
    ),
)
def test_no_shape_raises(msg_type: str, content: dict[str, Any]) -> None:
    async def check(folder: Path) -> None:
        sink = Sink(folder)
        assert sink.take(msg_type, content)
        sink.end()

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(check(Path(folder)))


async def test_other_types_are_not_taken(tmp_path: Path) -> None:
    sink = Sink(tmp_path)
    for msg_type in ("comm_open", "status", "", "execute_input"):
        assert not sink.take(msg_type, {"text": "x"})
    assert sink.end() == []


async def test_an_error_is_told_without_room_and_shortened(tmp_path: Path) -> None:
    sink = Sink(tmp_path, limit=100)
    sink.text("x" * 1000)
    sink.take("error", {"ename": "E" * 20_000, "evalue": "v", "traceback": ["t" * 600_000, "u" * 600_000, "w"]})
    sink.text("after")
    events = sink.end()
    (error,) = (event for event in events if isinstance(event, Error))
    assert sink.outputs.error == error
    assert len(error.name) == 10_000
    assert [len(line) for line in error.traceback[:2]] == [600_000, 1024 * 1024 - 600_000]
    assert error.traceback[2:] == ["(the traceback goes on)"]
    assert sink.file.read_text().endswith("after")


async def test_many_empty_outputs_count_too(tmp_path: Path) -> None:
    sink = Sink(tmp_path, limit=1000)
    for _ in range(1000):
        sink.take("clear_output", {})
    events = sink.end()
    assert len(events) < 20
    assert isinstance(events[-1], Truncated)


async def test_rich_output_over_the_limit_goes_to_the_file(tmp_path: Path) -> None:
    sink = Sink(tmp_path, limit=100)
    sink.take("display_data", {"data": {"text/html": "<b>whole</b>"}}, size=5000)
    sink.take("display_data", {"data": {"text/html": "small"}}, size=1)  # nothing after the first that did not fit
    (cut,) = sink.end()
    assert cut == Truncated(n=1, omitted_bytes=5001, limit_bytes=100, path="overflow/e.txt")
    assert sink.file.read_text() == '{"text/html":"<b>whole</b>"}\n{"text/html":"small"}\n'


async def test_the_file_has_a_limit(tmp_path: Path) -> None:
    sink = Sink(tmp_path, limit=100, file_limit=50)
    for _ in range(3):
        sink.text("x" * 100_000)
    (*_, cut) = sink.end()
    assert isinstance(cut, Truncated)
    assert cut.omitted_bytes + 100 - 64 == 300_000
    assert sink.file.stat().st_size == 50


@pytest.mark.parametrize("why", ["no room", "a link in its place"])
async def test_without_a_file_there_is_no_path(tmp_path: Path, why: str) -> None:
    sink = Sink(tmp_path, limit=100, room=why != "no room")
    if why != "no room":
        sink.file.parent.mkdir()
        sink.file.symlink_to(tmp_path / "elsewhere")
    sink.text("x" * 1000)
    (*_, cut) = sink.end()
    assert isinstance(cut, Truncated)
    assert cut.path is None
    assert not (tmp_path / "elsewhere").exists()


async def test_a_lossy_execution_counts_what_it_cannot_tell(tmp_path: Path) -> None:
    sink = Sink(tmp_path)
    sink.execution.lossy = True
    sink.text("x" * 10)
    (cut,) = sink.end()
    assert isinstance(cut, Truncated)
    assert cut.omitted_bytes == 10
