"""Setting a machine up.

Plan: packages that cannot be had are told and end nothing, and the browser, which Ubuntu does not package, is asked for
apart from the servers.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from tools import setup


@pytest.fixture
def apt_calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Debian machine with no package installed and no network, seen as root; the file names the calls of apt-get."""
    calls = tmp_path / "calls"
    for name, script in (("dpkg-query", "exit 1"), ("apt-get", f"echo $* >>{calls}; exit 100")):
        program = tmp_path / name
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("os.geteuid", lambda: 0)
    return calls


def test_packages_that_cannot_be_had_end_nothing(apt_calls: Path, capsys: pytest.CaptureFixture[str]) -> None:
    setup.system_packages()
    update, servers, browser = apt_calls.read_text().splitlines()
    assert update.startswith("update")
    assert "redis-server" in servers
    assert "chromium" not in servers
    assert browser.endswith("chromium")
    told = capsys.readouterr().err
    assert "could not install postgresql" in told
    assert "could not install chromium" in told
