"""Starts kernel hosts as child processes, ahead of their sessions: a host becomes a session's when it is bound.

Until then it ends with the gateway by itself, so nothing of it need be found again but a folder and a log. Whose a host
is, is `local`'s business.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from uuid import uuid4

import structlog

from carrel_gateway.errors import CarrelError, ExecutorFailed
from carrel_gateway.executors import child, processes
from carrel_gateway.executors.folders import SOCKET_NAME, Folders

ORPHAN_SECONDS: Final = 3600.0
"""A host that nobody has called for this long, and that runs nothing, ends itself."""
GRACE_SECONDS: Final = 10.0
FAILED_LOG: Final = "failed.log"
"""What the last host wrote that did not come up."""
_REFILL_SECONDS: Final = 1.0
"""A spare is made this long after the last one was taken: whoever took it shall have the processors for himself."""
_LOG: Final = ".host.log"
_POLL_SECONDS: Final = 0.01

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Launched:
    """A host that listens and is nobody's yet."""

    process: subprocess.Popen[bytes]
    host_id: str
    started: str
    """Start time of the process; see `processes`."""
    socket: Path


class Launcher:
    """Starts hosts, and keeps one ready when it shall."""

    def __init__(
        self, folders: Folders, *, start_seconds: float, preload: str, allowed_imports: str, spare: bool
    ) -> None:
        self._folders = folders
        self._start_seconds = start_seconds
        self._preload = preload
        self._allowed_imports = allowed_imports
        self._keeps_spare = spare
        self._spare: asyncio.Task[Launched] | None = None
        self._refill: asyncio.TimerHandle | None = None

    async def open(self) -> None:
        """Remove what hosts left that were still nobody's when an earlier gateway ended; begin to make a spare."""
        await asyncio.to_thread(self._tidy)
        self._prepare()

    def _tidy(self) -> None:
        for path in self._folders.hosts.glob(f"*{_LOG}"):
            with path.open("rb") as log, suppress(BlockingIOError):  # it is another gateway's, and lives
                fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._remove(path.name.removesuffix(_LOG))

    async def take(self) -> Launched:
        """Return a host: the spare, or one that is started now.

        Raises
        ------
        ExecutorFailed
            It cannot be started, ended, or did not listen in time.
        """
        spare, self._spare = self._spare, None
        self._prepare_later()
        if spare:
            try:
                return await self._still_there(await spare)
            except CarrelError as error:
                _log.warning("spare_host_failed", reason=error.message)
        return await self._launch()

    async def _still_there(self, spare: Launched) -> Launched:
        try:
            await self._listening(spare.process, spare.socket)
        except BaseException:
            await self.end(spare)
            raise
        return spare

    def log_of(self, host_id: str) -> Path:
        """Return the file that a host writes its log to."""
        return self._folders.hosts / f"{host_id}{_LOG}"

    async def aclose(self) -> None:
        """End the spare."""
        self._keeps_spare = False
        if self._refill:
            self._refill.cancel()
        spare, self._spare = self._spare, None
        if spare:
            spare.cancel()
            with suppress(CarrelError, asyncio.CancelledError):
                await self.end(await spare)

    # ------------------------------------------------------------------ the spare

    def _prepare_later(self) -> None:
        if self._refill:
            self._refill.cancel()
        self._refill = asyncio.get_running_loop().call_later(_REFILL_SECONDS, self._prepare)

    def _prepare(self) -> None:
        if self._keeps_spare and self._spare is None:
            self._spare = asyncio.create_task(self._launch())

    # ------------------------------------------------------------------ one host

    async def _launch(self) -> Launched:
        host_id = str(uuid4())
        socket = await asyncio.to_thread(self._make_room, host_id)
        spawning = asyncio.create_task(self._spawn(host_id, socket))
        try:
            launched = await asyncio.shield(spawning)
        except asyncio.CancelledError:  # the thread that makes the process is not stopped by it
            with suppress(CarrelError):
                await self.end(await spawning)
            raise
        try:
            await self._listening(launched.process, socket)
        except BaseException:
            await asyncio.to_thread(self.log_of(host_id).replace, self._folders.hosts / FAILED_LOG)
            await self.end(launched)
            raise
        return launched

    def _make_room(self, host_id: str) -> Path:
        folder = self._folders.sockets(host_id)
        self._folders.give(folder, mode=0o700)
        return folder / SOCKET_NAME

    async def _spawn(self, host_id: str, socket: Path) -> Launched:
        folders = self._folders
        account = folders.account
        log = await asyncio.to_thread(_open_log, self.log_of(host_id))
        try:
            # Popen in a thread, not asyncio's own: uvloop cannot start a process as another user.
            process = await asyncio.to_thread(
                subprocess.Popen[bytes],
                child.command(
                    socket=socket,
                    host_id=host_id,
                    keys=folders.keys,
                    workspaces=folders.workspaces,
                    preload=self._preload,
                    allowed_imports=self._allowed_imports,
                    orphan_seconds=ORPHAN_SECONDS,
                ),
                env=child.environment(folders),
                cwd=socket.parent,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,  # a file, not a pipe: the host must be able to write when this process is gone
                start_new_session=True,
                umask=0o077,
                user=account.uid if account else None,
                group=account.gid if account else None,
                extra_groups=() if account else None,
            )
        except OSError as error:
            raise ExecutorFailed("The kernel host could not be started; is the interpreter still there?") from error
        finally:
            os.close(log)
        return Launched(process, host_id, processes.start_time(process.pid) or "gone", socket)

    async def _listening(self, process: subprocess.Popen[bytes], socket: Path) -> None:
        try:
            async with asyncio.timeout(self._start_seconds):
                while process.poll() is None:
                    with suppress(OSError):
                        _, writer = await asyncio.open_unix_connection(socket)
                        writer.close()
                        return
                    await asyncio.sleep(_POLL_SECONDS)
        except TimeoutError as error:
            raise ExecutorFailed(
                f"The kernel host did not listen within {self._start_seconds:g} s; "
                "raise CARREL_KERNEL_START_SECONDS on a slow machine.",
                reason="Starting",
            ) from error
        raise ExecutorFailed(
            f"The kernel host ended with code {process.returncode} while it started; "
            f"hosts/{FAILED_LOG} in the data folder says why.",
            reason="Crashed",
        )

    async def end(self, host: Launched) -> None:
        """End a host that this process has started, and reap it."""
        await processes.end(host.process.pid, host.started, grace_seconds=GRACE_SECONDS)
        await asyncio.to_thread(host.process.wait)
        await asyncio.to_thread(self._remove, host.host_id)

    def _remove(self, host_id: str) -> None:
        self.log_of(host_id).unlink(missing_ok=True)
        self._folders.remove_sockets(host_id)


def _open_log(path: Path) -> int:
    """Return the descriptor of a new log, locked: the lock is the host's as soon as it has the descriptor."""
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
    fcntl.flock(log, fcntl.LOCK_EX)
    return log
