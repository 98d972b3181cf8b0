"""Queries of users, teams and memberships.

Whoever changes who may what locks first what the rule is about: the tenant's row for roles in the tenant, the team's
row for roles in the team. What is read after that stays true until the transaction ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Select, delete, func, insert, select, update

from carrel_gateway.identity.rights import Role
from carrel_gateway.identity.tables import team_members, teams, tenants, users
from carrel_gateway.storage.database import Transaction


@dataclass(frozen=True, slots=True)
class User:
    """Somebody in the tenant, or a service account of it."""

    id: UUID
    name: str
    email: str | None
    kind: str
    role: Role
    disabled_at: datetime | None
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Team:
    """A team, and what whoever asks is in it."""

    id: UUID
    name: str
    created_at: datetime
    role: Role | None
    """None for whoever is no member."""


@dataclass(frozen=True, slots=True)
class Member:
    """Somebody in a team."""

    user_id: UUID
    name: str
    email: str | None
    role: Role
    disabled_at: datetime | None
    created_at: datetime


# ---------------------------------------------------------------------- users


async def lock_tenant(tx: Transaction) -> None:
    """Have whoever else changes roles in the tenant wait for the end of this transaction."""
    await tx.connection.execute(
        select(tenants.c.tenant_id).where(tenants.c.tenant_id == tx.tenant_id).with_for_update()
    )


async def find_user(tx: Transaction, user_id: UUID) -> User | None:
    """Return a user."""
    query = _users().where(users.c.tenant_id == tx.tenant_id, users.c.id == user_id)
    row = (await tx.connection.execute(query)).mappings().first()
    return _user(row) if row else None


async def page_of_users(tx: Transaction, *, after: UUID | None, limit: int) -> list[User]:
    """Return users in the order in which they came."""
    query = _users().where(users.c.tenant_id == tx.tenant_id)
    if after is not None:
        query = query.where(users.c.id > after)
    return [_user(row) for row in (await tx.connection.execute(query.order_by(users.c.id).limit(limit))).mappings()]


async def add_user(tx: Transaction, user: User) -> None:
    """Insert a user."""
    values = {name: getattr(user, name) for name in User.__slots__}
    await tx.connection.execute(insert(users).values(**{**values, "role": user.role.value, "tenant_id": tx.tenant_id}))


async def change_user(tx: Transaction, user_id: UUID, changes: dict[str, Any]) -> None:
    """Change columns of a user."""
    await tx.connection.execute(
        update(users).where(users.c.tenant_id == tx.tenant_id, users.c.id == user_id).values(**changes)
    )


async def administrators(tx: Transaction) -> list[UUID]:
    """Return the people who can administer the tenant now."""
    query = select(users.c.id).where(
        users.c.tenant_id == tx.tenant_id,
        users.c.role == Role.ADMIN.value,
        users.c.kind == "person",
        users.c.disabled_at.is_(None),
    )
    return list(await tx.connection.scalars(query))


# ---------------------------------------------------------------------- teams


async def find_team(tx: Transaction, team_id: UUID, viewer: UUID, *, lock: bool = False) -> Team | None:
    """Return a team, with what the viewer is in it; `lock` has other changes of its members wait."""
    if lock:
        await tx.connection.execute(
            select(teams.c.id).where(teams.c.tenant_id == tx.tenant_id, teams.c.id == team_id).with_for_update()
        )
    query = _teams(tx, viewer).where(teams.c.tenant_id == tx.tenant_id, teams.c.id == team_id)
    row = (await tx.connection.execute(query)).mappings().first()
    return _team(row) if row else None


async def page_of_teams(
    tx: Transaction, viewer: UUID, *, everybodys: bool, after: UUID | None, limit: int
) -> list[Team]:
    """Return the viewer's teams, or all of them, in the order in which they were founded."""
    query = _teams(tx, viewer).where(teams.c.tenant_id == tx.tenant_id)
    if not everybodys:
        query = query.where(team_members.c.user_id.is_not(None))
    if after is not None:
        query = query.where(teams.c.id > after)
    return [_team(row) for row in (await tx.connection.execute(query.order_by(teams.c.id).limit(limit))).mappings()]


async def add_team(tx: Transaction, team_id: UUID, name: str) -> None:
    """Insert a team."""
    await tx.connection.execute(
        insert(teams).values(tenant_id=tx.tenant_id, id=team_id, name=name, created_at=datetime.now(UTC))
    )


