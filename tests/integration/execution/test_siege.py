"""The short form of the soak of the embedded product: kills from one seed while people work (`make soak` is longer)."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.siege import besiege_embedded


@pytest.mark.timeout(400)
async def test_random_kills_lose_nothing_and_run_nothing_twice(tmp_path: Path):
    figures = await besiege_embedded(tmp_path, seconds=15, sessions=2, seed=20_261)
    assert figures.cells["ok"] > 0
