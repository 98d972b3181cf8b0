"""Postgres and Redis of the fleet: servers of its own, which can be killed, stopped for a while, and come back.

This Postgres writes through to the disk, as a real one does: what it acknowledged is there after SIGKILL.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from tests.support.servers import LOGIN, Postgres, free_port, init_postgres, make_template, start_postgres, start_redis
from tests.support.servers import stop as end

_BACK_SECONDS = 60.0


class Server(Protocol):
    """What the fleet asks of each."""

    name: str
    port: int

    def kill(self) -> None:
        """Kill all of its processes, and start it again."""
        ...

    def freeze(self, seconds: float) -> None:
        """Stop all of its processes, and let them go on after a time; blocks for that time."""
        ...

    def stop(self) -> None:
        """End it."""
        ...


class DurablePostgres:
    """A Postgres with one database of the gateways."""

    name = "Postgres"

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="carrel-fleet-postgres-"))
        self._binaries = init_postgres(self._folder)
        self.port = free_port()
        self._process = self._start()
        self.server = Postgres(self.port, self._binaries)
        make_template(self.server)
        self.database = self.server.clone()

    def url(self, port: int) -> str:
        """Return the address of the database for the gateways' login, by way of a port."""
        return f"postgresql://{LOGIN}@127.0.0.1:{port}/{self.database}"

    def kill(self) -> None:
        """Kill all of its processes at once, and start it again: it recovers from its write-ahead log."""
        signal_all(family_of(self._process.pid), signal.SIGKILL)
        self._process.wait(10)
        _children_gone(self._folder)
        self._process = self._start()

    def freeze(self, seconds: float) -> None:
        """Stop all of its processes for a time."""
        _freeze(self._process, seconds)

    def stop(self) -> None:
        """End it and remove its folder."""
        end(self._process, signal.SIGINT)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _start(self) -> subprocess.Popen[bytes]:
        deadline = time.monotonic() + _BACK_SECONDS
        while True:
            try:
                return start_postgres(self._folder, self._binaries, self.port, ("shared_buffers=32MB",))
            except RuntimeError:  # a process of the one before is still going away
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)


class OwnRedis:
    """A Redis that keeps nothing: after a kill it is empty."""

    name = "Redis"

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.port = free_port()
        self._process = start_redis(self.port, folder)

    def url(self, port: int) -> str:
        """Return its address, by way of a port."""
        return f"redis://127.0.0.1:{port}/0"

    def kill(self) -> None:
        """Kill it, and start an empty one."""
        signal_all(family_of(self._process.pid), signal.SIGKILL)
        self._process.wait(10)
        self._process = start_redis(self.port, self._folder)

    def freeze(self, seconds: float) -> None:
        """Stop it for a time."""
        _freeze(self._process, seconds)

    def stop(self) -> None:
        """End it."""
        end(self._process)


def _freeze(process: subprocess.Popen[bytes], seconds: float) -> None:
    family = family_of(process.pid)
    signal_all(family, signal.SIGSTOP)
    try:
        time.sleep(seconds)
    finally:
        signal_all(family, signal.SIGCONT)


def family_of(pid: int) -> list[int]:
    """Return a process and its children; those of Postgres are sessions of their own and no group."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            found += [int(child) for child in task.read_text().split()]
    return found


def signal_all(pids: list[int], how: signal.Signals) -> None:
    """Send a signal to each that is still there."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, how)


def _children_gone(folder: Path) -> None:
    """Wait until no process works in the folder, and take away the file that says that one does."""
    deadline = time.monotonic() + _BACK_SECONDS
    while time.monotonic() < deadline and any(_works_in(entry, folder) for entry in Path("/proc").glob("[0-9]*")):
        time.sleep(0.05)
    (folder / "data" / "postmaster.pid").unlink(missing_ok=True)


def _works_in(process: Path, folder: Path) -> bool:
    with suppress(OSError):
        return (process / "cwd").readlink() == folder / "data"
    return False