async def rename_team(tx: Transaction, team_id: UUID, name: str) -> None:
    """Change a team's name."""
    await tx.connection.execute(
        update(teams).where(teams.c.tenant_id == tx.tenant_id, teams.c.id == team_id).values(name=name)
    )


async def remove_team(tx: Transaction, team_id: UUID) -> None:
    """Delete a team, and with it its memberships and what was shared with it."""
    await tx.connection.execute(delete(teams).where(teams.c.tenant_id == tx.tenant_id, teams.c.id == team_id))


# ---------------------------------------------------------------------- members


async def members(tx: Transaction, team_id: UUID) -> list[Member]:
    """Return the members of a team in the order in which they came to the tenant."""
    query = (
        select(
            team_members.c.user_id,
            users.c.name,
            users.c.email,
            team_members.c.role,
            users.c.disabled_at,
            team_members.c.created_at,
        )
        .join_from(
            team_members,
            users,
            (users.c.tenant_id == team_members.c.tenant_id) & (users.c.id == team_members.c.user_id),
        )
        .where(team_members.c.tenant_id == tx.tenant_id, team_members.c.team_id == team_id)
        .order_by(team_members.c.user_id)
    )
    return [_member(row) for row in (await tx.connection.execute(query)).mappings()]


async def put_member(tx: Transaction, team_id: UUID, user_id: UUID, role: Role) -> None:
    """Make somebody a member, or give a member another role."""
    same = (
        team_members.c.tenant_id == tx.tenant_id,
        team_members.c.team_id == team_id,
        team_members.c.user_id == user_id,
    )
    changed = update(team_members).where(*same).values(role=role.value).returning(team_members.c.user_id)
    if await tx.connection.scalar(changed) is None:
        await tx.connection.execute(
            insert(team_members).values(
                tenant_id=tx.tenant_id,
                team_id=team_id,
                user_id=user_id,
                role=role.value,
                created_at=datetime.now(UTC),
            )
        )


async def remove_member(tx: Transaction, team_id: UUID, user_id: UUID) -> None:
    """Take somebody out of a team."""
    await tx.connection.execute(
        delete(team_members).where(
            team_members.c.tenant_id == tx.tenant_id,
            team_members.c.team_id == team_id,
            team_members.c.user_id == user_id,
        )
    )


async def other_leaders(tx: Transaction, team_ids: Sequence[UUID], but: UUID) -> dict[UUID, int]:
    """Return how many enabled administrators each team has beside one person."""
    query = (
        select(team_members.c.team_id, func.count())
        .join_from(
            team_members,
            users,
            (users.c.tenant_id == team_members.c.tenant_id) & (users.c.id == team_members.c.user_id),
        )
        .where(
            team_members.c.tenant_id == tx.tenant_id,
            team_members.c.team_id.in_(team_ids),
            team_members.c.role == Role.ADMIN.value,
            team_members.c.user_id != but,
            users.c.disabled_at.is_(None),
        )
        .group_by(team_members.c.team_id)
    )
    return {row[0]: row[1] for row in await tx.connection.execute(query)}


def _users() -> Select[Any]:
    return select(*(users.c[name] for name in User.__slots__))


def _teams(tx: Transaction, viewer: UUID) -> Select[Any, Any, Any, Any]:
    own = (
        (team_members.c.tenant_id == tx.tenant_id)
        & (team_members.c.team_id == teams.c.id)
        & (team_members.c.user_id == viewer)
    )
    return select(teams.c.id, teams.c.name, teams.c.created_at, team_members.c.role).select_from(
        teams.outerjoin(team_members, own)
    )


def _user(row: Any) -> User:
    return User(
        id=row["id"],
        name=row["name"],
        email=row["email"],
        kind=row["kind"],
        role=Role(row["role"]),
        disabled_at=row["disabled_at"],
        created_at=row["created_at"],
    )


def _team(row: Any) -> Team:
    return Team(row["id"], row["name"], row["created_at"], Role(row["role"]) if row["role"] else None)


def _member(row: Any) -> Member:
    return Member(
        user_id=row["user_id"],
        name=row["name"],
        email=row["email"],
        role=Role(row["role"]),
        disabled_at=row["disabled_at"],
        created_at=row["created_at"],
    )
