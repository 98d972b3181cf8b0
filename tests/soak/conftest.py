"""Long runs under faults and load. `make soak` runs them and writes their figures to `docs/soak.md`.

Each lasts `CARREL_SOAK_SECONDS` (600 unless set), or has a number of its own. One that passes replaces its section of
the page, which says when and where that was; one that fails leaves the last good one.
"""

from __future__ import annotations

import datetime as dt
import os
import platform
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.cluster.conftest import cluster, image, product  # noqa: F401  fixtures
from tests.cluster.operator.conftest import definitions, desks, hosts, pair, pools  # noqa: F401  fixtures

PAGE = Path(__file__).parents[2] / "docs" / "soak.md"
Record = Callable[[str, str, list[tuple[str, str]]], None]
HEAD = """# Soak runs

Results of `make soak`: of each run the last that passed. What is checked at the end of each is in
`tests/support/witness.py`, `tests/support/kernel_siege.py` and `tests/cluster/operator/siege.py`; a short form of each
run is part of `make test`.
"""
_recorded: dict[str, list[str]] = {}
"""Sections by title, of runs that have not ended yet, by test."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker("soak")


@pytest.fixture
def seconds() -> float:
    """How long to go on."""
    return float(os.environ.get("CARREL_SOAK_SECONDS", "600"))


@pytest.fixture
def record(request: pytest.FixtureRequest) -> Record:
    """Keep the figures of a run for the page, as a section: title, what was done, rows."""
    mine = _recorded.setdefault(request.node.nodeid, [])

    def keep(title: str, done: str, rows: list[tuple[str, str]]) -> None:
        machine = f"{os.cpu_count()} cores, Linux {platform.release()}, Python {platform.python_version()}"
        done = f"{done} On {dt.datetime.now(dt.UTC):%Y-%m-%d}, {machine}."
        table = ["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)]
        mine.append("\n".join([f"## {title}", "", done, "", *table]))

    return keep


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "call" and report.passed:
        for section in _recorded.pop(report.nodeid, []):
            PAGE.write_text(with_section(PAGE.read_text() if PAGE.exists() else HEAD, section))


def with_section(page: str, section: str) -> str:
    """Return the page with a section in the place of the one of its title, or at the end."""
    _, *sections = re.split(r"^(?=## )", page, flags=re.MULTILINE)
    title = section.partition("\n")[0]
    kept = [old.strip() for old in sections]
    if title not in (old.partition("\n")[0] for old in kept):
        kept.append(section)
    return "\n\n".join([HEAD.strip(), *(section if old.startswith(title + "\n") else old for old in kept)]) + "\n"
