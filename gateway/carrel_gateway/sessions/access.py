"""Who may touch which session of their tenant: the one place that says so, for single ones and for lists.

One's own, those that are shared with a team of one's own, and with `tenant:read` or `tenant:admin` those of others.
Other tenants' are not there at all: every query is bound to a tenant. Which rights a route takes is
`identity.policy`'s.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final
from uuid import UUID

from sqlalchemy import ColumnElement, bindparam, or_, select, true

from carrel_gateway.context import Principal
from carrel_gateway.errors import NotFound, PermissionDenied
from carrel_gateway.identity import standing
from carrel_gateway.identity.rights import Right, Role, rights_of
from carrel_gateway.identity.tables import users
from carrel_gateway.sessions.tables import sessions
from carrel_gateway.sharing.service import SESSIONS, Level
from carrel_gateway.storage.database import Database, Transaction
from carrel_gateway.storage.steps import scalar

_OWNERS: Final = 10_000
_OWNER: Final = select(sessions.c.owner_id).where(
    sessions.c.tenant_id == bindparam("tenant_id"),
    sessions.c.id == bindparam("session_id"),
    sessions.c.status != "deleted",
)


class SessionAccess:
    """Checks single sessions. Remembers whose they are, which never changes, so that running code asks nothing more."""

    def __init__(self, database: Database, *, size: int = _OWNERS) -> None:
        self._database = database
        self._size = size
        self._owners: OrderedDict[tuple[UUID, UUID], UUID] = OrderedDict()

    async def require(self, principal: Principal, session_id: UUID, *, changes: bool) -> None:
        """Check that somebody may read a session, or change it.

        A session that is not there is not found by whoever may touch all of them, when it is used.

        Raises
        ------
        NotFound
            There is none, or it is another tenant's.
        PermissionDenied
            It is another person's.
        """
        if principal.may(Right.TENANT_ADMIN if changes else Right.TENANT_READ):
            return
        owner = await self._owner(principal.tenant_id, session_id)
        if owner is None:
            raise NotFound("there is no such session", code="session_not_found")
        if owner != principal.user_id and await self._level(principal, session_id) < _needed(changes=changes):
            raise PermissionDenied(
                "this session is another person's, and not shared so far with a team of yours; ask its owner",
                code="not_your_session",
            )

    async def _level(self, principal: Principal, session_id: UUID) -> Level:
        """Return what somebody may do by teams; never remembered, for a share may end at any moment."""
        tenant_id, user_id = principal.tenant_id, principal.user_id
        return await self._database.run(tenant_id, lambda: SESSIONS.level(tenant_id, session_id, user_id), write=False)

    async def _owner(self, tenant_id: UUID, session_id: UUID) -> UUID | None:
        key = (tenant_id, session_id)
        known = self._owners.get(key)
        if known is not None:
            self._owners.move_to_end(key)
            return known
        values = {"tenant_id": tenant_id, "session_id": session_id}
        owner: UUID | None = await self._database.run(tenant_id, lambda: scalar(_OWNER, values), write=False)
        if owner is not None:
            self._owners[key] = owner
            while len(self._owners) > self._size:
                self._owners.popitem(last=False)
        return owner


async def may_send_now(tx: Transaction, session_id: UUID, owner_id: UUID, user_id: UUID) -> bool:
    """Return whether a user, in person, may send messages to a session at this moment."""
    held = await _rights_now(tx, user_id)
    if not held >= {Right.SESSIONS_WRITE, Right.KERNEL_EXECUTE}:
        return False
    whole = user_id == owner_id or Right.TENANT_ADMIN in held
    level = SESSIONS.level(tx.tenant_id, session_id, user_id)
    return whole or await tx.run(level) >= _needed(changes=True)


async def may_read_now(tx: Transaction, session_id: UUID, user_id: UUID, maker_id: UUID | None) -> bool:
    """Return whether a user, with the person behind them, may read a session now; nobody may one that is not there."""
    held = await standing.in_person(tx, user_id, maker_id)
    owner_id = await tx.run(scalar(_OWNER, {"tenant_id": tx.tenant_id, "session_id": session_id}))
    if owner_id is None or Right.SESSIONS_READ not in held:
        return False
    whole = user_id == owner_id or Right.TENANT_READ in held
    level = SESSIONS.level(tx.tenant_id, session_id, user_id)
    return whole or await tx.run(level) >= _needed(changes=False)


async def _rights_now(tx: Transaction, user_id: UUID) -> frozenset[Right]:
    query = select(users.c.role).where(
        users.c.tenant_id == tx.tenant_id, users.c.id == user_id, users.c.disabled_at.is_(None)
    )
    role = await tx.connection.scalar(query)
    return rights_of(Role(role)) if role else frozenset()


def _needed(*, changes: bool) -> Level:
    return Level.WRITE if changes else Level.READ


def reader_of(principal: Principal) -> UUID | None:
    """Return the user to whose sessions, own and shared ones, a search is bound; none where all may be read."""
    return None if principal.may(Right.TENANT_READ) else principal.user_id


def readable(principal: Principal) -> ColumnElement[bool]:
    """Return the condition on rows of `sessions` that a list of a principal is held to."""
    reader_id = reader_of(principal)
    if reader_id is None:
        return true()
    shared = SESSIONS.levels(principal.tenant_id, reader_id)
    return or_(sessions.c.owner_id == reader_id, sessions.c.id.in_(select(shared.c.thing)))
