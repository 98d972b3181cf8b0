"""Two gateways over one Postgres and one Redis are struck at random, and all they stand on, for a long time."""

from __future__ import annotations

import time
from pathlib import Path

from tests.soak.conftest import Record
from tests.support.fleet.siege import besiege_fleet


async def test_strikes_at_random(tmp_path: Path, seconds: float, record: Record):
    seed = time.time_ns() % 1_000_000
    figures = await besiege_fleet(tmp_path, seconds=seconds, sessions=3, seed=seed)
    assert figures.strikes.total() > seconds / 20
    record(
        "Two gateways: strikes at random",
        "Three sessions at work over HTTP through two gateways, each followed by a reader of its stream; every 0.5 to\n"
        "3 s a gateway, Postgres, Redis or a kernel host is killed, stopped for a while, cut off or slowed down.\n"
        f"Seed {seed}.",
        figures.rows(),
    )
