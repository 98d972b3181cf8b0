"""Makes a fork: a session with the history, files and state of another, under ids of its own.

Everything is copied to a row that nobody sees; one transaction then shows it. What a fault leaves over is removed by
the sweep of sessions.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final
from uuid import UUID

import msgspec

from carrel_gateway.artifacts.service import Artifact, ArtifactService
from carrel_gateway.context import Principal, ProcessContext
from carrel_gateway.history.service import HistoryService, StoredEvent
from carrel_gateway.sessions.service import Session, SessionService
from carrel_gateway.snapshots.service import Snapshot, SnapshotService
from carrel_gateway.storage.database import Transaction
from carrel_gateway.storage.ids import new_id
from carrel_wire.log import (
    ArtifactStored,
    AssistantMessage,
    FileDeleted,
    HeadMoved,
    LogPayload,
    MessageQueued,
    SessionForked,
    UserMessage,
)
from carrel_wire.snapshots import Manifest

_PAGE: Final = 500


class Forking:
    """Forks of one principal's sessions."""

    def __init__(self, context: ProcessContext, principal: Principal) -> None:
        self._database = context.database
        self._tenant_id = principal.tenant_id
        self._history = HistoryService(context, principal)
        self._sessions = SessionService(context, principal)
        self._snapshots = SnapshotService(context, principal)
        self._artifacts = ArtifactService(context, principal)

    async def fork(self, source: Session, *, title: str | None, snapshot: Snapshot | None) -> Session:
        """Return the new session: the history up to the snapshot, or all of it without one."""
        fork = await self._sessions.begin_fork(source, title)
        manifest = await self._snapshots.copy(snapshot, fork) if snapshot else None
        files = await self._artifacts.list(source.id)
        copies = {file.id: await self._artifacts.copy(file, fork.id) for file in files}
        last = snapshot.seq if snapshot else source.last_seq
        async with self._database.transaction(self._tenant_id) as tx:
            await self._show(tx, source, fork, last, copies, (snapshot, manifest) if snapshot and manifest else None)
            return await self._sessions.require(tx, fork.id)

    async def _show(
        self,
        tx: Transaction,
        source: Session,
        fork: Session,
        last: int,
        copies: dict[UUID, Artifact],
        state: tuple[Snapshot, Manifest] | None,
    ) -> None:
        own: Snapshot | None = None
        if state:
            own = replace(state[0], id=new_id(), session_id=fork.id, seq=last)
            await self._snapshots.adopt(tx, own, state[1])
        await self._sessions.finish_fork(tx, fork, last_seq=last, snapshot_id=own.id if own else None)
        for artifact in copies.values():
            await self._artifacts.adopt(tx, artifact)
        await self._copy_history(tx, source, fork, last, {old: new.id for old, new in copies.items()})
        forked = SessionForked(session_id=source.id, seq=last, snapshot_id=own.id if own else None)
        await self._history.append(fork.id, [forked], actor="user", tx=tx)

    async def _copy_history(
        self, tx: Transaction, source: Session, fork: Session, last: int, ids: dict[UUID, UUID]
    ) -> None:
        after = 0
        while after < last:
            page = await self._history.read(tx, source.id, after=after, limit=min(_PAGE, last - after))
            if not page:
                return
            after = page[-1].seq
            await self._history.adopt(tx, [transplanted(event, fork.id, ids) for event in page])


def transplanted(event: StoredEvent, session_id: UUID, ids: dict[UUID, UUID]) -> StoredEvent:
    """Return an event as one of another session; `ids` has the new ids of messages and files, and gets more."""
    payload = _renamed(event.payload, ids)
    return replace(event, session_id=session_id, id=ids.setdefault(event.id, new_id()), payload=payload)


def _renamed(payload: LogPayload, ids: dict[UUID, UUID]) -> LogPayload:
    """Return a payload with the ids that must be one session's alone; a version that was not copied keeps its own."""
    changes: dict[str, Any] = {}
    match payload:
        case UserMessage(message_id=message_id) | MessageQueued(message_id=message_id):
            changes = {"message_id": ids.setdefault(message_id, new_id())}
        case AssistantMessage(message_id=message_id, artifact_ids=artifact_ids):
            files = [ids.get(artifact_id, artifact_id) for artifact_id in artifact_ids]
            changes = {"message_id": ids.setdefault(message_id, new_id()), "artifact_ids": files}
        case HeadMoved(message_id=message_id):
            changes = {"message_id": ids.setdefault(message_id, new_id())}
        case ArtifactStored(artifact_id=artifact_id) | FileDeleted(artifact_id=artifact_id):
            changes = {"artifact_id": ids.get(artifact_id, artifact_id)}
        case _:
            pass
    return msgspec.structs.replace(payload, **changes) if changes else payload
