"""Sharing with teams, whatever is shared: the rows, and what a user may do by them.

A share for writing lets members write who are more than `readonly` in the team; all others read. Whether somebody may
share at all is the feature's own business.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import IntEnum
from typing import Any, Literal, TypeAlias
from uuid import UUID

from sqlalchemy import BindParameter, Column, Subquery, Table, bindparam, case, delete, func, insert, select, update

from carrel_gateway.errors import NotFound, PermissionDenied
from carrel_gateway.identity.rights import Role
from carrel_gateway.identity.tables import team_members, teams
from carrel_gateway.storage.database import Transaction
from carrel_gateway.storage.steps import Steps, scalar

Access: TypeAlias = Literal["read", "write"]


class Level(IntEnum):
    """What a user may do with something by the teams that it is shared with."""

    NONE = 0
    READ = 1
    WRITE = 2


@dataclass(frozen=True, slots=True)
class TeamShare:
    """Something is shared with a team."""

    team_id: UUID
    team_name: str
    access: Access
    created_at: datetime


ExpectedShare: TypeAlias = Callable[[TeamShare | None], None] | None
"""Raises when a share, or that there is none, is not as somebody has seen it."""


class TeamShares:
    """The shares of one kind of things.

    Parameters
    ----------
    table
        As in `tables`: tenant, thing, team, access.
    """

    def __init__(self, table: Table) -> None:
        self._table = table
        self._thing: Column[UUID] = next(iter(table.primary_key.columns.values()[1:]))
        levels = self.levels(bindparam("tenant_id"), bindparam("user_id"))
        self._level = select(levels.c.level).where(levels.c.thing == bindparam("thing"))

    def levels(self, tenant_id: UUID | BindParameter[UUID], user_id: UUID | BindParameter[UUID]) -> Subquery:
        """Return a query of `thing` and `level` of everything that teams of a user can see."""
        table = self._table
        writes = (table.c.access == "write") & (team_members.c.role != Role.READONLY.value)
        return (
            select(self._thing.label("thing"), func.max(case((writes, 2), else_=1)).label("level"))
            .join_from(
                table,
                team_members,
                (team_members.c.tenant_id == table.c.tenant_id) & (team_members.c.team_id == table.c.team_id),
            )
            .where(table.c.tenant_id == tenant_id, team_members.c.user_id == user_id)
            .group_by(self._thing)
            .subquery("levels")
        )

    def level(self, tenant_id: UUID, thing: UUID, user_id: UUID) -> Steps[Level]:
        """Return what a user may do with one thing by teams."""
        values = {"tenant_id": tenant_id, "thing": thing, "user_id": user_id}
        return Level((yield from scalar(self._level, values)) or 0)

    async def of(self, tx: Transaction, things: Sequence[UUID]) -> dict[UUID, list[TeamShare]]:
        """Return the shares of things."""
        table = self._table
        query = (
            select(self._thing.label("thing"), table.c.team_id, teams.c.name, table.c.access, table.c.created_at)
            .join_from(table, teams, (teams.c.tenant_id == table.c.tenant_id) & (teams.c.id == table.c.team_id))
            .where(table.c.tenant_id == tx.tenant_id, self._thing.in_(things))
            .order_by(table.c.team_id)
        )
        found: dict[UUID, list[TeamShare]] = {thing: [] for thing in things}
        for row in await tx.connection.execute(query):
            found[row.thing].append(TeamShare(row.team_id, row.name, row.access, row.created_at))
        return found

    async def one(self, tx: Transaction, thing: UUID, team_id: UUID, *, lock: bool = False) -> TeamShare | None:
        """Return the share of a thing with a team, if there is one.

        Parameters
        ----------
        lock
            Whether others who would change it wait until the transaction ends.
        """
        if lock:
            same = (self._table.c.tenant_id == tx.tenant_id, self._thing == thing, self._table.c.team_id == team_id)
            await tx.connection.execute(select(self._table.c.team_id).where(*same).with_for_update())
        return next((share for share in (await self.of(tx, [thing]))[thing] if share.team_id == team_id), None)

    async def put(self, tx: Transaction, thing: UUID, team_id: UUID, access: Access) -> None:
        """Share a thing with a team, or share it otherwise."""
        same = (self._table.c.tenant_id == tx.tenant_id, self._thing == thing, self._table.c.team_id == team_id)
        changed = update(self._table).where(*same).values(access=access).returning(self._table.c.team_id)
        if await tx.connection.scalar(changed) is None:
            row: dict[str, Any] = {"tenant_id": tx.tenant_id, self._thing.name: thing, "team_id": team_id}
            await tx.connection.execute(insert(self._table).values(**row, access=access, created_at=datetime.now(UTC)))

    async def remove(self, tx: Transaction, thing: UUID, team_id: UUID) -> bool:
        """Share a thing with a team no longer; false when it was not."""
        statement = (
            delete(self._table)
            .where(self._table.c.tenant_id == tx.tenant_id, self._thing == thing, self._table.c.team_id == team_id)
            .returning(self._table.c.team_id)
        )
        return await tx.connection.scalar(statement) is not None


def no_share() -> NotFound:
    """Return the refusal where something is not shared with a team."""
    return NotFound("it is not shared with that team", code="share_not_found")


async def require_team(tx: Transaction, team_id: UUID, user_id: UUID, *, any_team: bool) -> None:
    """Check that a user may share with a team: one of the user's own or, of an administrator, any.

    Raises
    ------
    NotFound
        There is no such team.
    PermissionDenied
        The user is no member of it.
    """
    query = (
        select(teams.c.id, team_members.c.user_id)
        .select_from(
            teams.outerjoin(
                team_members,
                (team_members.c.tenant_id == teams.c.tenant_id)
                & (team_members.c.team_id == teams.c.id)
                & (team_members.c.user_id == user_id),
            )
        )
        .where(teams.c.tenant_id == tx.tenant_id, teams.c.id == team_id)
    )
    row = (await tx.connection.execute(query)).first()
    if row is None:
        raise NotFound("there is no such team", code="team_not_found")
    if row.user_id is None and not any_team:
        raise PermissionDenied("you are no member of that team; share with a team of yours")
