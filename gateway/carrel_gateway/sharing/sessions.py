"""Sharing of sessions: with teams, to read or to work in, and with whoever has a link, to read.

Whoever has a session shares it: its owner, and administrators of the tenant. What members of a team may then do is
`sessions.access`'s.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final, TypeAlias
from uuid import UUID

from carrel_gateway.audit.service import Action, AuditService
from carrel_gateway.context import Principal, ProcessContext
from carrel_gateway.errors import NotFound, PermissionDenied
from carrel_gateway.identity import standing
from carrel_gateway.identity.presented import Kind, digest_of, make, tenant_of
from carrel_gateway.identity.rights import Right, Role
from carrel_gateway.sessions.access import may_read_now
from carrel_gateway.sessions.service import Session, SessionService
from carrel_gateway.sharing import links
from carrel_gateway.sharing.links import ShareLink
from carrel_gateway.sharing.service import SESSIONS, Access, ExpectedShare, TeamShare, no_share, require_team
from carrel_gateway.storage.database import Transaction
from carrel_gateway.storage.ids import new_id

ExpectedLink: TypeAlias = Callable[[ShareLink], None] | None
"""Raises when a link is not as somebody has seen it."""
_READING: Final = frozenset({Right.SESSIONS_READ})


class SessionSharing:
    """Says with whom sessions of one caller's are shared."""

    def __init__(self, context: ProcessContext, principal: Principal) -> None:
        self._database = context.database
        self._principal = principal
        self._sessions = SessionService(context, principal)
        self._audit = AuditService(context, principal)

    async def teams(self, session_id: UUID) -> list[TeamShare]:
        """Return the teams that a session is shared with.

        Raises
        ------
        NotFound
            There is no such session.
        """
        await self._sessions.get(session_id)
        async with self._database.transaction(self._principal.tenant_id, write=False) as tx:
            return (await SESSIONS.of(tx, [session_id]))[session_id]

    async def team(self, session_id: UUID, team_id: UUID) -> TeamShare:
        """Return how a session is shared with a team.

        Raises
        ------
        NotFound
            There is no such session, or it is not shared with the team.
        """
        found = next((share for share in await self.teams(session_id) if share.team_id == team_id), None)
        if found is None:
            raise no_share()
        return found

    async def share(
        self, session_id: UUID, team_id: UUID, access: Access, expected: ExpectedShare = None
    ) -> list[TeamShare]:
        """Share a session with a team, or share it otherwise; return all of its shares.

        Parameters
        ----------
        expected
            Raises when the share, or that there is none, is not what the caller has seen.

        Raises
        ------
        NotFound
            There is no such session or team.
        PermissionDenied
            It is another person's session, or a team that the caller does not belong to.
        """
        await self._own(session_id)
        async with self._database.transaction(self._principal.tenant_id) as tx:
            any_team = self._principal.may(Right.TENANT_ADMIN)
            await require_team(tx, team_id, self._principal.user_id, any_team=any_team)
            if expected:
                expected(await SESSIONS.one(tx, session_id, team_id, lock=True))
            await SESSIONS.put(tx, session_id, team_id, access)
            shares = (await SESSIONS.of(tx, [session_id]))[session_id]
            await self._audit.record(tx, Action.SESSION_SHARED, session_id, team=team_id, access=access)
            return shares

    async def unshare(self, session_id: UUID, team_id: UUID, expected: ExpectedShare = None) -> None:
        """Share a session with a team no longer.

        Parameters
        ----------
        expected
            Raises when the share is not as the caller has seen it.

        Raises
        ------
        NotFound
            There is no such session, or it is not shared with the team.
        """
        await self._own(session_id)
        async with self._database.transaction(self._principal.tenant_id) as tx:
            found = await SESSIONS.one(tx, session_id, team_id, lock=True)
            if found is None:
                raise no_share()
            if expected:
                expected(found)
            await SESSIONS.remove(tx, session_id, team_id)
            await self._audit.record(tx, Action.SESSION_UNSHARED, session_id, team=team_id)

    async def make_link(self, session_id: UUID, lifetime: timedelta) -> tuple[ShareLink, str]:
        """Make a link that shows a session for a time, and return it with its token, which nobody sees again."""
        await self._own(session_id)
        now = datetime.now(UTC)
        token = make(Kind.SHARE, self._principal.tenant_id)
        async with self._database.transaction(self._principal.tenant_id) as tx:
            by = await standing.now(tx, self._principal)
            link = ShareLink(
                new_id(),
                session_id,
                self._principal.user_id,
                now,
                now + lifetime,
                revoked_at=None,
                maker_id=by.maker_id,
            )
            await links.add(tx, link, digest_of(token).hex())
            await self._audit.record(tx, Action.LINK_MADE, session_id, link=link.id, expires_at=link.expires_at)
        return link, token

    async def links(self, session_id: UUID) -> list[ShareLink]:
        """Return the links of a session, newest first."""
        await self._own(session_id)
        async with self._database.transaction(self._principal.tenant_id, write=False) as tx:
            return await links.of_session(tx, session_id)

    async def link(self, session_id: UUID, link_id: UUID) -> ShareLink:
        """Return a link of a session, also one that shows nothing any more.

        Raises
        ------
        NotFound
            There is no such session or link.
        """
        await self._own(session_id)
        async with self._database.transaction(self._principal.tenant_id, write=False) as tx:
            return await self._link(tx, session_id, link_id)

    async def revoke_link(self, session_id: UUID, link_id: UUID, expected: ExpectedLink = None) -> None:
        """Have a link show nothing any more, from now on.

        Parameters
        ----------
        expected
            Raises when the link is not as the caller has seen it.

        Raises
        ------
        NotFound
            There is no such link, or it was revoked before.
        """
        await self._own(session_id)
        async with self._database.transaction(self._principal.tenant_id) as tx:
            if expected:
                expected(await self._link(tx, session_id, link_id, lock=True))
            if not await links.revoke(tx, session_id, link_id):
                raise _no_link()
            await self._audit.record(tx, Action.LINK_REVOKED, session_id, link=link_id)

    async def _link(self, tx: Transaction, session_id: UUID, link_id: UUID, *, lock: bool = False) -> ShareLink:
        found = await links.find(tx, session_id, link_id, lock=lock)
        if found is None:
            raise _no_link()
        return found

    async def _own(self, session_id: UUID) -> Session:
        session = await self._sessions.get(session_id)
        if session.owner_id != self._principal.user_id and not self._principal.may(Right.TENANT_ADMIN):
            raise PermissionDenied(
                "only the owner of a session, or an administrator of the tenant, shares it", code="not_your_session"
            )
        return session


def _no_link() -> NotFound:
    return NotFound("there is no such link", code="share_not_found")


async def opened(context: ProcessContext, token: str) -> tuple[Principal, ShareLink]:
    """Return the link of a token, and a principal who may read sessions of its tenant and nothing else.

    What is read with it must be of the link's session; see the routes.

    Raises
    ------
    NotFound
        There is none, it has expired or was revoked, or its maker may not read the session any more; which of it, is
        not told.
    """
    tenant_id = tenant_of(Kind.SHARE, token)
    link = None
    if tenant_id is not None:
        async with context.database.transaction(tenant_id, write=False) as tx:
            link = await links.find_open(tx, digest_of(token).hex())
            if link is not None and not await may_read_now(tx, link.session_id, link.user_id, link.maker_id):
                link = None
    if tenant_id is None or link is None:
        raise NotFound("this link shows nothing; ask whoever gave it to you for a new one", code="share_not_found")
    return Principal(tenant_id, link.user_id, Role.READONLY, _READING), link
