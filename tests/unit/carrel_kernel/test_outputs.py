"""From messages to events: nothing lost, nothing doubled, in order and within the limit, whatever the messages hold.

Plan
- Random text on both streams with a random limit (Hypothesis): what was delivered and what is in the file are together
  all of it, in order; one `truncated` with the bytes that are left out, or none.
- Text is joined up to 64 KiB or 20 ms; another stream or output ends the joining.
- Shapes that are none: nothing raises, and numbers stay without gaps.
- Errors are told although there is no room, and shortened; the file has a limit and needs a disk.
- Limits: a message over its own keeps what is small, and others follow; the session's is shared by its executions; a
  full disk is one, too; the event names the widest that was met, and what was left out is counted and in the file.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carrel_kernel.caps import CHECK_BYTES, Allowance, Caps, DiskWatch, Meter, Overflow
from carrel_kernel.executions import Execution
from carrel_kernel.outputs import CHUNK_CHARACTERS, OMITTED, Outputs
from carrel_kernel.protocol import MAX_VALUES, MalformedError
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

PATH = "overflow/e.txt"
META = Meta(id="e", kernel_id="main", incarnation="i", session_uid="s", code="")
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


class Sink:
    """An execution in a folder, with its outputs."""

    def __init__(
        self,
        folder: Path,
        *,
        limit: int = 10**7,
        message: int = 10**7,
        session: Allowance | None = None,
        file_limit: int = 10**7,
        room: bool = True,
        unwatched: int = 10**9,
    ) -> None:
        self.file = folder / "overflow" / "e.txt"
        self.execution = Execution(Spool.create(folder, META))
        self.room = room
        self.meter = Meter(Caps(message, limit, file_limit), session or Allowance(10**9))
        self.outputs = Outputs(
            self.execution,
            Overflow(self.file, file_limit, lambda: self.room),
            self.meter,
            DiskWatch(lambda: self.room, free_bytes=unwatched),
            overflow_path=PATH,
        )

    def text(self, text: Any, name: Any = "stdout") -> None:
        assert self.take("stream", {"name": name, "text": text})

    def take(self, msg_type: str, content: dict[str, Any]) -> bool:
        return self.outputs.take(msg_type, json.dumps(content).encode())

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
        assert sink.meter.bytes_out == len((shown + rest).encode())
        assert (sink.meter.reason == "execution") == bool(cut)
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
        assert await anext(sink.execution.read(0)) == (b'{"type":"stdout","n":1,"text":"alone"}\n', False)
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


async def test_further_errors_need_room(tmp_path: Path) -> None:
    sink = Sink(tmp_path, limit=10_000)
    for _ in range(100):
        sink.take("error", {"ename": "E", "evalue": "v" * 1000, "traceback": []})
    events = sink.end()
    assert 5 < sum(isinstance(event, Error) for event in events) < 12
    assert isinstance(events[-1], Truncated)


async def test_many_empty_outputs_count_too(tmp_path: Path) -> None:
    sink = Sink(tmp_path, limit=1000)
    for _ in range(1000):
        sink.take("clear_output", {})
    events = sink.end()
    assert len(events) < 20
    assert isinstance(events[-1], Truncated)


async def test_rich_output_over_the_limit_goes_to_the_file(tmp_path: Path) -> None:
    sink = Sink(tmp_path, limit=200)
    sink.take("display_data", {"data": {"text/html": "<b>" + "x" * 200}})
    sink.take("display_data", {"data": {"text/html": "small"}})  # nothing after the first that did not fit
    (cut,) = sink.end()
    assert cut == Truncated(n=1, omitted_bytes=sink.meter.bytes_out, limit_bytes=200, path="overflow/e.txt")
    assert sink.file.read_text() == '{"text/html":"<b>' + "x" * 200 + '"}\n{"text/html":"small"}\n'


LARGE = {"text/html": "x" * 5000, "text/plain": "small", "application/json": {"a": [1]}}


async def test_of_a_large_message_what_is_small_goes_out_and_others_follow(tmp_path: Path) -> None:
    sink = Sink(tmp_path, message=1000)
    sink.take("display_data", {"data": LARGE, "metadata": {"m": 1}, "transient": {"display_id": "d"}})
    sink.take("execute_result", {"data": LARGE, "execution_count": 3, "metadata": {"large": "y" * 70_000}})
    sink.text("after")
    kept = {"text/plain": "small", "application/json": {"a": [1]}}
    *shown, cut = sink.end()
    assert shown == [
        Display(n=1, data=kept, metadata={"m": 1}, display_id="d"),
        Result(n=2, data=kept, metadata={}, execution_count=3),
        Stdout(n=3, text="after"),
    ]
    assert cut == Truncated(n=4, omitted_bytes=sink.meter.omitted_bytes, limit_bytes=1000, reason="message", path=PATH)
    sizes = [len(json.dumps(part)) for part in (LARGE["text/html"], {"large": "y" * 70_000}, LARGE["text/html"])]
    assert sum(sizes) < sink.meter.omitted_bytes < sink.meter.bytes_out
    assert [json.loads(line)["data"] for line in sink.file.read_text().splitlines()] == [LARGE, LARGE]


async def test_a_chart_of_very_many_values_keeps_its_text_and_picture(tmp_path: Path) -> None:
    sink = Sink(tmp_path, message=10**8)
    values = list(range(MAX_VALUES + 1))
    data = {"text/plain": "chart", "application/vnd.plotly.v1+json": {"data": values}, "image/png": "cG5n"}
    sink.take("display_data", {"data": {**data, "application/json": values}, "transient": {"display_id": "d"}})
    shown, cut = sink.end()
    assert shown == Display(n=1, data={"text/plain": "chart", "image/png": "cG5n"}, display_id="d")
    assert isinstance(cut, Truncated)
    assert cut.reason == "message"
    assert json.loads(sink.file.read_text())["data"]["application/json"] == values


async def test_what_the_kernel_left_out_itself_is_told(tmp_path: Path) -> None:
    sink = Sink(tmp_path)
    for told in (500, -1, "x", True, 2.5):
        sink.take("display_data", {"data": {"text/plain": "p"}, "metadata": {OMITTED: told, "m": 1}})
    *shown, cut = sink.end()
    assert [event.metadata for event in shown if isinstance(event, Display)] == [{"m": 1}] * 5
    assert cut == Truncated(n=6, omitted_bytes=500, limit_bytes=10**7, reason="message")


async def test_a_large_message_that_is_none_harms_nobody(tmp_path: Path) -> None:
    sink = Sink(tmp_path, message=10)
    for raw in (b"[" * 10_000, b'{"data": 5, "x": "' + b"y" * 100, b'{"data": [1, 2, 3, 4, 5]}'):
        with pytest.raises(MalformedError):
            sink.outputs.take("display_data", raw)
    sink.text("on")
    assert sink.end() == [Stdout(n=1, text="on")]


async def test_the_sessions_limit_is_shared_by_its_executions(tmp_path: Path) -> None:
    session = Allowance(1000)
    for number, (delivered, reason) in enumerate([(500, None), (1000 - 500 - 2 * 64, "session"), (0, "session")]):
        (folder := tmp_path / str(number)).mkdir()
        sink = Sink(folder, session=session)
        sink.text("x" * 500)
        sink.take("error", {"ename": "E"})  # is told all the same
        events = sink.end()
        assert sum(len(event.text) for event in events if isinstance(event, Stdout)) == delivered
        assert sum(isinstance(event, Error) for event in events) == 1
        cut = [event for event in events if isinstance(event, Truncated)]
        assert [(event.reason, event.omitted_bytes, event.limit_bytes) for event in cut] == (
            [(reason, 500 - delivered, 1000)] if reason else []
        )
    assert session.room == 0


async def test_the_widest_limit_is_the_one_that_is_named(tmp_path: Path) -> None:
    sink = Sink(tmp_path, message=100, limit=1000)
    sink.take("display_data", {"data": {"text/html": "x" * 500}})
    sink.text("y" * 2000)
    *_, cut = sink.end()
    assert isinstance(cut, Truncated)
    assert (cut.reason, cut.limit_bytes) == ("execution", 1000)
    assert cut.omitted_bytes > 1500


async def test_on_a_full_disk_so_much_goes_out_and_no_more(tmp_path: Path) -> None:
    sink = Sink(tmp_path, unwatched=1000)
    sink.text("a" * 900)
    sink.take("clear_output", {})
    sink.room = False
    sink.text("b" * 200)
    sink.take("error", {"ename": "E"})
    sink.text("c")
    events = sink.end()
    assert [type(event) for event in events] == [Stdout, Clear, Error, Truncated]
    assert events[-1] == Truncated(n=4, omitted_bytes=201, limit_bytes=0, reason="disk")
    assert not sink.file.exists()


async def test_a_disk_that_has_room_again_is_written_to_again(tmp_path: Path) -> None:
    watch = DiskWatch(lambda: sink.room, free_bytes=0)
    sink = Sink(tmp_path, room=False)
    assert not watch.allows(1)
    sink.room = True
    assert not watch.allows(CHECK_BYTES)
    assert watch.allows(1)
    sink.room = False
    assert watch.allows(CHECK_BYTES)
    assert not watch.allows(1)
    sink.end()


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
