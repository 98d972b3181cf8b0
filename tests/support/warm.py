"""Starts gateways as forks of one warm process (`warm_gateways`): for tests that need a gateway, not its start."""

from __future__ import annotations

import atexit
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from functools import cache
from pathlib import Path
from typing import IO

from tests.support.warm_gateways import MESSAGE_BYTES

_ONE_AT_A_TIME = threading.Lock()


class Forked:
    """A process as `subprocess.Popen` has it, as far as tests of a gateway use that."""

    def __init__(self, pid: int, ended: int, stdin: IO[bytes], stdout: IO[bytes]) -> None:
        self.pid = pid
        self.stdin = stdin
        self.stdout = stdout
        self.returncode: int | None = None
        self._ended = os.fdopen(ended, "rb")
        self._waiting = threading.Lock()

    def poll(self) -> int | None:
        """Return the exit code, negative for a signal; none while the process runs."""
        return self._look(0)

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit code when there is one.

        Raises
        ------
        subprocess.TimeoutExpired
            It still runs.
        """
        code = self._look(timeout)
        if code is None:
            raise subprocess.TimeoutExpired(f"gateway {self.pid}", timeout or 0)
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def _look(self, timeout: float | None) -> int | None:
        with self._waiting:
            if self.returncode is None and select.select([self._ended], [], [], timeout)[0]:
                self.returncode = int(self._ended.read())  # of nothing when the warm process was killed
                self._ended.close()
            return self.returncode


@cache
def _forker() -> tuple[socket.socket, subprocess.Popen[bytes]]:
    """Return this worker's warm process, which ends with the worker, and the socket to it."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in (ours, theirs):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, MESSAGE_BYTES)
    from tests.support.serving import environment

    with theirs:
        script = Path(__file__).with_name("warm_gateways.py")
        command = [sys.executable, "-P", str(script)]
        process = subprocess.Popen(command, stdin=theirs, stdout=subprocess.DEVNULL, env=environment())
    atexit.register(_end, ours, process)
    return ours, process


def _end(ours: socket.socket, process: subprocess.Popen[bytes]) -> None:
    ours.close()
    process.wait()


def start(arguments: list[str], *, log: int, folder: Path, environment: dict[str, str]) -> Forked:
    """Start a gateway with these arguments, whose standard streams are pipes and a log."""
    stdin, to_stdin = os.pipe()
    from_stdout, stdout = os.pipe()
    from_end, end = os.pipe()
    message = json.dumps({"arguments": arguments, "folder": str(folder), "environment": environment})
    try:
        with _ONE_AT_A_TIME:
            forker, _ = _forker()
            socket.send_fds(forker, [message.encode()], [stdin, stdout, log, end])
            pid = int(forker.recv(100))
    finally:
        for descriptor in (stdin, stdout, end):
            os.close(descriptor)
    return Forked(pid, from_end, os.fdopen(to_stdin, "wb", 0), os.fdopen(from_stdout, "rb"))
