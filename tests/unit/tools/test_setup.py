"""Setting a machine up.

Plan: packages that cannot be had are told and end nothing, and the browser, which Ubuntu does not package, is asked for
apart from the servers. An environment that is complete is left alone, one whose packages changed is updated, and one
that was left half-made or made with another interpreter is made anew; making and installing are left out here. Bytecode
is kept for all users, whatever the environment and the mask say.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
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


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], tuple[Path, list[str]]]:
    """Set an environment up, and return it with what was done: the steps are told, not taken."""
    folder = tmp_path / "environment"
    done: list[str] = []

    def create(_: Path) -> None:
        done.append("create")

    def install(_: Path) -> None:
        done.append("install")

    monkeypatch.setattr(setup, "_create", create)
    monkeypatch.setattr(setup, "_install", install)

    def set_up() -> tuple[Path, list[str]]:
        folder.mkdir(exist_ok=True)
        done.clear()
        setup.environment(folder)
        return folder, list(done)

    return set_up


def test_a_complete_environment_is_left_alone(environment: Callable[[], tuple[Path, list[str]]]) -> None:
    assert environment()[1] == ["create", "install"]
    assert environment()[1] == []


def test_changed_packages_are_installed_into_the_environment_that_is_there(
    environment: Callable[[], tuple[Path, list[str]]],
) -> None:
    folder, _ = environment()
    (folder / setup.STAMP).write_text(f"{setup.interpreter()}\nanother digest")
    assert environment()[1] == ["install"]
    assert environment()[1] == []


def test_another_interpreter_needs_another_environment(environment: Callable[[], tuple[Path, list[str]]]) -> None:
    folder, _ = environment()
    digest = (folder / setup.STAMP).read_text().splitlines()[1]
    (folder / setup.STAMP).write_text(f"3.9 /elsewhere\n{digest}")
    assert environment()[1] == ["create", "install"]


def test_an_interrupted_update_is_made_anew(
    environment: Callable[[], tuple[Path, list[str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = environment()
    (folder / setup.STAMP).write_text(f"{setup.interpreter()}\nanother digest")
    with monkeypatch.context() as patched:
        patched.setattr(setup, "_install", interrupted)
        with pytest.raises(KeyboardInterrupt):
            environment()
    assert environment()[1] == ["create", "install"]


def interrupted(_: Path) -> None:
    raise KeyboardInterrupt


def test_a_half_made_environment_is_made_anew_with_pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[dict[str, bool]] = []

    def without_ensurepip(folder: Path, **options: bool) -> None:
        made.append(options)
        (folder / "bin").mkdir(exist_ok=True)
        (folder / "bin" / "python").touch()  # Debian's python3 without python3-venv gets as far as this
        raise subprocess.CalledProcessError(1, ["python", "-m", "ensurepip"])

    monkeypatch.setattr(setup.venv, "create", without_ensurepip)
    for _ in range(2):
        with pytest.raises(SystemExit, match="apt-get install python3-venv"):
            setup.environment(tmp_path)
    assert made == [{"clear": True, "with_pip": True}] * 2


def test_the_interpreter_of_an_environment_is_the_one_it_was_made_with() -> None:
    ask = "from tools.setup import interpreter; print(interpreter())"
    base = Path(sys.base_prefix) / "bin" / f"python3.{sys.version_info[1]}"
    asked = subprocess.run([base, "-c", ask], cwd=setup.ROOT, check=True, capture_output=True, text=True)
    assert asked.stdout.strip() == setup.interpreter()


def test_bytecode_is_kept_for_all_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "imported.py").write_text("")
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    before = os.umask(0o077)
    try:
        setup.bytecode(Path(sys.executable), "-c", "import imported")
    finally:
        os.umask(before)
    (kept,) = (tmp_path / "__pycache__").iterdir()
    assert kept.stat().st_mode & 0o444 == 0o444
