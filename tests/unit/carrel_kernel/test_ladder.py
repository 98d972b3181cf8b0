"""The interrupt ladder: its rungs in time, stopped at any of them, and reported."""

from __future__ import annotations

import asyncio
import signal

import pytest

from carrel_kernel import ladder as module
from carrel_kernel.ladder import RUNGS, Ladder
from carrel_kernel.metrics import Metrics


def test_the_rungs_are_those_of_the_reference() -> None:
    assert RUNGS == ((0.0, signal.SIGINT), (2.0, signal.SIGINT), (5.0, signal.SIGKILL))


async def test_it_climbs_to_the_top(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RUNGS", tuple((seconds / 1000, number) for seconds, number in RUNGS))
    metrics = Metrics()
    sent: asyncio.Queue[signal.Signals] = asyncio.Queue()
    ladder = Ladder(sent.put_nowait, "timeout", metrics, "main")
    assert ladder.climbed == [signal.SIGINT]  # the first at once
    assert not ladder.killed
    async with asyncio.timeout(10):
        assert [await sent.get() for _ in RUNGS] == [signal.SIGINT, signal.SIGINT, signal.SIGKILL]
        await ladder._task
    assert ladder.killed
    assert str(ladder) == "SIGINT → SIGINT → SIGKILL"
    assert ladder.reason == "timeout"
    assert sent.empty()
    text = metrics.render().decode()
    assert 'carrel_kernel_signals_total{signal="SIGINT"} 2.0' in text
    assert 'carrel_kernel_signals_total{signal="SIGKILL"} 1.0' in text


async def test_it_climbs_no_further_when_stopped() -> None:
    sent: list[signal.Signals] = []
    ladder = Ladder(sent.append, "interrupted", Metrics(), "main")
    ladder.stop()
    await asyncio.wait([ladder._task], timeout=10)
    assert ladder._task.cancelled()
    assert sent == [signal.SIGINT]
    assert str(ladder) == "SIGINT"
    assert not ladder.killed
