"""Gateways as tests start them: forked from a warm process, and by the command; both are the same to whoever looks.

Plan: its own process under the id that it says; how signals and the end of standard input end it, in exit codes; a
start that fails; ids, keys and environment of its own, and nothing open of the process that it was forked from.
"""

from __future__ import annotations

import json
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest
from tests.support import serving, warm

HOW = pytest.mark.parametrize("cold", [True, False], ids=["command", "fork"])


@HOW
def test_a_gateway_is_a_process_of_its_own(tmp_path: Path, cold: bool) -> None:
    with pytest.raises(RuntimeError, match="CARREL_METRICS_PORT"):
        serving.start(tmp_path / "data", cold=cold, CARREL_METRICS_PORT="many")
    gateway = serving.start(tmp_path / "data", cold=cold, CARREL_API_KEY="k" * 40)
    process = gateway.process
    assert isinstance(process, subprocess.Popen if cold else warm.Forked)
    assert json.loads((gateway.data_dir / "server.json").read_text())["pid"] == process.pid
    assert gateway.key == "k" * 40
    assert Path(f"/proc/{process.pid}/cwd").readlink() == tmp_path
    with gateway.client() as client:
        assert client.get("/api/sessions").json()["items"] == []
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.01)
    assert process.poll() is None
    process.stdin.close()
    assert process.wait(45) == process.poll() == process.returncode == 0
    process.kill()
    process.stdout.close()


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_signal_ends_a_fork_as_it_does_a_process(tmp_path: Path, how: signal.Signals) -> None:
    assert serving.start(tmp_path / "data").stop(how) == -how


def opened_by(gateway: serving.Gateway) -> set[str]:
    found: set[str] = set()
    for link in Path(f"/proc/{gateway.process.pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            found.add(str(link.readlink()))
    return found


def test_forks_are_apart(tmp_path: Path) -> None:
    with serving.gateway(tmp_path / "one") as one, serving.gateway(tmp_path / "two") as two:
        assert one.key != two.key
        assert one.process.pid != two.process.pid
        made: set[str] = set()
        for gateway in (one, two):
            with gateway.client() as client:
                made |= {client.post("/api/sessions", json={}).json()["id"] for _ in range(3)}
            opened = opened_by(gateway)
            assert not any(str(two.data_dir) in name for name in opened if gateway is one)
            assert not any(str(one.data_dir) in name for name in opened if gateway is two)
        assert len(made) == 6
        assert len({name[-12:] for name in made}) == 6, "no two draw the same numbers"


def test_what_libraries_may_read_when_they_are_imported_needs_the_command(tmp_path: Path) -> None:
    with serving.gateway(tmp_path / "data", SSL_CERT_DIR="/nonexistent") as gateway:
        assert isinstance(gateway.process, subprocess.Popen)
