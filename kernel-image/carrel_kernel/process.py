"""Kernel processes: made ahead as spares, made a kernel by handing over what the session decides, and ended.

A kernel is a child of the host, whether it is a fresh interpreter or a fork (`forkserver`), leads its own process
group, dies with the host (`PR_SET_PDEATHSIG`, set in `inside.system`), and inherits an allow-list of the environment
and no descriptors but its stream to the host. On that stream the host sends two lines of JSON and the process answers
each with a word: where to listen → `listening`, the handover → `ready`. Then the stream is closed.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from carrel_kernel import authorities
from carrel_kernel.connection import ConnectionInfo
from carrel_kernel.errors import KernelUnavailable

_CHILD: Final = Path(__file__).parent / "inside" / "child.py"
_PROXIES: Final = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
_INHERITED: Final = (
    *("PATH", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR", "USER", "LOGNAME"),
    *_PROXIES,
    *(name.lower() for name in _PROXIES),
    *authorities.VARIABLES,
)
_MAX_REAPED: Final = 1000


class Start(msgspec.Struct, frozen=True):
    """The host's first line."""

    connection_file: str


class ProcessLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Limits of one process beside its memory; 0 is no limit of the host's own."""

    open_files: int = 0
    processes: int = 0
    """Of the user id, and its threads: the system counts no others."""
    file_bytes: int = 0


class Handover(msgspec.Struct, frozen=True):
    """What makes a spare process a kernel: the host's second line."""

    workspace: str
    env: dict[str, str]
    threads: int
    """Of numerical libraries."""
    memory_limit_bytes: int | None
    memory_reserve_bytes: int = 0
    """The soft limit is this much below; see `memory`."""
    limits: ProcessLimits = ProcessLimits()
    allowed_imports: tuple[str, ...] = ()
    """Which modules cells may import; without any, cells are not checked."""


def environment(caches: Path) -> dict[str, str]:
    """Return what a kernel process inherits, with caches of libraries in a private folder."""
    return {
        **{name: os.environ[name] for name in _INHERITED if name in os.environ},
        "IPYTHONDIR": str(caches / "ipython"),
        "MPLCONFIGDIR": str(caches / "matplotlib"),
        "JUPYTER_CONFIG_DIR": str(caches / "jupyter"),
        "JUPYTER_DATA_DIR": str(caches / "jupyter"),
        "JUPYTER_RUNTIME_DIR": str(caches / "jupyter"),
        "MIMALLOC_ARENA_EAGER_COMMIT": "0",  # pyarrow would map 1 GiB for its first text, which the memory limit counts
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
        "TERM": "dumb",
    }


def spawn(script: Path, arguments: list[str], theirs: socket.socket, caches: Path) -> subprocess.Popen[bytes]:
    """Start an interpreter with a socket as its standard input.

    Called in the main thread: a process dies with the *thread* that started it.

    Raises
    ------
    KernelUnavailable
        It cannot be started.
    """
    try:
        return subprocess.Popen(  # noqa: S603  this interpreter, files of this package
            [sys.executable, "-P", str(script), *arguments],  # -P: the script's folder is not to be imported from
            stdin=theirs.fileno(),
            stdout=subprocess.DEVNULL,
            env=environment(caches),
            cwd="/",
            start_new_session=True,
        )
    except OSError as error:
        raise KernelUnavailable("no process can be started; the host may be out of processes or memory") from error


class Exit:
    """The exit code of a child process, once there is one; negative when a signal ended it."""

    def __init__(self, pid: int, spawned: subprocess.Popen[bytes] | None = None) -> None:
        self.pid = pid
        self._spawned = spawned  # kept, or the module would reap the process when the object goes
        self._loop = asyncio.get_running_loop()
        self.code: asyncio.Future[int] = self._loop.create_future()
        try:
            self._descriptor = os.pidfd_open(pid)
        except (AttributeError, OSError):  # not Linux, or a sandbox without it
            threading.Thread(target=self._wait, name=f"exit-{pid}", daemon=True).start()
        else:
            self._loop.add_reader(self._descriptor, self._on_end)

    def _on_end(self) -> None:
        self._loop.remove_reader(self._descriptor)
        os.close(self._descriptor)
        self._done(_exit_code(self.pid))

    def _wait(self) -> None:
        code = _exit_code(self.pid)
        with suppress(RuntimeError):  # the loop has been closed
            self._loop.call_soon_threadsafe(self._done, code)

    def _done(self, code: int) -> None:
        if self._spawned:
            self._spawned.returncode = code
        if not self.code.done():
            self.code.set_result(code)


