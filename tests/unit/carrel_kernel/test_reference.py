"""The page of the kernel host names what there is, and nothing else: routes, errors, settings, series, log events."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import get_args

import carrel_kernel
from carrel_kernel import errors
from carrel_kernel.errors import HostError
from carrel_kernel.metrics import Metrics
from carrel_kernel.server import ROUTES
from carrel_kernel.settings import PREFIX, Settings
from carrel_wire.events import Outcome

SOURCES = Path(carrel_kernel.__file__).parent
PAGE = (Path(__file__).parents[3] / "docs" / "reference" / "kernel-host.md").read_text()


def section(title: str) -> str:
    """Return a section up to the next heading of any level."""
    return re.split(r"\n##+ ", re.split(rf"\n##+ {title}\n", PAGE)[1])[0]


def first_column(title: str) -> list[list[str]]:
    """Return the names in the first cell of each row of a section's table."""
    rows = [line.split("|")[1] for line in section(title).splitlines() if line.startswith("| ")]
    return [re.findall(r"`([^`]+)`", cell) for cell in rows[1:]]


def test_routes_and_scopes() -> None:
    rows = re.findall(r"^\| `(\w+) (/\S+)` \| (?:`(\w+)`|none) \|", section("Routes"), re.MULTILINE)
    assert rows == [(method, path.replace(":.+", ""), scope or "") for method, path, scope, _ in ROUTES]


def test_outcomes() -> None:
    assert [name for row in first_column("Outcomes") for name in row] == list(get_args(Outcome))


def test_errors() -> None:
    listed = {
        (int(status), code)
        for status, cells in re.findall(r"^\| (\d+) \| (.+) \|$", section("Errors"), re.MULTILINE)
        for code in re.findall(r"`(\w+)`", cells)
    }
    families = {"forbidden", "conflict", "no_space"}  # only their kinds are ever sent
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, HostError)]
    assert listed - {(405, "method_not_allowed")} == {
        (kind.status, kind.code) for kind in kinds if kind.code not in families
    }


def test_settings() -> None:
    rows = re.findall(r"^\| `(--[\w-]+)` \| `(\w+)` \|", section("Settings"), re.MULTILINE)
    assert rows == [("--" + item.name.replace("_", "-"), PREFIX + item.name.upper()) for item in fields(Settings)]


def test_series() -> None:
    names = {name for row in first_column("Metrics") for name in row}
    found = set()
    for family in Metrics().registry.collect():
        found.add(family.name + ("_total" if family.type == "counter" else ""))
    assert names == found


def test_log_events() -> None:
    assert {name for row in first_column("Log") for name in row} == set(_logged())


def _logged() -> Iterator[str]:
    for path in SOURCES.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Call(
                    func=ast.Attribute(value=ast.Name(id="_log")), args=[ast.Constant(value=str() as event), *_]
                ):
                    yield event
                case _:
                    continue
