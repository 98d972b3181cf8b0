"""The short form of the soak of the embedded product: kills from one seed while people work (`make soak` is longer).

Plan: the siege; and its witnesses see variables that are gone without a word of it in the log.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.support.siege import besiege_embedded
from tests.support.witness import check_state


@pytest.mark.timeout(400)
async def test_random_kills_lose_nothing_and_run_nothing_twice(tmp_path: Path):
    figures = await besiege_embedded(tmp_path, seconds=15, sessions=2, seed=20_261)
    assert figures.cells["ok"] > 0


def test_a_witness_notices_variables_that_are_gone():
    def log(*told: int | str) -> list[dict[str, Any]]:
        """The beginnings of cells by name, how many marks each then found, `lost`, and `as of` an event."""
        begun: list[str] = []
        events: list[dict[str, Any]] = []
        for seq, item in enumerate(told, 1):
            if item == "lost":
                event = {"type": "kernel.changed", "payload": {"lost_state": True}}
            elif isinstance(item, str) and item.startswith("as of "):
                event = {"type": "session.recovered", "payload": {"as_of_seq": int(item.removeprefix("as of "))}}
            elif isinstance(item, str):
                begun.append(item)
                event = {"type": "cell.intended", "payload": {"execution_id": item}}
            else:
                outputs = [{"output_type": "stream", "text": f"m0-abc {item}\n"}]
                event = {"type": "cell.outputs", "payload": {"execution_id": begun.pop(0), "outputs": outputs}}
            events.append({"seq": seq, "created_at": "", **event})
        return events

    check_state(log("a", 1, "b", 2, "lost", "c", 1, "d", 2))
    check_state(log("a", 1, "b", 2, "c", 1, "lost", "d", 2))  # the notice comes after the cell that found it so
    check_state(log("a", 1, "b", "lost", 2, "c", 1))  # and before the recovered output of the one that did not
    check_state(log("a", 1, "b", 2, "as of 2", "c", 2))  # what ran since that event is said to be lost
    for gone in (
        ("a", 1, "b", 2, "c", 1),
        ("a", 1, "b", 2, "c", 2),
        ("lost", "a", 1, "b", 2, "c", 1),
        ("a", 1, "lost", "b", 2, "c", 3, "d", 1),
        ("a", 1, "b", 2, "c", 1, "d", 2, "lost"),
        ("a", 1, "b", 2, "as of 4", "c", 1),
    ):
        with pytest.raises(AssertionError, match="without a word"):
            check_state(log(*gone))