def _exit_code(pid: int) -> int:
    try:
        ended = os.waitid(os.P_PID, pid, os.WEXITED)
    except ChildProcessError:  # somebody else has taken it; that it has ended is all that can be known
        return -signal.SIGKILL
    if ended is None:  # only with WNOHANG
        return -signal.SIGKILL
    return ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status


class KernelProcess:
    """One process: a spare until `hand_over`, a kernel afterwards."""

    def __init__(
        self,
        pid: int,
        stream: socket.socket,
        *,
        spawned: subprocess.Popen[bytes] | None = None,
        fresh_because: str | None = None,
    ) -> None:
        self.pid = pid
        """Process id, and id of its group."""
        self.fresh_because = fresh_because
        """Why it is a fresh interpreter; none when it was forked."""
        self.info: ConnectionInfo
        """Where it listens; set by `listen`."""
        self._stream = stream
        self._exit = Exit(pid, spawned)
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter | None = None

    @classmethod
    def spawn(cls, caches: Path, because: str) -> KernelProcess:
        """Start a fresh interpreter.

        Raises
        ------
        KernelUnavailable
            It cannot be started.
        """
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                spawned = spawn(_CHILD, [str(os.getpid())], theirs, caches)
            except BaseException:
                ours.close()
                raise
        return cls(spawned.pid, ours, spawned=spawned, fresh_because=because)

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return not self._exit.code.done()

    async def listen(self, runtime: Path) -> None:
        """Wait until it has imported everything and its sockets listen, in a folder of the host's.

        Raises
        ------
        KernelUnavailable
            It ended instead.
        """
        self.info = ConnectionInfo(ip=str(runtime / secrets.token_hex(4)), key=secrets.token_hex(32))
        file = _write_connection_file(self.info)
        try:
            self._reader, self._writer = await asyncio.open_unix_connection(sock=self._stream)
            await self._say(Start(str(file)), answer=b"listening\n")
        finally:
            file.unlink(missing_ok=True)

    async def hand_over(self, handover: Handover) -> None:
        """Make it a kernel.

        Raises
        ------
        KernelUnavailable
            It ended instead.
        """
        await self._say(handover, answer=b"ready\n")
        self._hang_up()

    async def _say(self, line: msgspec.Struct, *, answer: bytes) -> None:
        if self._writer is None:
            raise KernelUnavailable("the process has been given up already")
        with suppress(ConnectionError, ValueError):  # its end shows below; an endless line is no answer
            self._writer.write(msgspec.json.encode(line) + b"\n")
            await self._writer.drain()
            if await self._reader.readline() == answer:
                return
        raise KernelUnavailable("the kernel ended while it started; is its memory limit too small?")

    def _hang_up(self) -> None:
        writer, self._writer = self._writer, None
        if writer:
            writer.close()
        else:
            self._stream.close()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process and what it started, as a terminal would."""
        if self.alive:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, number)

    async def wait(self) -> int:
        """Wait for the end; negative when a signal ended it. What is left of its group is killed."""
        code = await asyncio.shield(self._exit.code)
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        return code

    async def kill(self) -> None:
        """End it and its group at once, and remove its sockets."""
        self.signal(signal.SIGKILL)
        await self.wait()
        self._hang_up()
        if hasattr(self, "info"):
            self.info.remove_sockets()


def _write_connection_file(info: ConnectionInfo) -> Path:
    path = Path(f"{info.ip}.json")
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(msgspec.json.encode(info))
    return path


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
