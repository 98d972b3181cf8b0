"""The page of the benchmarks, in parts that are written one at a time: each run replaces its own part alone."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path

TITLE = """# Benchmarks

What `make bench` measured last, each part in one run. Times belong to the machine; the ratio in one run counts.
`python -m tests.load.bench`, `tests.load.gateway_bench`, `tests.load.database`, `tests.load.jobs`,
`tests.load.relay` and `tests.load.operator_bench` measure one part alone, and with `--write docs/benchmarks.md` put it
in here.
"""
PARTS = ("Execution", "Gateway", "Database", "Jobs", "Streams", "Operator")
"""Headings of the parts, in the order of the page."""


def machine() -> str:
    """Return what the parts say of the machine that they were measured on."""
    cores, python = os.cpu_count(), platform.python_version()
    return f"{cores} cores, {platform.machine()}, Linux {platform.release()}, Python {python}"


def with_part(page: str, heading: str, text: str) -> str:
    """Return the page with one part put in anew; parts that it does not know are dropped."""
    found = dict(re.findall(r"^## (.+)\n((?:(?!^## ).*\n?)*)", page, re.MULTILINE))
    found[heading] = f"\n{text.strip()}\n"
    parts = [f"\n## {name}\n\n{found[name].strip()}\n" for name in PARTS if name in found]
    return TITLE + "".join(parts)


def write_part(path: Path, heading: str, text: str) -> None:
    """Put one part of the page in anew."""
    path.write_text(with_part(path.read_text() if path.exists() else "", heading, text))
