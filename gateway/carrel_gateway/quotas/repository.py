"""Queries of quotas. What is counted is counted by the statement that compares it with its limit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Literal, NamedTuple, TypeAlias
from uuid import UUID

from sqlalchemy import BigInteger, Executable, bindparam, delete, func, select
from sqlalchemy.dialects import postgresql, sqlite

from carrel_gateway.identity.tables import team_members, teams, users
from carrel_gateway.quotas.tables import quota_counters, quotas
from carrel_gateway.sessions.tables import sessions
from carrel_gateway.storage.database import Transaction
from carrel_gateway.storage.steps import Steps, scalar

Scope: TypeAlias = Literal["tenant", "team", "user"]
Resource: TypeAlias = Literal["sessions", "executions"]


@dataclass(frozen=True, slots=True)
class Quota:
    """A limit that somebody has set."""

    scope: Scope
    scope_id: UUID
    resource: Resource
    most: int
    updated_at: datetime


class Counted(NamedTuple):
    """What is counted against a limit: the limit itself, or each user's share of one for all users."""

    scope: Scope
    scope_id: UUID
    resource: Resource
    most: int


class Limits(NamedTuple):
    """The limits of a tenant, and who is in the teams that have some."""

    quotas: list[Quota]
    members: dict[UUID, frozenset[UUID]]
    """Of teams."""
    otherwise: Mapping[Resource, int]
    """For each user whom no limit of a user is for."""

    def of(self, tenant_id: UUID, user_id: UUID, resource: Resource) -> list[Counted]:
        """Return what holds for a user, in the order in which it is counted and locked: the tenant, teams, the user."""
        found = [quota for quota in self.quotas if quota.resource == resource]
        whole = [quota for quota in found if quota.scope == "tenant"]
        teams = [one for one in found if one.scope == "team" and user_id in self.members[one.scope_id]]
        own = [quota for quota in found if quota.scope == "user" and quota.scope_id == user_id]
        own = own or [quota for quota in found if quota.scope == "user" and quota.scope_id == tenant_id]
        most = own[0].most if own else self.otherwise.get(resource)
        return [
            *(Counted(quota.scope, quota.scope_id, resource, quota.most) for quota in (*whole, *teams)),
            *([] if most is None else [Counted("user", user_id, resource, most)]),
        ]


async def limits(tx: Transaction, otherwise: Mapping[Resource, int]) -> Limits:
    """Return the limits of the tenant, with those of the installation for whom there is no other."""
    query = select(*(quotas.c[name] for name in Quota.__slots__)).where(quotas.c.tenant_id == tx.tenant_id)
    found = [Quota(*row) for row in await tx.connection.execute(query.order_by(quotas.c.scope, quotas.c.scope_id))]
    members: dict[UUID, set[UUID]] = {quota.scope_id: set() for quota in found if quota.scope == "team"}
    if members:
        query = select(team_members.c.team_id, team_members.c.user_id).where(
            team_members.c.tenant_id == tx.tenant_id, team_members.c.team_id.in_(members)
        )
        for team_id, user_id in await tx.connection.execute(query):
            members[team_id].add(user_id)
    return Limits(found, {team_id: frozenset(users) for team_id, users in members.items()}, otherwise)


async def put(tx: Transaction, quota: Quota) -> None:
    """Set a limit in the place of an earlier one."""
    row = {"tenant_id": tx.tenant_id, **{name: getattr(quota, name) for name in Quota.__slots__}}
    insert = (postgresql.insert if tx.dialect.name == "postgresql" else sqlite.insert)(quotas).values(**row)
    await tx.connection.execute(
        insert.on_conflict_do_update(
            index_elements=["tenant_id", "scope", "scope_id", "resource"],
            set_={"most": insert.excluded.most, "updated_at": insert.excluded.updated_at},
        )
    )


async def remove(tx: Transaction, scope: Scope, scope_id: UUID, resource: Resource) -> bool:
    """Take a limit away; false when there is none."""
    statement = delete(quotas).where(
        quotas.c.tenant_id == tx.tenant_id,
        quotas.c.scope == scope,
        quotas.c.scope_id == scope_id,
        quotas.c.resource == resource,
    )
    return await tx.connection.scalar(statement.returning(quotas.c.scope)) is not None


async def exists(tx: Transaction, scope: Scope, scope_id: UUID) -> bool:
    """Return whether the tenant has such a team or user."""
    table = teams if scope == "team" else users
    query = select(table.c.id).where(table.c.tenant_id == tx.tenant_id, table.c.id == scope_id)
    return await tx.connection.scalar(query) is not None


def take(dialect: str, tenant_id: UUID, counted: Counted, period: str, amount: int) -> Steps[bool]:
    """Count so much more, all of it or nothing; false when it does not fit. A negative amount is given back."""
    if amount > counted.most:
        return False
    values = {
        "tenant_id": tenant_id,
        "scope": counted.scope,
        "scope_id": counted.scope_id,
        "resource": counted.resource,
        "period": period,
        "used": amount,
        "most": counted.most,
    }
    return (yield from scalar(_count(dialect), values)) is not None


@cache
def _count(dialect: str) -> Executable:
    insert = (postgresql.insert if dialect == "postgresql" else sqlite.insert)(quota_counters)
    total = quota_counters.c.used + insert.excluded.used
    return insert.on_conflict_do_update(
        index_elements=["tenant_id", "scope", "scope_id", "resource", "period"],
        set_={"used": total},
        where=total <= bindparam("most", type_=BigInteger()),
    ).returning(quota_counters.c.used)


async def remove_old(tx: Transaction, before: str) -> int:
    """Delete what was counted on days before one, and return how many rows that were."""
    statement = delete(quota_counters).where(
        quota_counters.c.tenant_id == tx.tenant_id, quota_counters.c.period != "", quota_counters.c.period < before
    )
    return len((await tx.connection.scalars(statement.returning(quota_counters.c.period))).all())


async def used(tx: Transaction, counted: Counted, period: str) -> int:
    """Return how much is counted."""
    query = select(quota_counters.c.used).where(
        quota_counters.c.tenant_id == tx.tenant_id,
        quota_counters.c.scope == counted.scope,
        quota_counters.c.scope_id == counted.scope_id,
        quota_counters.c.resource == counted.resource,
        quota_counters.c.period == period,
    )
    return await tx.connection.scalar(query) or 0


async def open_sessions(tx: Transaction, counted: Counted) -> int:
    """Return how many sessions there are that are not archived."""
    query = select(func.count()).where(sessions.c.tenant_id == tx.tenant_id, sessions.c.status == "active")
    if counted.scope == "user":
        query = query.where(sessions.c.owner_id == counted.scope_id)
    elif counted.scope == "team":
        members = select(team_members.c.user_id).where(
            team_members.c.tenant_id == tx.tenant_id, team_members.c.team_id == counted.scope_id
        )
        query = query.where(sessions.c.owner_id.in_(members))
    return await tx.connection.scalar(query) or 0


async def lock(tx: Transaction, counted: Iterable[Counted]) -> None:
    """Have whoever else counts the same wait for the end of this transaction: a row of each is written as it is."""
    for one in counted:
        await tx.run(take(tx.dialect.name, tx.tenant_id, one._replace(most=0), "", 0))
