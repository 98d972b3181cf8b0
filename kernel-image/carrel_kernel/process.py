"""Kernel processes: started ahead as spares, made a kernel by handing over what the session decides, and ended.

A kernel leads its own process group, dies with the host (`PR_SET_PDEATHSIG`, set in `inside.child`), and inherits an
allow-list of the environment and no descriptors.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from carrel_kernel.errors import KernelUnavailable

_CHILD: Final = Path(__file__).parent / "inside" / "child.py"
_INHERITED: Final = ("PATH", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR", "USER", "LOGNAME", "SSL_CERT_FILE")
_MAX_REAPED: Final = 1000
SPARE_LINE: Final = b"spare\n"
READY_LINE: Final = b"ready\n"


class Handover(msgspec.Struct, frozen=True):
    """What makes a spare interpreter a kernel; sent through its standard input, never as an argument."""

    connection_file: str
    workspace: str
    env: dict[str, str]
    memory_limit_bytes: int | None
    memory_reserve_bytes: int = 0
    """The soft limit is this much below; see `memory`."""


def environment(caches: Path) -> dict[str, str]:
    """Return what a kernel process inherits, with caches of libraries in a private folder."""
    return {
        **{name: os.environ[name] for name in _INHERITED if name in os.environ},
        "IPYTHONDIR": str(caches / "ipython"),
        "MPLCONFIGDIR": str(caches / "matplotlib"),
        "JUPYTER_CONFIG_DIR": str(caches / "jupyter"),
        "JUPYTER_DATA_DIR": str(caches / "jupyter"),
        "JUPYTER_RUNTIME_DIR": str(caches / "jupyter"),
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
        "TERM": "dumb",
    }


class KernelProcess:
    """One interpreter: a spare until `hand_over`, a kernel afterwards."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    async def spawn(cls, caches: Path) -> KernelProcess:
        """Start an interpreter that imports what a kernel needs and then waits.

        Raises
        ------
        KernelUnavailable
            It cannot be started.
        """
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",  # the folder of the script is not the user's to import from
                str(_CHILD),
                str(os.getpid()),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                env=environment(caches),
                cwd="/",
                start_new_session=True,
            )
        except OSError as error:
            raise KernelUnavailable("no process can be started; the host may be out of processes or memory") from error
        return cls(process)

    @property
    def pid(self) -> int:
        """Process id, and id of its group."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return self._process.returncode is None

    async def spare(self) -> bool:
        """Wait until it could take a handover; false when it ended instead."""
        return await self._line() == SPARE_LINE

    async def hand_over(self, handover: Handover) -> None:
        """Make it a kernel and wait until its sockets listen.

        Raises
        ------
        KernelUnavailable
            It ended instead.
        """
        stdin = self._process.stdin
        if stdin is None:  # it is a pipe from `spawn`
            raise KernelUnavailable("the process takes no handover")
        with suppress(ConnectionError):  # its end shows below
            stdin.write(msgspec.json.encode(handover) + b"\n")
            await stdin.drain()
        if await self._line() != READY_LINE:
            raise KernelUnavailable("the kernel ended while it started; is its memory limit too small?")
        stdin.close()

    async def _line(self) -> bytes:
        stdout = self._process.stdout
        with suppress(ValueError):  # an endless line is no answer
            return await stdout.readline() if stdout else b""
        return b""

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process and what it started, as a terminal would."""
        if self.alive:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, number)

    async def wait(self) -> int:
        """Wait for the end; negative when a signal ended it. What is left of its group is killed."""
        code = await self._process.wait()
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        return code

    async def kill(self) -> None:
        """End it and its group at once."""
        self.signal(signal.SIGKILL)
        await self.wait()


def reap(own: set[int]) -> None:
    """Take the exit codes of ended children but for a set of process ids. Blocks only as long as there are any."""
    for _ in range(_MAX_REAPED):
        try:
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        if ended is None or ended.si_pid in own:
            return  # the event loop takes that one; the rest has time until the next call
        with suppress(ChildProcessError):
            os.waitpid(ended.si_pid, os.WNOHANG)
