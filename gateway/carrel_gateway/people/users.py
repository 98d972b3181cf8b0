"""The users of a tenant: listed, given roles, disabled; and service accounts: users that nobody logs in as."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from carrel_gateway.audit.service import Action, AuditService
from carrel_gateway.context import Principal, ProcessContext
from carrel_gateway.errors import NotFound
from carrel_gateway.identity import revocations
from carrel_gateway.identity.rights import Right, Role
from carrel_gateway.people import authority, repository
from carrel_gateway.people.repository import User
from carrel_gateway.storage.database import Transaction
from carrel_gateway.storage.ids import new_id
from carrel_gateway.storage.paging import Cursors, Page

_CURSORS: Final = Cursors[UUID]("users", UUID)


class UserService:
    """Users of one tenant, as one caller may see and change them."""

    def __init__(self, context: ProcessContext, principal: Principal) -> None:
        self._database = context.database
        self._bus = context.bus
        self._principal = principal
        self._audit = AuditService(context, principal)

    async def list(self, *, limit: int = 50, cursor: str | None = None) -> Page[User]:
        """Return users in the order in which they came; whoever may lead teams may see whom to take into one.

        Raises
        ------
        InvalidInput
            The cursor is not one that a page had.
        """
        self._principal.require(Right.TEAMS_WRITE)
        after = _CURSORS.read(cursor) if cursor else None
        async with self._database.transaction(self._principal.tenant_id, write=False) as tx:
            found = await repository.page_of_users(tx, after=after, limit=limit + 1)
        return _CURSORS.page(found, limit, lambda user: user.id)

    async def get(self, user_id: UUID) -> User:
        """Return a user, to whoever may list them.

        Raises
        ------
        NotFound
            There is no such user.
        """
        self._principal.require(Right.TEAMS_WRITE)
        async with self._database.transaction(self._principal.tenant_id, write=False) as tx:
            return await self._user(tx, user_id)

    async def add_service(self, name: str, role: Role) -> User:
        """Make a service account. It can do nothing until it is given a key."""
        user = User(new_id(), name, None, "service", role, None, datetime.now(UTC))
        async with self._database.transaction(self._principal.tenant_id) as tx:
            await repository.lock_tenant(tx)
            held = await authority.require_now(tx, self._principal, Right.PEOPLE_ADMIN)
            authority.require_covering(held, role)
            await repository.add_user(tx, user)
            await self._audit.record(tx, Action.USER_ADDED, user.id, kind=user.kind, role=role.value, name=name)
            return await self._user(tx, user.id)

    async def change(
        self,
        user_id: UUID,
        *,
        name: str | None = None,
        role: Role | None = None,
        disabled: bool | None = None,
        expected: Callable[[User], None] | None = None,
    ) -> User:
        """Change what is given. Whoever is disabled, or has another role, is that everywhere at once.

        Parameters
        ----------
        expected
            Raises when the user is not as the caller has seen it.

        Raises
        ------
        NotFound
            There is no such user.
        LastAdministrator
            The tenant would have no administrator.
        PermissionDenied
            The role has rights that the caller does not have.
        """
        async with self._database.transaction(self._principal.tenant_id) as tx:
            await repository.lock_tenant(tx)
            held = await authority.require_now(tx, self._principal, Right.PEOPLE_ADMIN)
            user = await self._user(tx, user_id)
            if expected:
                expected(user)
            changes: dict[str, Any] = {}
            if name is not None and name != user.name:
                changes["name"] = name
            if role is not None and role is not user.role:
                authority.require_covering(held, role)
                changes["role"] = role.value
            if disabled is not None and disabled != (user.disabled_at is not None):
                if not disabled:
                    authority.require_covering(held, role or user.role)
                changes["disabled_at"] = datetime.now(UTC) if disabled else None
            if not changes:
                return user
            if user.role is Role.ADMIN and ("role" in changes or changes.get("disabled_at")):
                await authority.require_other_administrator(tx, user_id)
            await repository.change_user(tx, user_id, changes)
            tx.after_commit(lambda: revocations.announce(self._bus, tx.tenant_id, user_id))
            told = {"disabled": disabled} if "disabled_at" in changes else {}
            told |= {key: value for key, value in changes.items() if key != "disabled_at"}
            await self._audit.record(tx, Action.USER_CHANGED, user_id, **told)
            return await self._user(tx, user_id)

    async def _user(self, tx: Transaction, user_id: UUID) -> User:
        user = await repository.find_user(tx, user_id)
        if user is None:
            raise NotFound("there is no such user", code="user_not_found")
        return user
