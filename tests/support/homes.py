"""A home folder of a test's own, and an environment without settings of this machine."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from carrel_gateway.settings import names


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return `~/.carrel` of a new home; the working folder is another, empty one."""
    known = {variable for variables in names().of.values() for variable in variables}
    for name in os.environ:
        if name.startswith(("CARREL_", "DSAGENT_")) or name in known:
            monkeypatch.delenv(name)
    folder = tmp_path / "home" / ".carrel"
    folder.mkdir(parents=True)
    (tmp_path / "here").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "here")
    return folder
