"""What waits for a client: order, bounds, and no silent loss."""

from __future__ import annotations

import json
import re

from hypothesis import given
from hypothesis import strategies as st

from carrel_kernel.backlog import Backlog, Waiting

ADDED = st.lists(st.tuples(st.sampled_from(["iopub", "shell", "stdin", "control"]), st.integers(0, 3000)), max_size=40)


def parts(number: int, size: int) -> list[bytes]:
    return [b"{}", json.dumps({"msg_id": str(number)}).encode(), b"{}", b"x" * size]


def taken(backlog: Backlog) -> list[Waiting]:
    found = []
    while backlog:
        found.append(backlog.take())
    return found


@given(ADDED)
def test_all_comes_in_order_when_there_is_room(added: list[tuple[str, int]]) -> None:
    backlog = Backlog(10**9)
    messages = [(channel, parts(number, size)) for number, (channel, size) in enumerate(added)]
    assert all(backlog.add(channel, content) for channel, content in messages)  # type: ignore[arg-type]
    assert [(message.channel, message.parts) for message in taken(backlog)] == messages


@given(ADDED, st.integers(0, 20_000))
def test_what_goes_is_old_and_told_and_output_goes_first(added: list[tuple[str, int]], limit: int) -> None:
    backlog = Backlog(10**9)
    for number, (channel, size) in enumerate(added):
        backlog.add(channel, parts(number, size))  # type: ignore[arg-type]
    backlog.limit(limit)
    found = taken(backlog)
    told = 0
    if found and (gap := re.match(rb".*\[(\d+) messages", found[0].parts[3])):
        told = int(gap[1])
        assert found[0].channel == "iopub"
        assert json.loads(found[0].parts[0])["msg_type"] == "stream"
        del found[0]
    assert len(found) + told == len(added)
    assert sum(message.size for message in found) <= limit
    assert [message.number for message in found] == sorted(message.number for message in found)
    output = [message.number for message in found if message.channel == "iopub"]
    wanted = [number for number, (channel, _) in enumerate(added) if channel == "iopub"]
    assert output == wanted[len(wanted) - len(output) :]
    if output:
        assert sum(message.channel != "iopub" for message in found) == len(added) - len(wanted)


def test_the_gap_belongs_to_what_is_missed_last() -> None:
    backlog = Backlog(2000)
    assert backlog.add("iopub", parts(1, 100))
    assert not backlog.add("iopub", parts(2, 10_000))
    (gap,) = taken(backlog)
    assert json.loads(gap.parts[1]) == {"msg_id": "2"}
    assert backlog.add("iopub", parts(3, 100))
    (kept,) = taken(backlog)
    assert kept.parts == parts(3, 100)


def test_a_message_that_was_not_sent_is_first_again() -> None:
    backlog = Backlog(10**9)
    for number, channel in enumerate(("iopub", "shell", "iopub")):
        backlog.add(channel, parts(number, 1))  # type: ignore[arg-type]
    first = backlog.take()
    backlog.put_back(first)
    assert [message.number for message in taken(backlog)] == [0, 1, 2]
