"""The life of sessions: created, changed, archived, deleted with all that belongs to them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any, Final, Literal
from uuid import UUID

import structlog
from sqlalchemy.exc import IntegrityError

from carrel_gateway.audit.service import Action, AuditService
from carrel_gateway.context import Principal, ProcessContext
from carrel_gateway.errors import Conflict, NotFound, PermissionDenied
from carrel_gateway.executors.base import SessionRef
from carrel_gateway.history.service import HistoryService
from carrel_gateway.identity.rights import Right
from carrel_gateway.identity.service import DEFAULT_TENANT_ID, default_principal
from carrel_gateway.sessions import repository
from carrel_gateway.sessions.access import readable
from carrel_gateway.sessions.removal import DELETED, DeletionReason, Removal, Remover, object_prefix
from carrel_gateway.sessions.repository import Session
from carrel_gateway.storage.cache import notebook_key
from carrel_gateway.storage.database import Transaction
from carrel_gateway.storage.ids import new_id
from carrel_gateway.storage.paging import Cursors, Page
from carrel_wire.log import SessionChanged, SessionCreated

__all__ = ["Page", "Removal", "Session", "SessionService", "object_prefix"]

UNTITLED: Final = "Untitled"
MAX_TITLE: Final = 200
FORK_AGE: Final = timedelta(hours=1)
"""No fork takes so long to make."""
_SWEEP: Final = 100
_CURSORS: Final = Cursors[UUID]("sessions", UUID)

_log = structlog.get_logger(__name__)


class SessionService:
    """Sessions of one tenant."""

    def __init__(self, context: ProcessContext, principal: Principal) -> None:
        self._context = context
        self._principal = principal
        self._database = context.database
        self._history = HistoryService(context, principal)

    @cached_property
    def _audit(self) -> AuditService:
        return AuditService(self._context, self._principal)

    @cached_property
    def _remover(self) -> Remover:
        return Remover(self._context, self._principal)

    async def create(
        self,
        *,
        title: str | None = None,
        model: str | None = None,
        config: dict[str, Any] | None = None,
        session_id: UUID | None = None,
        agent: tuple[UUID, int] | None = None,
    ) -> Session:
        """Open a session; its log begins with `session.created`.

        Parameters
        ----------
        agent
            Id and version of the stored agent that model and configuration come from.

        Raises
        ------
        Conflict
            There is a session of this id already.
        QuotaReached
            There are as many as there may be.
        """
        now = datetime.now(UTC)
        session = Session(
            id=session_id or new_id(),
            tenant_id=self._principal.tenant_id,
            owner_id=self._principal.user_id,
            title=title or UNTITLED,
            status="active",
            model=model or self._context.settings.llm_model,
            config=config or {},
            last_seq=0,
            snapshot_id=None,
            suspended_at=None,
            forked_from=None,
            boot_id=None,
            stale_seq=None,
            created_at=now,
            updated_at=now,
        )
        try:
            async with self._database.transaction(self._principal.tenant_id) as tx:
                await self._context.quotas.admit_session(tx, session.owner_id)
                await repository.add(tx, session)
                agent_id, agent_version = agent or (None, None)
                created = SessionCreated(title=session.title, agent_id=agent_id, agent_version=agent_version)
                await self._history.append(session.id, [created], actor="user", tx=tx)
                return _required(await tx.run(repository.find(tx.tenant_id, session.id)))
        except IntegrityError as error:
            if session_id is None:
                raise
            raise Conflict("there is a session of this id already", code="session_exists") from error

    async def get(self, session_id: UUID) -> Session:
        """Return a session; one that was made with kubectl gets its log when it is first asked for.

        Raises
        ------
        NotFound
            There is none, or it is another tenant's.
        ExecutorFailed
            The cluster could not be asked for it.
        """
        return await self.recorded(session_id) or await self._take_up(session_id)

    async def recorded(self, session_id: UUID) -> Session | None:
        """Return a session that has a history; one that was made with kubectl and never used has none."""
        tenant_id = self._principal.tenant_id
        return await self._database.run(tenant_id, lambda: repository.find(tenant_id, session_id), write=False)

    async def is_known(self, session_id: UUID) -> bool:
        """Return whether the session has a row, be it that of a deletion that has begun."""
        return session_id in await self.known([session_id])

    async def known(self, session_ids: Sequence[UUID]) -> AbstractSet[UUID]:
        """Return those of these sessions that have a row, be it that of a deletion that has begun."""
        async with self._database.transaction(self._principal.tenant_id, write=False) as tx:
            return await repository.known(tx, session_ids)

    async def list(
        self,
        *,
        status: Literal["active", "archived"] | None = None,
        limit: int = 50,
        offset: int = 0,
        cursor: str | None = None,
    ) -> Page[Session]:
        """Return a page of the sessions that the principal may read, newest first.

        Raises
        ------
        InvalidInput
            The cursor is not one that a page had.
        """
        before = _CURSORS.read(cursor, status) if cursor else None
        async with self._database.transaction(self._principal.tenant_id, write=False) as tx:
            found = await repository.page(
                tx, readable(self._principal), status=status, before=before, limit=limit + 1, offset=offset
            )
        return _CURSORS.page(found, limit, lambda last: last.id, status)

    async def update(
        self,
        session_id: UUID,
        *,
        title: str | None = None,
        config: dict[str, Any] | None = None,
        model: str | None = None,
        expected: Callable[[Session], None] | None = None,
    ) -> Session:
        """Change what is given; `config` replaces the whole configuration.

        Parameters
        ----------
        expected
            Raises when the session is not as whoever changes it has seen it.

        Raises
        ------
        NotFound
            There is no such session.
        """
        named = {"title": title, "config": config, "model": model}
        changes = {name: value for name, value in named.items() if value is not None}

        def plan(session: Session) -> dict[str, Any]:
            if expected:
                expected(session)
            return changes

        return await self.revise(session_id, plan)

    async def revise(self, session_id: UUID, plan: Callable[[Session], dict[str, Any]]) -> Session:
        """Change what a plan makes of the session as it is at that moment; nobody changes it in between.

        Raises
        ------
        NotFound
            There is no such session.
        """
        await self.get(session_id)
        async with self._database.transaction(self._principal.tenant_id) as tx:
            await self._history.hold(tx, session_id)
            session = await self.require(tx, session_id)
            changes = plan(session)
            return await self._apply(tx, session_id, changes) if changes else session

    async def require(self, tx: Transaction, session_id: UUID) -> Session:
        """Return a session within a transaction.

        Raises
        ------
        NotFound
            There is no such session.
        """
        return _required(await tx.run(repository.find(tx.tenant_id, session_id)))

    async def place_state(
        self, tx: Transaction, session_id: UUID, snapshot_id: UUID | None, *, suspended: bool = False
    ) -> None:
        """Say where the session's state lies: in a snapshot, once it is suspended, or in its kernel again."""
        suspended_at = datetime.now(UTC) if suspended else None
        await repository.change(tx, session_id, {"snapshot_id": snapshot_id, "suspended_at": suspended_at})

    async def place_host(self, tx: Transaction, session_id: UUID, boot_id: str | None) -> None:
        """Say which boot of a kernel host has the session's state; none where the next one begins anew."""
        await repository.change(tx, session_id, {"boot_id": boot_id})

    async def at_rest(self, *, seconds: float, limit: int) -> Sequence[Session]:
        """Return sessions in which something happened since they were last `checked`, and nothing for so long."""
        before = datetime.now(UTC) - timedelta(seconds=seconds)
        async with self._database.transaction(self._principal.tenant_id, write=False) as tx:
            return await repository.at_rest(tx, before=before, limit=limit)

    async def checked(self, session_id: UUID, seq: int) -> None:
        """Take note that what happened up to this event is saved, or need not be."""
        async with self._database.transaction(self._principal.tenant_id) as tx:
            await repository.checked(tx, session_id, seq)

    async def begin_fork(self, source: Session, title: str | None) -> Session:
        """Make the row of a fork, which nobody sees until `finish_fork`; without it the sweep removes all of it."""
        now = datetime.now(UTC)
        fork = replace(
            source,
            id=new_id(),
            owner_id=self._principal.user_id,
            title=title or f"{source.title} (fork)"[:MAX_TITLE],
            status="deleted",
            last_seq=0,
            snapshot_id=None,
            suspended_at=None,
            forked_from=source.id,
            boot_id=None,
            stale_seq=None,
            created_at=now,
            updated_at=now,
        )
        async with self._database.transaction(self._principal.tenant_id) as tx:
            await self._context.quotas.admit_session(tx, fork.owner_id)  # before all is copied; what counts is the end
            await repository.add(tx, fork)
        return fork

    async def finish_fork(self, tx: Transaction, fork: Session, *, last_seq: int, snapshot_id: UUID | None) -> None:
        """Show a fork, whose log has so many events and whose state lies in a snapshot.

        Raises
        ------
        Conflict
            It took so long that it was taken for a leftover.
        QuotaReached
            There are as many sessions as there may be.
        """
        await self._context.quotas.admit_session(tx, fork.owner_id)
        if not await repository.publish(tx, fork.id, last_seq=last_seq, snapshot_id=snapshot_id):
            raise Conflict("the fork took too long and was given up; try again", code="fork_given_up")

    async def archive(self, session_id: UUID) -> Session:
        """Put a session away, and give its kernel back. What is running in it is lost.

        Raises
        ------
        NotFound
            There is no such session.
        """
        await self.get(session_id)
        session = await self._change(session_id, {"status": "archived"}, Action.SESSION_ARCHIVED)
        await self._context.kernels.release(self._ref(session))
        return session

    async def delete(self, session_id: UUID, expected: Callable[[Session], None] | None = None) -> Removal:
        """Delete a session with its kernel, files, artifacts and history.

        Returns what was removed. It is gone for callers at once; what cannot be removed now, because a part is away, is
        removed by `sweep`.

        Parameters
        ----------
        expected
            Raises when the session is not as whoever deletes it has seen it.

        Raises
        ------
        NotFound
            There is no such session.
        """
        session = await self.get(session_id)
        if session.owner_id != self._principal.user_id and not self._principal.may(Right.TENANT_ADMIN):
            raise PermissionDenied(
                "only its owner, or an administrator of the tenant, deletes a session", code="not_your_session"
            )
        async with self._database.transaction(self._principal.tenant_id) as tx:
            if expected:
                await self._history.hold(tx, session_id)
                expected(await self.require(tx, session_id))
            if not await repository.change(tx, session_id, {"status": "deleted"}):
                raise _not_found()
            await self._audit.record(tx, Action.SESSION_DELETED, session_id, owner=session.owner_id)
        return await self._removed(session, "asked")

    async def expire(self) -> int:
        """Delete the sessions that are older than the settings keep any, and return how many; archived ones too.

        A session is as old as its last event; one in which a run goes on is kept.
        """
        days = self._context.settings.retention_days
        if not days:
            return 0
        before, count = datetime.now(UTC) - timedelta(days=days), 0
        async with self._database.transaction(self._principal.tenant_id, write=False) as tx:
            found = await repository.quiet(tx, before=before, limit=_SWEEP)
        for session in found:
            async with self._database.transaction(self._principal.tenant_id) as tx:
                expired = await repository.expire(tx, session.id, before=before)
                if expired:
                    await self._audit.record(
                        tx, Action.SESSION_DELETED, session.id, owner=session.owner_id, reason="retention", days=days
                    )
            if expired:
                await self._removed(session, "retention")
                count += 1
        return count

    async def _removed(self, session: Session, reason: DeletionReason) -> Removal:
        DELETED.labels(reason).inc()
        await self._history.publish_gone(session.id)
        await self._context.cache.delete(notebook_key(session.tenant_id, session.id))
        return await self._remover.remove(self._ref(session))

    async def sweep(self) -> int:
        """Remove what is left of deleted sessions, and return of how many; the rest is tried again."""
        async with self._database.transaction(self._principal.tenant_id, write=False) as tx:
            found = await repository.deleted(tx, forks_before=datetime.now(UTC) - FORK_AGE, limit=_SWEEP)
        removed = 0
        for session in found:
            removed += (await self._remover.remove(self._ref(session))).complete
        return removed

    async def _take_up(self, session_id: UUID) -> Session:
        """Begin the history of a session that was made with kubectl; such a one is the default user's."""
        own = self._principal.tenant_id == DEFAULT_TENANT_ID
        name = await self._context.executor.made_elsewhere(session_id) if own else None
        if name is None:
            raise _not_found()
        try:
            session = await SessionService(self._context, default_principal()).create(title=name, session_id=session_id)
        except Conflict:  # deleted, or taken up by another gateway just now
            async with self._database.transaction(self._principal.tenant_id, write=False) as tx:
                return _required(await tx.run(repository.find(tx.tenant_id, session_id)))
        _log.info("session_taken_up", session=str(session_id), name=name)
        return session

    async def _change(self, session_id: UUID, changes: dict[str, Any], told: Action | None = None) -> Session:
        async with self._database.transaction(self._principal.tenant_id) as tx:
            session = await self._apply(tx, session_id, changes)
            if told:
                await self._audit.record(tx, told, session_id, owner=session.owner_id)
            return session

    async def _apply(self, tx: Transaction, session_id: UUID, changes: dict[str, Any]) -> Session:
        if not await repository.change(tx, session_id, changes):
            raise _not_found()
        await self._history.append(session_id, [SessionChanged(changes=changes)], actor="user", tx=tx)
        return await self.require(tx, session_id)

    def _ref(self, session: Session) -> SessionRef:
        return SessionRef(
            tenant_id=session.tenant_id,
            session_id=session.id,
            owner_id=session.owner_id,
            session_class=self._context.settings.session_class,
        )


def _required(session: Session | None) -> Session:
    if session is None:
        raise _not_found()
    return session


def _not_found() -> NotFound:
    return NotFound("there is no such session", code="session_not_found")
