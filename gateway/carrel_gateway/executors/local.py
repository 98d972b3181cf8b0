"""Kernel hosts as child processes on Unix sockets: the embedded default, for one person on their own machine.

It isolates nothing and says so. What it does: hosts get an allow-list of the environment, run as an unprivileged user
when the gateway is root's, and cannot read the gateway's memory. A host leads its own session and outlives a gateway
that is killed; the next one finds it again by its record (`hosts/<session>.json`) and adopts it.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final
from uuid import UUID

import msgspec
import structlog

from carrel_gateway.errors import Unavailable
from carrel_gateway.executors import child, processes
from carrel_gateway.executors.base import HostEndpoint, Saved, SessionRef
from carrel_gateway.executors.folders import Folders
from carrel_gateway.executors.launcher import GRACE_SECONDS, Launched, Launcher
from carrel_gateway.executors.locks import HostLocks
from carrel_gateway.hardening import forbid_memory_access
from carrel_gateway.settings import Settings
from carrel_wire.tokens import KeySet

_OLD_SECONDS: Final = 86_400.0

_log = structlog.get_logger(__name__)


class HostRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What the next gateway must know of a host; a file of the gateway's alone."""

    session_id: UUID
    tenant_id: UUID
    owner_id: UUID
    host_id: str
    pid: int
    started: str
    socket: str

    @property
    def endpoint(self) -> HostEndpoint:
        """Where the host listens."""
        return HostEndpoint(
            session_uid=str(self.session_id),
            audience=self.host_id,
            url="http://kernel-host",
            unix_socket=Path(self.socket),
            folder=str(self.session_id),
        )


