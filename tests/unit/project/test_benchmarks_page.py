"""The page of the benchmarks is written in parts, each by the run that measured it.

Plan: a part is put into an empty page, replaced without touching the other one, and always stands in the same order;
the page in the repository has all of them, and is what putting a part in anew would make of it.
"""

from __future__ import annotations

import re
from pathlib import Path

from tests.load.page import PARTS, TITLE, with_part, write_part

PAGE = Path(__file__).parents[3] / "docs" / "benchmarks.md"


def test_a_part_replaces_itself_alone(tmp_path: Path):
    path = tmp_path / "page.md"
    write_part(path, "Operator", "\n| a |\n|---|\n| 1 |\n")
    write_part(path, "Execution", "first\n\nlines")
    write_part(path, "Execution", "second\n\nlines")
    assert path.read_text() == f"{TITLE}\n## Execution\n\nsecond\n\nlines\n\n## Operator\n\n| a |\n|---|\n| 1 |\n"


def test_the_page_has_all_parts_as_they_are_written():
    page = PAGE.read_text()
    found = dict(re.findall(r"^## (.+)\n((?:(?!^## ).*\n?)*)", page, re.MULTILINE))
    assert tuple(found) == PARTS
    for name, text in found.items():
        assert with_part(page, name, text) == page
