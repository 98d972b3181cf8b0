"""How a kernel host is started.

Plan: its environment is an allow-list, so that no provider key and no database address is in it, whatever the gateway's
holds; its command names this interpreter and what it was given; who is not root has no other account to give.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from carrel_gateway.executors import child
from carrel_gateway.executors.folders import Folders

OWN = {"HOME", "MPLCONFIGDIR", "IPYTHONDIR", "USER", "LOGNAME", "PYTHONPATH", "PYTHONUNBUFFERED"}
NAMES = st.text("ABCDEFGHIJKLMNOPQRSTUVWXYZ_", min_size=1, max_size=20)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(NAMES, st.just("secret"), max_size=5))
def test_the_environment_is_an_allow_list(tmp_path: Path, extra: dict[str, str]):
    folders = Folders(tmp_path, tmp_path, None)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**extra, "LLM_API_KEY": "secret", "CARREL_DATABASE_URL": "secret"}.items():
            patch.setenv(name, value)
        environment = child.environment(folders)
    assert set(environment) <= OWN | set(child.PASSED_ON)
    assert {name for name, value in environment.items() if value == "secret"} <= set(child.PASSED_ON)


def test_the_command_runs_this_interpreter(tmp_path: Path):
    command = child.command(
        socket=tmp_path / "k.sock",
        host_id="h",
        keys=tmp_path / "keys.json",
        workspaces=tmp_path,
        preload="numpy",
        allowed_imports="standard,json",
        orphan_seconds=60,
    )
    assert command[:3] == [sys.executable, "-m", "carrel_kernel"]
    assert f"unix:{tmp_path / 'k.sock'}" in command
    assert command[command.index("--orphan-timeout") + 1] == "60"
    assert command[command.index("--parent-pid") + 1] == str(os.getpid())
    assert command[command.index("--allowed-imports") + 1] == "standard,json"


def test_an_ordinary_user_has_no_other_account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert child.account_for_hosts(tmp_path) == (None, None)


def test_root_is_told_why_it_cannot_drop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    account, reason = child.account_for_hosts(closed / "data")
    assert account is None
    assert reason is not None
    assert "CARREL_DATA_DIR" in reason
