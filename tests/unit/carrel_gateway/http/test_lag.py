"""The lag of the event loop: a step that holds it up is seen, and for as long as a scrape may take to come."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress

from carrel_gateway import metrics
from carrel_gateway.lag import INTERVAL_SECONDS, WINDOW_SECONDS, Lag, watch_lag

HELD_UP_SECONDS = 0.3


def test_the_longest_of_the_window_is_kept_and_no_older_one():
    now = [0.0]
    lag = Lag(lambda: now[0])
    assert lag.note(0.2) == 0.2
    now[0] = 1.0
    assert [lag.note(0.01), lag.note(0.05), lag.note(0.02)] == [0.2, 0.2, 0.2]
    now[0] = WINDOW_SECONDS + 0.5
    assert lag.note(0.0) == 0.05
    now[0] = 2 * WINDOW_SECONDS + 2.0
    assert lag.note(0.001) == 0.001


async def test_a_step_that_blocks_is_measured():
    def counted() -> float:
        samples = [sample for metric in metrics.loop_late_seconds.collect() for sample in metric.samples]
        return next(sample.value for sample in samples if sample.name.endswith("_sum"))

    before = counted()
    watching = asyncio.create_task(watch_lag())
    await asyncio.sleep(2 * INTERVAL_SECONDS)
    time.sleep(HELD_UP_SECONDS)  # noqa: ASYNC251  this is the fault
    await asyncio.sleep(INTERVAL_SECONDS)
    watching.cancel()
    with suppress(asyncio.CancelledError):
        await watching
    assert metrics.loop_lag_seconds._value.get() >= HELD_UP_SECONDS - INTERVAL_SECONDS
    assert counted() >= before + HELD_UP_SECONDS - INTERVAL_SECONDS
