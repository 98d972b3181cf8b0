"""Teams: founded by whoever may, led by their administrators, who say who belongs to them."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from typing import Final, TypeAlias
from uuid import UUID

from sqlalchemy.exc import IntegrityError

from carrel_gateway.audit.service import Action, AuditService
from carrel_gateway.context import Principal, ProcessContext
from carrel_gateway.errors import Conflict, NotFound, PermissionDenied
from carrel_gateway.identity import revocations
from carrel_gateway.identity.rights import Right, Role
from carrel_gateway.people import authority, repository
from carrel_gateway.people.repository import Member, Team
from carrel_gateway.storage.database import Transaction
from carrel_gateway.storage.ids import new_id
from carrel_gateway.storage.paging import Cursors, Page

Expected: TypeAlias = Callable[[tuple[Team, list[Member]]], None] | None
"""Raises when a team with its members is not as somebody has seen it."""
ExpectedMember: TypeAlias = Callable[[Member | None], None] | None
"""Raises when a member of a team, or that somebody is none, is not as somebody has seen it."""
_CURSORS: Final = Cursors[UUID]("teams", UUID)


class TeamService:
    """Teams of one tenant, as one caller may see and change them."""

    def __init__(self, context: ProcessContext, principal: Principal) -> None:
        self._database = context.database
        self._bus = context.bus
        self._principal = principal
        self._audit = AuditService(context, principal)

    async def list(self, *, limit: int = 50, cursor: str | None = None) -> Page[Team]:
        """Return the caller's teams; of an administrator of the tenant all of them.

        Raises
        ------
        InvalidInput
            The cursor is not one that a page had.
        """
        self._principal.require(Right.PROFILE_READ)
        after = _CURSORS.read(cursor) if cursor else None
        async with self._database.transaction(self._principal.tenant_id, write=False) as tx:
            everybodys = self._principal.may(Right.PEOPLE_ADMIN)
            found = await repository.page_of_teams(
                tx, self._principal.user_id, everybodys=everybodys, after=after, limit=limit + 1
            )
        return _CURSORS.page(found, limit, lambda team: team.id)

    async def get(self, team_id: UUID) -> tuple[Team, list[Member]]:
        """Return a team and its members.

        Raises
        ------
        NotFound
            There is no such team.
        PermissionDenied
            The caller is no member of it.
        """
        self._principal.require(Right.PROFILE_READ)
        async with self._database.transaction(self._principal.tenant_id, write=False) as tx:
            team = await self._team(tx, team_id)
            if team.role is None and not self._principal.may(Right.PEOPLE_ADMIN):
                raise PermissionDenied("you are no member of that team")
            return team, await repository.members(tx, team_id)

    async def member(self, team_id: UUID, user_id: UUID) -> Member:
        """Return a member of a team.

        Raises
        ------
        NotFound
            There is no such team, or no such member.
        PermissionDenied
            The caller is no member of it.
        """
        _, members = await self.get(team_id)
        found = next((member for member in members if member.user_id == user_id), None)
        if found is None:
            raise _no_member()
        return found

    async def found(self, name: str) -> Team:
        """Found a team, with the caller as its administrator.

        Raises
        ------
        Conflict
            There is one of this name.
        """
        team_id = new_id()
        with _named(name):
            async with self._database.transaction(self._principal.tenant_id) as tx:
                await authority.require_now(tx, self._principal, Right.TEAMS_WRITE)
                await repository.add_team(tx, team_id, name)
                await repository.put_member(tx, team_id, self._principal.user_id, Role.ADMIN)
                self._tell(tx, [self._principal.user_id])
                await self._audit.record(tx, Action.TEAM_FOUNDED, team_id, name=name)
                return await self._team(tx, team_id)

    async def rename(self, team_id: UUID, name: str, expected: Expected = None) -> Team:
        """Give a team another name.

        Parameters
        ----------
        expected
            Raises when the team is not as the caller has seen it.

        Raises
        ------
        NotFound
            There is no such team.
        Conflict
            There is one of this name.
        """
        with _named(name):
            async with self._database.transaction(self._principal.tenant_id) as tx:
                await self._compare(tx, await self._lead(tx, team_id), expected)
                await repository.rename_team(tx, team_id, name)
                await self._audit.record(tx, Action.TEAM_RENAMED, team_id, name=name)
                return await self._team(tx, team_id)

    async def delete(self, team_id: UUID, expected: Expected = None) -> None:
        """Delete a team. What was shared with it is not shared any more; it stays its owners'.

        Parameters
        ----------
        expected
            Raises when the team is not as the caller has seen it.
        """
        async with self._database.transaction(self._principal.tenant_id) as tx:
            team = await self._lead(tx, team_id)
            await self._compare(tx, team, expected)
            self._tell(tx, [member.user_id for member in await repository.members(tx, team_id)])
            await repository.remove_team(tx, team_id)
            await self._audit.record(tx, Action.TEAM_DELETED, team_id, name=team.name)

    async def put_member(self, team_id: UUID, user_id: UUID, role: Role, expected: ExpectedMember = None) -> Member:
        """Make somebody a member, or give a member another role.

        Parameters
        ----------
        expected
            Raises when the member, or none, is not what the caller has seen.

        Raises
        ------
        NotFound
            There is no such team, or no such user.
        LastAdministrator
            It would take the role from the team's last administrator.
        """
        async with self._database.transaction(self._principal.tenant_id) as tx:
            await self._lead(tx, team_id)
            if await repository.find_user(tx, user_id) is None:
                raise NotFound("there is no such user", code="user_not_found")
            found = {member.user_id: member for member in await repository.members(tx, team_id)}.get(user_id)
            if expected:
                expected(found)
            before = found.role if found else None
            if before is Role.ADMIN and role is not Role.ADMIN:
                await authority.require_other_leader(tx, team_id, user_id)
            await repository.put_member(tx, team_id, user_id, role)
            self._tell(tx, [user_id])
            await self._audit.record(
                tx, Action.MEMBER_PUT, team_id, user=user_id, role=role.value, before=before.value if before else None
            )
            return next(member for member in await repository.members(tx, team_id) if member.user_id == user_id)

    async def remove_member(self, team_id: UUID, user_id: UUID, expected: ExpectedMember = None) -> None:
        """Take somebody out of a team; everybody may go by themselves.

        Parameters
        ----------
        expected
            Raises when the member is not as the caller has seen it.

        Raises
        ------
        NotFound
            There is no such team, or no such member.
        LastAdministrator
            It is the team's last administrator.
        """
        async with self._database.transaction(self._principal.tenant_id) as tx:
            if user_id == self._principal.user_id:
                await authority.require_now(tx, self._principal, Right.PROFILE_WRITE)
                await self._team(tx, team_id, lock=True)
            else:
                await self._lead(tx, team_id)
            found = {member.user_id: member for member in await repository.members(tx, team_id)}.get(user_id)
            if found is None:
                raise _no_member()
            if expected:
                expected(found)
            if found.role is Role.ADMIN:
                await authority.require_other_leader(tx, team_id, user_id)
            await repository.remove_member(tx, team_id, user_id)
            self._tell(tx, [user_id])
            await self._audit.record(tx, Action.MEMBER_REMOVED, team_id, user=user_id, before=found.role.value)

    async def _compare(self, tx: Transaction, team: Team, expected: Expected) -> None:
        if expected:
            expected((team, await repository.members(tx, team.id)))

    async def _lead(self, tx: Transaction, team_id: UUID) -> Team:
        """Lock a team and return it, if the caller leads it."""
        team = await self._team(tx, team_id, lock=True)
        await authority.require_lead(tx, self._principal, team)
        return team

    async def _team(self, tx: Transaction, team_id: UUID, *, lock: bool = False) -> Team:
        team = await repository.find_team(tx, team_id, self._principal.user_id, lock=lock)
        if team is None:
            raise NotFound("there is no such team", code="team_not_found")
        return team

    def _tell(self, tx: Transaction, user_ids: Iterable[UUID]) -> None:
        """Have all gateways forget what these people may, once it is committed."""
        ids = list(user_ids)
        tx.after_commit(lambda: revocations.announce(self._bus, tx.tenant_id, *ids))


def _no_member() -> NotFound:
    return NotFound("that user is no member of the team", code="member_not_found")


@contextmanager
def _named(name: str) -> Generator[None]:
    try:
        yield
    except IntegrityError as error:
        raise Conflict(f"there is a team named {name!r} already; choose another name", code="team_exists") from error
