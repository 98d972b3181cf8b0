"""Long runs under faults and load. `make soak` runs them and writes their figures to `docs/soak.md`.

Each lasts `CARREL_SOAK_SECONDS` (600 unless set). The page is written anew when all of them have passed.
"""

from __future__ import annotations

import datetime as dt
import os
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.cluster.conftest import cluster, product  # noqa: F401  fixtures

PAGE = Path(__file__).parents[2] / "docs" / "soak.md"
Record = Callable[[str, str, list[tuple[str, str]]], None]
_sections: list[str] = []
_runs: list[str] = []


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker("soak")
            _runs.append(item.nodeid)


@pytest.fixture
def seconds() -> float:
    """How long to go on."""
    return float(os.environ.get("CARREL_SOAK_SECONDS", "600"))


@pytest.fixture
def record() -> Record:
    """Keep the figures of a run for the page: title, what was done, rows."""

    def keep(title: str, done: str, rows: list[tuple[str, str]]) -> None:
        table = ["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)]
        _sections.append("\n".join([f"## {title}", "", done, "", *table]))

    return keep


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    if exitstatus == 0 and _runs and len(_sections) == len(_runs):
        PAGE.write_text("\n\n".join([_head(), *_sections]) + "\n")


def _head() -> str:
    machine: Any = f"{os.cpu_count()} cores, Linux {platform.release()}, Python {platform.python_version()}"
    return (
        "# Soak runs\n\n"
        f"Results of the last `make soak`, on {dt.datetime.now(dt.UTC):%Y-%m-%d}, with {machine}. What is\n"
        "checked at the end of each is in `tests/support/witness.py`; a short form of each run is part of `make test`."
    )
