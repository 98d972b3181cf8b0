"""Outputs in the notebook format.

Plan: text is kept whole and joined; other outputs keep their order; clears and display updates take effect where the
parts are joined, also across parts; what is folded is valid nbformat; outputs go back to events without loss.
"""

from __future__ import annotations

from typing import Any

import nbformat
from hypothesis import given
from hypothesis import strategies as st

from carrel_gateway.kernels.outputs import OutputBatch, events_of, fold, output_of
from carrel_wire.events import (
    Artifact,
    Clear,
    Display,
    Error,
    ExecutionEvent,
    Finished,
    Result,
    Started,
    Stderr,
    Stdout,
    Truncated,
)

TEXT = st.text(max_size=20)
EVENTS = st.lists(
    st.one_of(
        st.builds(Stdout, n=st.just(1), text=TEXT),
        st.builds(Stderr, n=st.just(1), text=TEXT),
        st.builds(Display, n=st.just(1), data=st.fixed_dictionaries({"text/plain": TEXT})),
        st.builds(Result, n=st.just(1), data=st.fixed_dictionaries({"text/plain": TEXT}), execution_count=st.just(3)),
        st.builds(Error, n=st.just(1), name=TEXT, value=TEXT, traceback=st.lists(TEXT, max_size=2)),
    ),
    max_size=30,
)


def batched(*events: ExecutionEvent) -> list[dict[str, Any]]:
    batch = OutputBatch()
    for event in events:
        batch.add(event)
    return batch.take()


def test_neighbouring_text_of_one_stream_is_joined():
    outputs = batched(
        Stdout(n=1, text="a"),
        Stdout(n=2, text="b"),
        Stderr(n=3, text="c"),
        Stdout(n=4, text="d"),
        Stdout(n=5, text="e"),
    )
    assert [(output["name"], output["text"]) for output in outputs] == [
        ("stdout", "ab"),
        ("stderr", "c"),
        ("stdout", "de"),
    ]


def test_what_is_no_output_is_left_out():
    started = Started(n=1, kernel_id="main", incarnation="x", time=1.0)
    artifact = Artifact(n=2, path="a.csv", size=1, sha256="0" * 64)
    assert batched(started, artifact, Finished(n=3, status="ok", wall_seconds=0.1)) == []


def test_size_grows_with_text_and_starts_again_after_take():
    batch = OutputBatch()
    for n in range(100):
        batch.add(Stdout(n=n, text="x" * 1000))
    assert batch.size_bytes >= 100_000
    assert len(batch.take()[0]["text"]) == 100_000
    assert batch.size_bytes == 0
    assert batch.take() == []


def test_many_empty_outputs_have_a_size():
    batch = OutputBatch()
    for n in range(1000):
        batch.add(Clear(n=n))
    assert batch.size_bytes > 1000


def test_a_stream_goes_on_over_parts():
    parts = [*batched(Stdout(n=1, text="a")), *batched(Stdout(n=2, text="b"))]
    assert [output["text"] for output in fold(parts)] == ["ab"]


def test_clear_takes_away_what_earlier_parts_showed():
    parts = [*batched(Stdout(n=1, text="old")), *batched(Clear(n=2), Stdout(n=3, text="new"))]
    assert [output["text"] for output in fold(parts)] == ["new"]


def test_clear_with_wait_takes_effect_at_the_next_output():
    assert [output["text"] for output in fold(batched(Stdout(n=1, text="old"), Clear(n=2, wait=True)))] == ["old"]
    after = fold(batched(Stdout(n=1, text="old"), Clear(n=2, wait=True), Stdout(n=3, text="new")))
    assert [output["text"] for output in after] == ["new"]


def test_an_update_replaces_the_display_of_its_id():
    parts = batched(
        Display(n=1, data={"text/plain": "0 %"}, display_id="p"),
        Display(n=2, data={"text/plain": "other"}),
        Display(n=3, data={"text/plain": "100 %"}, display_id="p", update=True),
    )
    assert [output["data"]["text/plain"] for output in fold(parts)] == ["100 %", "other"]


def test_an_update_of_an_unknown_display_shows_nothing():
    assert fold(batched(Display(n=1, data={"text/plain": "x"}, display_id="p", update=True))) == []


def test_truncation_is_said_in_the_output():
    output = output_of(Truncated(n=1, omitted_bytes=5, limit_bytes=10, path=".carrel/overflow/x.txt"))
    assert output is not None
    assert "5 bytes were left out" in output["text"]
    assert ".carrel/overflow/x.txt" in output["text"]


@given(EVENTS)
def test_folded_outputs_are_a_valid_notebook(events: list[ExecutionEvent]):
    cell = nbformat.v4.new_code_cell("1")
    cell.outputs = [nbformat.from_dict(output) for output in fold(batched(*events))]
    nbformat.validate(nbformat.v4.new_notebook(cells=[cell]))


@given(EVENTS)
def test_outputs_go_to_events_and_back(events: list[ExecutionEvent]):
    outputs = batched(*events)
    assert batched(*events_of(outputs)) == outputs


@given(EVENTS, st.integers(0, 30))
def test_where_a_cell_is_cut_into_parts_does_not_show(events: list[ExecutionEvent], cut: int):
    assert fold([*batched(*events[:cut]), *batched(*events[cut:])]) == fold(batched(*events))
