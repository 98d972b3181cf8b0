"""The runner of `make check`.

Plan: a program that cannot be built fails the one check that needs it, with the reason; no other check is kept from
running. Every check that is run passes or fails by its exit status, and its output is kept.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from tools import check


@pytest.fixture
def no_modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with Go and nowhere to get modules from."""
    go = tmp_path / "bin" / "go"
    go.parent.mkdir()
    go.write_text("#!/bin/sh\necho no module proxy >&2\nexit 1\n")
    go.chmod(0o755)
    monkeypatch.setenv("PATH", str(go.parent))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.mark.usefixtures("no_modules")
def test_a_tool_that_cannot_be_built_fails_its_own_check_alone() -> None:
    commands = dict(check.checks())
    assert {"ruff", "pyright", "helm lint"} <= set(commands)
    passed, written = check.outcome(commands["helm lint"], dict(os.environ))
    assert not passed
    assert "no module proxy" in written


@pytest.mark.parametrize("status", [0, 1])
def test_a_check_passes_by_its_status(status: int) -> None:
    command = [sys.executable, "-c", f"print('said'); raise SystemExit({status})"]
    assert check.outcome(command, dict(os.environ)) == (status == 0, "said\n")
