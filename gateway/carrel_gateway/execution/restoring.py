"""A snapshot on its way into a new kernel, whatever for: it may be busy, half restored, or another gateway's by now."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from carrel_gateway.context import Principal, ProcessContext
from carrel_gateway.errors import Conflict, Unavailable
from carrel_gateway.execution.placement import CATEGORY, remove
from carrel_gateway.executors.base import SessionRef
from carrel_gateway.history.service import HistoryService
from carrel_gateway.kernels.pool import HeldConnection
from carrel_gateway.snapshots.service import Snapshot, SnapshotService
from carrel_wire.log import FileDeleted, StateLoss
from carrel_wire.snapshots import RestoreReply, Unsaved

MAX_LOSSES: Final = 200
"""Names in one event of the log; its count says how many there are."""
_BUSY_SECONDS: Final = 120.0
"""Another gateway may restore the same session just now."""
_PAUSE_SECONDS: Final = 0.2


def losses(items: list[Unsaved]) -> list[StateLoss]:
    """Return the first of what is not there, as the log has it."""
    return [StateLoss(name=item.name, reason=item.reason, type=item.type) for item in items[:MAX_LOSSES]]


class Restoring:
    """Restores for one principal."""

    def __init__(self, context: ProcessContext, principal: Principal) -> None:
        self._history = HistoryService(context, principal)
        self._snapshots = SnapshotService(context, principal)

    async def restore(
        self,
        ref: SessionRef,
        connection: HeldConnection,
        snapshot: Snapshot,
        is_done: Callable[[], Awaitable[bool]],
        *,
        keep_files: bool = False,
    ) -> RestoreReply | None:
        """Restore a snapshot, and return what is back; none when another gateway has done it, and more (`is_done`).

        Raises
        ------
        CarrelError
            Something that is needed is away, or the snapshot cannot be restored.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _BUSY_SECONDS
        restarted = False
        while True:
            try:
                return await self._snapshots.restore(ref, connection, snapshot, keep_files=keep_files)
            except Conflict as error:
                if await is_done():
                    return None
                if error.code == "kernel_busy" and loop.time() < deadline:
                    await asyncio.sleep(_PAUSE_SECONDS)
                elif error.code == "kernel_changed" and not restarted:  # a restore that was broken off
                    restarted = True
                    await connection.restart()
                else:
                    raise Unavailable(f"the session could not be resumed: {error.message}", code=error.code) from error

    async def remove_deleted(self, ref: SessionRef, connection: HeldConnection, snapshot: Snapshot) -> None:
        """Remove the uploads that people have deleted since: a deleted file does not come back."""
        after = snapshot.seq
        while page := await self._history.events(ref.session_id, after=after):
            after = page[-1].seq
            for event in page:
                if isinstance(event.payload, FileDeleted) and event.payload.category == CATEGORY:
                    await remove(event.payload.name, connection)
