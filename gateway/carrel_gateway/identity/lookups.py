"""The queries behind authentication: one statement each, within a transaction of the tenant that was named.

What finds credentials is steps, which are built once: it stands in the way of requests.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any, Literal, TypeAlias
from uuid import UUID

from sqlalchemy import ColumnElement, Select, bindparam, null, or_, select, update

from carrel_gateway.identity.tables import api_keys, logins, one_time_tokens, team_members, users
from carrel_gateway.storage.database import Transaction
from carrel_gateway.storage.dialect import Dialect
from carrel_gateway.storage.steps import Steps

_By: TypeAlias = Literal["digest", "key", "login"]


@dataclass(frozen=True, slots=True)
class Maker:
    """Who made a key for somebody else, as they are now."""

    user_id: UUID
    role: str | None
    """None where there is no such user any more."""
    disabled_at: datetime | None
    kind: str | None
    """`person` or `service`."""


@dataclass(frozen=True, slots=True)
class Found:
    """A credential with its owner, as they are now."""

    credential_id: UUID
    user_id: UUID
    role: str
    kind: str
    maker: Maker | None
    """Of a key of another user's than its maker's; none where that is not known."""
    scopes: tuple[str, ...] | None
    """Of a key: the rights that it was given; none means all that its owner has."""
    expires_at: datetime | None
    revoked_at: datetime | None
    disabled_at: datetime | None
    used_at: datetime | None
    is_key: bool
    """Or else a login."""
    now: datetime
    """By the clock that all processes share."""
    team_ids: frozenset[UUID]


def find_key(dialect: Dialect, tenant_id: UUID, digest: bytes) -> Steps[Found | None]:
    """Return the key of this digest."""
    return _find(dialect, "digest", tenant_id, digest.hex())


def find_login(dialect: Dialect, tenant_id: UUID, login_id: UUID) -> Steps[Found | None]:
    """Return the login of this id."""
    return _find(dialect, "login", tenant_id, login_id)


def find_credential(dialect: Dialect, tenant_id: UUID, credential_id: UUID) -> Steps[Found | None]:
    """Return the key or the login of this id."""
    found = yield from _find(dialect, "key", tenant_id, credential_id)
    return found or (yield from find_login(dialect, tenant_id, credential_id))


@dataclass(frozen=True, slots=True)
class UsedTicket:
    """A ticket that was taken."""

    user_id: UUID
    credential_id: UUID | None
    """What it was made with; none of the installation's own key."""


async def use_ticket(tx: Transaction, digest: bytes) -> UsedTicket | None:
    """Take a ticket that is in force; of several that try, one gets it."""
    statement = (
        update(one_time_tokens)
        .where(
            one_time_tokens.c.tenant_id == tx.tenant_id,
            one_time_tokens.c.digest == digest.hex(),
            one_time_tokens.c.purpose == "ticket",
            one_time_tokens.c.used_at.is_(None),
            one_time_tokens.c.expires_at > tx.dialect.now(),
        )
        .values(used_at=tx.dialect.now())
        .returning(one_time_tokens.c.user_id, one_time_tokens.c.detail)
    )
    row = (await tx.connection.execute(statement)).first()
    if row is None:
        return None
    user_id, detail = row
    return UsedTicket(user_id, UUID(detail["credential_id"]) if detail["credential_id"] else None)


@dataclass(frozen=True, slots=True)
class Standing:
    """A user, as they are now."""

    role: str
    kind: str
    disabled_at: datetime | None


async def find_users(tx: Transaction, user_ids: Collection[UUID]) -> dict[UUID, Standing]:
    """Return users by their ids; whoever is not there is left out."""
    query = select(users.c.id, users.c.role, users.c.kind, users.c.disabled_at).where(
        users.c.tenant_id == tx.tenant_id, users.c.id.in_(user_ids)
    )
    return {own: Standing(*row) for own, *row in await tx.connection.execute(query)}


async def touch(tx: Transaction, key_id: UUID, *, pause: timedelta) -> None:
    """Note that a key is used, unless that was noted less than a pause ago."""
    now = tx.dialect.now()
    await tx.connection.execute(
        update(api_keys)
        .where(
            api_keys.c.tenant_id == tx.tenant_id,
            api_keys.c.id == key_id,
            or_(api_keys.c.used_at.is_(None), api_keys.c.used_at < tx.dialect.later(-pause.total_seconds())),
        )
        .values(used_at=now)
    )


def _find(dialect: Dialect, by: _By, tenant_id: UUID, value: UUID | str) -> Steps[Found | None]:
    rows = yield _query(dialect.name, dialect.clock, by), {"tenant_id": tenant_id, "value": value}
    if not rows:
        return None
    own, user_id, expires_at, revoked_at, role, kind, disabled_at, _, now, scopes, used_at, *maker = rows[0]
    return Found(
        credential_id=own,
        user_id=user_id,
        role=role,
        kind=kind,
        maker=Maker(*maker) if maker and maker[0] not in (None, user_id) else None,
        scopes=None if scopes is None else tuple(scopes),
        expires_at=expires_at,
        revoked_at=revoked_at,
        disabled_at=disabled_at,
        used_at=used_at,
        is_key=by != "login",
        now=now or datetime.now(UTC),
        team_ids=frozenset(row[7] for row in rows if row[7] is not None),
    )


@cache
def _query(_dialect: str, clock: Callable[[], ColumnElement[datetime | None]], by: _By) -> Select[Any]:
    """Return the statement that finds a credential with its owner, a row for each of the owner's teams."""
    table = logins if by == "login" else api_keys
    column = api_keys.c.digest if by == "digest" else table.c.id
    makers = users.alias("makers")
    own = (users.c.tenant_id == table.c.tenant_id) & (users.c.id == table.c.user_id)
    member = (team_members.c.tenant_id == table.c.tenant_id) & (team_members.c.user_id == table.c.user_id)
    source, more = table.join(users, own).outerjoin(team_members, member), [null(), null()]
    if by != "login":
        made = (makers.c.tenant_id == api_keys.c.tenant_id) & (makers.c.id == api_keys.c.maker_id)
        source = source.outerjoin(makers, made)
        more = [api_keys.c.scopes, api_keys.c.used_at, api_keys.c.maker_id]
        more += [makers.c.role, makers.c.disabled_at, makers.c.kind]
    return (
        select(
            table.c.id,
            table.c.user_id,
            table.c.expires_at,
            table.c.revoked_at,
            users.c.role,
            users.c.kind,
            users.c.disabled_at,
            team_members.c.team_id,
            clock().label("now"),
            *more,
        )
        .select_from(source)
        .where(table.c.tenant_id == bindparam("tenant_id"), column == bindparam("value"))
    )
