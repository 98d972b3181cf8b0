"""Snapshots of one tenant's sessions: saved from a kernel host, restored to one, copied for a fork.

A snapshot is there as a whole or not at all: its row is committed when all of its contents are stored. What a fault
leaves over is rows of contents that belong to none; `sweep` removes them with their objects. Nothing here unpickles
anything; contents are bytes.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Final, TypeAlias
from uuid import UUID

import msgspec
import structlog

from carrel_gateway.context import Principal, ProcessContext
from carrel_gateway.errors import CarrelError, Conflict, KernelLost, NotFound, Unavailable
from carrel_gateway.executors.base import SessionRef
from carrel_gateway.history.service import HistoryService
from carrel_gateway.kernels.pool import HeldConnection
from carrel_gateway.sessions.service import Session, SessionService, object_prefix
from carrel_gateway.snapshots import repository
from carrel_gateway.snapshots.repository import Snapshot
from carrel_gateway.snapshots.transfer import ContentChanged, compared, each
from carrel_gateway.storage.database import Transaction
from carrel_gateway.storage.ids import new_id
from carrel_wire.snapshots import Manifest, RestoreReply

__all__ = ["Snapshot", "SnapshotService"]

PENDING_AGE: Final = timedelta(hours=1)
"""No snapshot takes so long."""
_ATTEMPTS: Final = 3
_SWEEP: Final = 500
_TYPE: Final = "application/octet-stream"

_Put: TypeAlias = Callable[[UUID, str, int], Awaitable[None]]
"""Writes the object of a content: its id, digest and size."""

_log = structlog.get_logger(__name__)


class SnapshotService:
    """Snapshots of one tenant."""

    def __init__(self, context: ProcessContext, principal: Principal) -> None:
        self._context = context
        self._database = context.database
        self._objects = context.objects
        self._tenant_id = principal.tenant_id
        self._history = HistoryService(context, principal)
        self._sessions = SessionService(context, principal)

    async def find(self, snapshot_id: UUID) -> Snapshot:
        """Return a snapshot.

        Raises
        ------
        NotFound
        """
        async with self._database.transaction(self._tenant_id, write=False) as tx:
            found = await repository.find(tx, snapshot_id)
        if found is None:
            raise NotFound("there is no such snapshot", code="snapshot_not_found")
        return found

    async def latest(self, session_id: UUID) -> Snapshot | None:
        """Return the last snapshot of the session, wherever its state lies now; none was taken, or it was forgotten."""
        async with self._database.transaction(self._tenant_id, write=False) as tx:
            return await repository.latest(tx, session_id)

    async def forget(self, tx: Transaction, session_id: UUID) -> None:
        """Give the session's snapshot up: its state shall not come back."""
        await repository.remove_others(tx, session_id, None)
        await repository.retire(tx, list(await repository.ready_blobs(tx, session_id)))

    async def manifest(self, snapshot: Snapshot) -> Manifest:
        """Return what a snapshot holds.

        Raises
        ------
        NotFound
        Unavailable
            It cannot be read by this version.
        """
        async with self._database.transaction(self._tenant_id, write=False) as tx:
            text = await repository.manifest_of(tx, snapshot.id)
        if text is None:
            raise NotFound("there is no such snapshot", code="snapshot_not_found")
        try:
            return msgspec.json.decode(text, type=Manifest)
        except msgspec.DecodeError as error:
            raise Unavailable(
                "the snapshot is of another version of Carrel; resume it with that one, or reset the kernel",
                code="snapshot_unreadable",
            ) from error

    # ------------------------------------------------------------------ save

    async def save(self, session_id: UUID, connection: HeldConnection, *, suspends: bool) -> tuple[Snapshot, Manifest]:
        """Take a snapshot of the session's kernel and store it; it replaces the one before.

        Parameters
        ----------
        suspends
            From the commit on the session says that its state lies in this snapshot.

        Raises
        ------
        Conflict
            A cell runs (`kernel_busy`), or somebody else suspends the session.
        ContentChanged
            The workspace does not come to rest.
        CarrelError
            The kernel, the object store or the database is away.
        """
        for attempt in range(_ATTEMPTS):
            began = datetime.now(UTC)  # files that come later may not be in it
            seq = (await self._sessions.get(session_id)).last_seq  # and so may cells
            state = await connection.state()
            manifest = await connection.snapshot()
            try:
                await self._store(session_id, connection, manifest)
                snapshot = Snapshot(
                    id=new_id(),
                    session_id=session_id,
                    session_uid=manifest.session_uid,
                    owner=manifest.owner,
                    boot_id=state.boot_id,
                    incarnation=manifest.incarnation,
                    digest=manifest.digest,
                    seq=seq,
                    created_at=began,
                )
                return await self._record(snapshot, manifest, suspends=suspends), manifest
            except ContentChanged:
                if attempt + 1 == _ATTEMPTS:
                    raise
                _log.info("snapshot_again", session=str(session_id))
        raise AssertionError("the loop returns or raises")

    async def _store(self, session_id: UUID, connection: HeldConnection, manifest: Manifest) -> None:
        """Store the contents that the session does not have yet."""

        def chunks(sha256: str, size: int) -> AsyncIterator[bytes]:
            return compared(connection.get_blob(sha256), sha256, size)

        async def put(blob_id: UUID, sha256: str, size: int) -> None:
            try:
                await self._objects.put(self._key(session_id, blob_id), chunks(sha256, size), content_type=_TYPE)
            except NotFound as error:
                raise ContentChanged("a file was removed while it was saved; try again") from error

        await self._add(session_id, manifest, put)

    async def _add(self, session_id: UUID, manifest: Manifest, put: _Put) -> None:
        """Make rows for what is not there yet, have each object written, and make the rows ready."""
        async with self._database.transaction(self._tenant_id) as tx:
            there = set((await repository.ready_blobs(tx, session_id)).values())
            contents = {new_id(): (sha256, size) for sha256, size in manifest.blobs.items() if sha256 not in there}
            await repository.add_pending(tx, session_id, contents)
        try:
            await each(contents.items(), lambda item: put(item[0], *item[1]))
            async with self._database.transaction(self._tenant_id) as tx:
                await repository.make_ready(tx, list(contents))
        except BaseException:
            await self._give_up(list(contents))
            raise

    async def _give_up(self, ids: list[UUID]) -> None:
        """Have the sweep remove contents that belong to no snapshot; when that fails it finds them by their age."""
        try:
            async with self._database.transaction(self._tenant_id) as tx:
                await repository.abandon(tx, ids)
        except CarrelError as error:
            _log.warning("contents_not_given_up", code=error.code)

    async def _record(self, snapshot: Snapshot, manifest: Manifest, *, suspends: bool) -> Snapshot:
        async with self._database.transaction(self._tenant_id) as tx:
            await self._history.hold(tx, snapshot.session_id)
            session = await self._sessions.require(tx, snapshot.session_id)
            if session.snapshot_id is not None or session.status != "active":
                raise Conflict("the session is being suspended or put away by somebody else", code="suspending")
            if suspends:  # it is sealed only if nothing runs since
                snapshot = replace(snapshot, seq=session.last_seq)
            await self._keep(tx, snapshot, manifest)
            if suspends:
                await self._sessions.place_state(tx, session.id, snapshot.id)
        return snapshot

    async def _keep(self, tx: Transaction, snapshot: Snapshot, manifest: Manifest) -> None:
        """Insert the snapshot, whose contents must all be there, and give up what it does not need."""
        needed = set(manifest.blobs)
        unused: list[UUID] = []
        for blob_id, sha256 in (await repository.ready_blobs(tx, snapshot.session_id)).items():
            if sha256 in needed:
                needed.remove(sha256)
            else:
                unused.append(blob_id)
        if needed:  # another snapshot of the session has given them up meanwhile
            raise ContentChanged("another snapshot was taken at the same time; try again")
        await repository.add(tx, snapshot, msgspec.json.encode(manifest).decode())
        await repository.remove_others(tx, snapshot.session_id, snapshot.id)
        await repository.retire(tx, unused)

    # ------------------------------------------------------------------ restore

    async def restore(
        self, session: SessionRef, connection: HeldConnection, snapshot: Snapshot, *, keep_files: bool = False
    ) -> RestoreReply:
        """Bring a snapshot back to a kernel host, and return what is back and what is not.

        Parameters
        ----------
        keep_files
            Files that the workspace has stay as they are.

        Raises
        ------
        Conflict
            Something has run in the kernel already (`kernel_changed`).
        CarrelError
            The kernel, the object store or the database is away, or a content is gone.
        """
        manifest = await self.manifest(snapshot)
        state = await connection.state()
        if state.session_uid != connection.endpoint.session_uid:
            raise KernelLost("The kernel host is not bound to the session yet.")
        await self._context.kernels.claim(connection, boot_id=state.boot_id, snapshots_of=[snapshot.session_uid])
        missing = await connection.missing(manifest, keep_files=keep_files)
        async with self._database.transaction(self._tenant_id, write=False) as tx:
            ready = await repository.ready_blobs(tx, session.session_id)
        there = {sha256: blob_id for blob_id, sha256 in ready.items()}

        async def put(sha256: str) -> None:
            if sha256 not in there:
                raise _damaged()
            chunks = await self._objects.get(self._key(session.session_id, there[sha256]))
            await connection.put_blob(sha256, chunks)

        await each(missing, put)
        return await connection.restore(manifest, keep_files=keep_files)

    # ------------------------------------------------------------------ fork

    async def copy(self, snapshot: Snapshot, session: Session) -> Manifest:
        """Copy the contents of a snapshot to another session of the same owner."""
        manifest = await self.manifest(snapshot)
        async with self._database.transaction(self._tenant_id, write=False) as tx:
            ready = await repository.ready_blobs(tx, snapshot.session_id)
        theirs = {sha256: blob_id for blob_id, sha256 in ready.items()}

        async def put(blob_id: UUID, sha256: str, size: int) -> None:
            del size
            if sha256 not in theirs:
                raise _damaged()
            source = self._key(snapshot.session_id, theirs[sha256])
            await self._objects.copy(source, self._key(session.id, blob_id))

        await self._add(session.id, manifest, put)
        return manifest

    async def adopt(self, tx: Transaction, snapshot: Snapshot, manifest: Manifest) -> None:
        """Insert a snapshot whose contents were copied."""
        await self._keep(tx, snapshot, manifest)

    # ------------------------------------------------------------------ leftovers

    async def sweep(self) -> int:
        """Remove contents that belong to no snapshot, and return how many."""
        before = datetime.now(UTC) - PENDING_AGE
        async with self._database.transaction(self._tenant_id, write=False) as tx:
            found = await repository.unsettled(tx, pending_before=before, limit=_SWEEP)
        for blob_id, session_id in found:
            async with self._database.transaction(self._tenant_id) as tx:
                if not await repository.abandon(tx, [blob_id]):
                    continue  # it has become ready meanwhile
            await self._objects.delete(self._key(session_id, blob_id))
            async with self._database.transaction(self._tenant_id) as tx:
                await repository.settle(tx, blob_id)
        return len(found)

    def _key(self, session_id: UUID, blob_id: UUID) -> str:
        return f"{object_prefix(self._tenant_id, session_id)}/{blob_id}"


def _damaged() -> Unavailable:
    return Unavailable(
        "a content of the snapshot is gone; reset the kernel to go on without it", code="snapshot_damaged"
    )
