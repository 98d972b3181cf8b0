"""What is tracked and must not be.

Plan: in a repository of its own a link and a file that are ignored and were added all the same are named, and nothing
else; a folder that is no repository has none; this project has none.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from tools import tracked


def git(folder: Path, *arguments: str) -> None:
    subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True)


def test_what_is_ignored_and_tracked_is_named(tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet")
    (tmp_path / ".gitignore").write_text(".venv\n")
    (tmp_path / "kept.py").write_text("")
    (tmp_path / ".venv").symlink_to(tmp_path / "elsewhere")
    git(tmp_path, "add", "--all")
    assert tracked.ignored(tmp_path) == []
    git(tmp_path, "add", "--force", ".venv")
    assert tracked.ignored(tmp_path) == [".venv"]


def test_without_a_repository_there_is_nothing(tmp_path: Path) -> None:
    assert tracked.ignored(tmp_path) == []


def test_this_project_has_none() -> None:
    assert tracked.ignored() == []


def test_a_link_to_an_environment_is_ignored_like_one() -> None:
    assert ".venv" in (tracked.ROOT / ".gitignore").read_text().splitlines()
