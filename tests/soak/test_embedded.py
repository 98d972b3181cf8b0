"""Gateway, kernel hosts and kernels of the embedded product are killed at random, for a long time."""

from __future__ import annotations

import time
from pathlib import Path

from tests.soak.conftest import Record
from tests.support.siege import besiege_embedded


async def test_random_kills(tmp_path: Path, seconds: float, record: Record):
    seed = time.time_ns() % 1_000_000
    figures = await besiege_embedded(tmp_path, seconds=seconds, sessions=4, seed=seed)
    assert figures.strikes.total() > seconds / 10
    record(
        "Embedded: kills at random",
        "Four sessions at work over HTTP; every 0.5 to 4 s SIGKILL for the gateway, a kernel host or a kernel.\n"
        f"Seed {seed}.",
        figures.rows(),
    )