class LocalExecutor:
    """Starts, adopts and ends kernel hosts on this machine."""

    name = "local"
    binds = True

    def __init__(self, settings: Settings, folders: Folders) -> None:
        self._folders = folders
        self._launcher = Launcher(
            folders,
            start_seconds=settings.kernel_start_seconds,
            preload=settings.kernel_preload,
            allowed_imports=settings.kernel_allowed_imports,
            spare=settings.spare_kernel_host,
        )
        self._children: dict[UUID, Launched] = {}
        self._locks = HostLocks(folders.hosts / "lock")

    @classmethod
    async def open(cls, settings: Settings, keys: KeySet) -> LocalExecutor:
        """Make the folders, write the key set, and hide this process's memory.

        Raises
        ------
        Unavailable
            The folders cannot be made or belong to somebody else.
        """
        forbid_memory_access()
        try:
            folders = await asyncio.to_thread(_prepare, settings.data_dir, keys)
        except OSError as error:
            raise Unavailable("The data folder cannot be written; check CARREL_DATA_DIR and its owner.") from error
        executor = cls(settings, folders)
        await executor._launcher.open()
        return executor

    async def acquire(self, session: SessionRef) -> HostEndpoint:
        """Return the session's host, started when there is none."""
        async with self._locks.hold(session.session_id):
            record = await asyncio.to_thread(self._alive, session.session_id)
            if record is None:
                record = await self._start(session)
            return record.endpoint

    async def find(self, session: SessionRef) -> HostEndpoint | None:
        """Return the session's host when its process lives."""
        record = await asyncio.to_thread(self._alive, session.session_id)
        return record.endpoint if record else None

    async def made_elsewhere(self, session_id: UUID) -> str | None:  # noqa: ARG002  of the protocol
        """Return none: only this gateway makes child processes."""
        return None

    async def release(self, session: SessionRef) -> None:
        """End the session's host and remove its workspace."""
        async with self._locks.hold(session.session_id):
            await self._end(session.session_id)
            await asyncio.to_thread(self._folders.remove, session.session_id)

    async def suspend(self, session: SessionRef, audience: str, saved: Saved) -> None:  # noqa: ARG002  of the protocol
        """End the session's host; its workspace stays."""
        async with self._locks.hold(session.session_id):
            record = await asyncio.to_thread(self._read, self._record_path(session.session_id))
            if record and record.host_id == audience:
                await self._end(session.session_id)

    def suspension_requests(self) -> None:
        """Return none: nobody else ends hosts."""
        return

    async def sessions(self) -> Sequence[SessionRef]:
        """Return the sessions with a record of a host, alive or not: a dead one's spool may hold unsaved output."""
        records = await asyncio.to_thread(self._read_all)
        return [SessionRef(record.tenant_id, record.session_id, record.owner_id) for record in records]

    async def made_by_gateways(self) -> Sequence[SessionRef]:
        """Return none: what a gateway left is found by its record when the next one starts."""
        return ()

    async def old_workspaces(self) -> Sequence[UUID]:
        """Return the sessions with a workspace that nobody has touched for a day."""
        return await asyncio.to_thread(self._folders.untouched, _OLD_SECONDS)

    async def ping(self) -> None:
        """Check that the folder for sockets is there and can be written."""
        if not await asyncio.to_thread(os.access, self._folders.runtime, os.W_OK | os.X_OK):
            raise Unavailable("The folder for the kernels' sockets is gone or cannot be written.")

    async def aclose(self) -> None:
        """End all hosts; what they have not delivered stays in the workspaces and is read on at the next start."""
        records = await asyncio.to_thread(self._read_all)
        await asyncio.gather(self._launcher.aclose(), *(self._end(record.session_id) for record in records))
        for launched in self._children.values():  # those that somebody else has ended are only reaped
            launched.process.poll()
        self._locks.close()

    # ------------------------------------------------------------------ hosts

    async def _start(self, session: SessionRef) -> HostRecord:
        await self._end(session.session_id)  # one whose socket is gone cannot be talked to, and may still run
        launched = await self._launcher.take()
        self._children[session.session_id] = launched
        record = HostRecord(
            session_id=session.session_id,
            tenant_id=session.tenant_id,
            owner_id=session.owner_id,
            host_id=launched.host_id,
            pid=launched.process.pid,
            started=launched.started,
            socket=str(launched.socket),
        )
        await asyncio.to_thread(self._move_in, record)
        _log.info("kernel_host_started", session=str(session.session_id), pid=record.pid)
        return record

    def _move_in(self, record: HostRecord) -> None:
        self._folders.give(self._folders.workspace(record.session_id), mode=0o700)
        self._launcher.log_of(record.host_id).replace(self._folders.hosts / f"{record.session_id}.log")
        self._write(record)

    async def _end(self, session_id: UUID) -> None:
        record = await asyncio.to_thread(self._read, self._record_path(session_id))
        if record:
            await processes.end(record.pid, record.started, grace_seconds=GRACE_SECONDS)
            await asyncio.to_thread(self._folders.remove_sockets, record.host_id)
        launched = self._children.get(session_id)
        if launched:  # also one that never got its record
            await self._launcher.end(launched)
            self._children.pop(session_id, None)  # after it: whoever is stopped while waiting leaves it to the next
        await asyncio.to_thread(self._record_path(session_id).unlink, missing_ok=True)

    # ------------------------------------------------------------------ records

    def _record_path(self, session_id: UUID) -> Path:
        return self._folders.hosts / f"{session_id}.json"

    def _read_all(self) -> list[HostRecord]:
        paths = sorted(self._folders.hosts.glob("*.json"))
        return [record for path in paths if (record := self._read(path))]

    def _alive(self, session_id: UUID) -> HostRecord | None:
        record = self._read(self._record_path(session_id))
        alive = record and processes.is_alive(record.pid, record.started) and Path(record.socket).is_socket()
        return record if alive else None

    def _read(self, path: Path) -> HostRecord | None:
        try:
            return msgspec.json.decode(path.read_bytes(), type=HostRecord)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.DecodeError):
            _log.warning("host_record_unreadable", record=path.name)
            return None

    def _write(self, record: HostRecord) -> None:
        path = self._record_path(record.session_id)
        half = path.with_suffix(".tmp")
        half.write_bytes(msgspec.json.encode(record))
        half.chmod(0o600)
        half.replace(path)


def _prepare(data_dir: Path, keys: KeySet) -> Folders:
    account, shortcoming = child.account_for_hosts(data_dir)
    if shortcoming:
        _log.warning("kernels_run_as_root", reason=shortcoming)
    folders = Folders.make(data_dir, account)
    half = folders.keys.with_suffix(".tmp")
    half.write_bytes(msgspec.json.encode(keys))
    half.chmod(0o644 if account else 0o600)
    half.replace(folders.keys)
    return folders
