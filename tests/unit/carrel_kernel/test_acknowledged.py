"""What is acknowledged is remembered, through restarts and torn lines, within bounds.

Plan
- Added, loaded again, the oldest forgotten first; the file is written anew before it grows without end.
- A line that the host's end has torn costs that line alone.
- Anything else in the file's place neither hangs nor stops the host.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from carrel_kernel import acknowledged as module
from carrel_kernel.acknowledged import Acknowledged


def loaded(path: Path) -> Acknowledged:
    found = Acknowledged(path)
    found.load()
    return found


def test_remembered_through_a_restart(tmp_path: Path) -> None:
    first = loaded(tmp_path / "file")
    first.add("a", "ok")
    first.add("b", None)
    first.add("a", "error")
    second = loaded(tmp_path / "file")
    assert "a" in second
    assert second.status("a") == "error"
    assert "b" in second
    assert second.status("b") is None
    assert "c" not in second


def test_a_torn_line_costs_that_line_alone(tmp_path: Path) -> None:
    path = tmp_path / "file"
    first = loaded(path)
    first.add("kept", "ok")
    whole = path.read_bytes()
    first.add("torn", "ok")
    full = path.read_bytes()
    for length in range(len(whole), len(full)):
        path.write_bytes(full[:length])
        again = loaded(path)
        assert "torn" not in again
        again.add("later", "ok")
        last = loaded(path)
        assert "kept" in last
        assert "later" in last


def test_the_oldest_are_forgotten_and_the_file_stays_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_REMEMBERED", 10)
    path = tmp_path / "file"
    found = loaded(path)
    for number in range(100):
        found.add(f"e{number}", "ok")
        assert len(path.read_bytes().split()) <= 21
    for each in (found, loaded(path)):
        assert [number for number in range(100) if f"e{number}" in each] == list(range(90, 100))
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_a_file_that_cannot_be_written_anew_keeps_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_REMEMBERED", 2)
    path = tmp_path / "file"
    (tmp_path / "file.new").mkdir()
    found = loaded(path)
    for number in range(6):
        found.add(f"e{number}", "ok")
    assert "e5" in loaded(path)


@pytest.mark.parametrize("kind", ["folder", "pipe", "link", "nonsense"])
def test_what_is_no_file_of_its_own_stops_nothing(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "file"
    other = tmp_path / "other"
    match kind:
        case "folder":
            path.mkdir()
        case "pipe":
            os.mkfifo(path)
        case "link":
            path.symlink_to(other)
        case _:
            path.write_bytes(b'\xff\n{}\n[1]\n{"id": 5}\n{"id": "a", "status": "fine"}\n\n')
    found = loaded(path)
    assert "a" not in found
    found.add("b", "ok")
    assert "b" in found
    assert not other.exists()
