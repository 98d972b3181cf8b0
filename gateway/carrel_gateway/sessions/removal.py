"""Removes what belongs to a session for good, and counts it: kernel, objects, rows. Decides nothing.

Kernel and objects go first, then the rows: a row is what says that something may be left. What was removed is recorded
in the audit log in numbers, without a word of what it was.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias
from uuid import UUID

import structlog
from prometheus_client import Counter

from carrel_gateway.audit.service import Action, AuditService
from carrel_gateway.context import Principal, ProcessContext
from carrel_gateway.errors import CarrelError
from carrel_gateway.executors.base import SessionRef
from carrel_gateway.sessions import repository

DeletionReason: TypeAlias = Literal["asked", "retention"]

DELETED: Final = Counter("carrel_sessions_deleted_total", "Sessions that were deleted, by reason.", ["reason"])

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Removal:
    """What was removed of a session."""

    session_id: UUID
    complete: bool
    """False while a part that is needed for it is away; then the sweep goes on with it."""
    rows: dict[str, int]
    """Table → rows."""
    objects: int


def object_prefix(tenant_id: UUID, session_id: UUID) -> str:
    """Return what the keys of all objects of a session begin with."""
    return f"{tenant_id}/{session_id}"


class Remover:
    """Removes sessions of one tenant that are marked as deleted."""

    def __init__(self, context: ProcessContext, principal: Principal) -> None:
        self._context = context
        self._audit = AuditService(context, principal)

    async def remove(self, ref: SessionRef) -> Removal:
        """Remove everything; what cannot be removed now, because a part is away, is left to the sweep."""
        try:
            return await self._remove(ref)
        except CarrelError as error:
            _log.warning("session_not_removed_yet", session=str(ref.session_id), code=error.code)
            return Removal(ref.session_id, complete=False, rows={}, objects=0)

    async def _remove(self, ref: SessionRef) -> Removal:
        await self._context.kernels.release(ref)
        objects = await self._context.objects.delete_prefix(object_prefix(ref.tenant_id, ref.session_id))
        async with self._context.database.transaction(ref.tenant_id) as tx:
            rows = await repository.count_rows(tx, ref.session_id)
            if await repository.remove(tx, ref.session_id):
                await self._audit.record(tx, Action.SESSION_REMOVED, ref.session_id, rows=rows, objects=objects)
        await self._context.database.forget()
        return Removal(ref.session_id, complete=True, rows=rows, objects=objects)
