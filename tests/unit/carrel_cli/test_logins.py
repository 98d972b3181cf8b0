"""Logins on disk: for this user's eyes alone, whole or as before, and apart by server."""

from __future__ import annotations

import json
import stat
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from carrel_cli.logins import LoginUnusable, StoredLogin
from carrel_client import Login


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def login(number: int) -> Login:
    return Login(f"access{number}", f"refresh{number}", datetime.now(UTC) + timedelta(minutes=1), "tenant", "user")


def test_a_login_is_kept_for_this_user_alone(home: Path):
    stored = StoredLogin("https://carrel.test/")
    assert not stored.exists()
    first = login(1)
    stored.start(first)
    (file,) = (home / ".carrel" / "logins").glob("*.json")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    with StoredLogin("https://carrel.test").hold() as kept:
        assert kept == first
        stored.keep(login(2))
    with stored.hold() as kept:
        assert kept.refresh_token == "refresh2"
    assert not StoredLogin("https://other.test").exists()
    stored.forget()
    assert not stored.exists()
    with pytest.raises(LoginUnusable, match="log in again"), stored.hold():
        pass


def test_whoever_holds_it_is_alone():
    stored = StoredLogin("https://carrel.test")
    stored.start(login(0))
    seen: list[str] = []

    def exchange() -> None:
        own = StoredLogin("https://carrel.test")
        with own.hold() as kept:
            seen.append(kept.refresh_token)
            own.keep(login(len(seen)))

    threads = [threading.Thread(target=exchange) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [f"refresh{number}" for number in range(8)]


def test_what_cannot_be_read_is_said_in_one_line(home: Path):
    stored = StoredLogin("https://carrel.test")
    stored.start(login(1))
    (file,) = (home / ".carrel" / "logins").glob("*.json")
    for broken in ("", "[]", json.dumps({"access_token": "a"}), "{"):
        file.write_text(broken)
        with pytest.raises(LoginUnusable, match="log in again"), stored.hold():
            pass
