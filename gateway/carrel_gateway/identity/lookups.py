"""The queries behind authentication: one statement each, within a transaction of the tenant that was named."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Table, or_, select, update

from carrel_gateway.identity.tables import api_keys, logins, one_time_tokens, team_members, users
from carrel_gateway.storage.database import Transaction


@dataclass(frozen=True, slots=True)
class Found:
    """A credential with its owner, as they are now."""

    credential_id: UUID
    user_id: UUID
    role: str
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


async def find_key(tx: Transaction, digest: bytes) -> Found | None:
    """Return the key of this digest."""
    columns = [api_keys.c.scopes, api_keys.c.used_at]
    return await _find(tx, api_keys, api_keys.c.digest == digest.hex(), columns)


async def find_login(tx: Transaction, login_id: UUID) -> Found | None:
    """Return the login of this id."""
    return await _find(tx, logins, logins.c.id == login_id, [])


async def find_credential(tx: Transaction, credential_id: UUID) -> Found | None:
    """Return the key or the login of this id."""
    columns = [api_keys.c.scopes, api_keys.c.used_at]
    found = await _find(tx, api_keys, api_keys.c.id == credential_id, columns)
    return found or await find_login(tx, credential_id)


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


async def _find(
    tx: Transaction, table: Table, condition: ColumnElement[bool], columns: Sequence[ColumnElement[Any]]
) -> Found | None:
    own = (users.c.tenant_id == table.c.tenant_id) & (users.c.id == table.c.user_id)
    member = (team_members.c.tenant_id == table.c.tenant_id) & (team_members.c.user_id == table.c.user_id)
    query = (
        select(
            table.c.id,
            table.c.user_id,
            table.c.expires_at,
            table.c.revoked_at,
            users.c.role,
            users.c.disabled_at,
            team_members.c.team_id,
            tx.dialect.now().label("now"),
            *columns,
        )
        .select_from(table.join(users, own).outerjoin(team_members, member))
        .where(table.c.tenant_id == tx.tenant_id, condition)
    )
    rows = (await tx.connection.execute(query)).mappings().all()
    if not rows:
        return None
    row = rows[0]
    scopes = row.get("scopes")
    return Found(
        credential_id=row["id"],
        user_id=row["user_id"],
        role=row["role"],
        scopes=None if scopes is None else tuple(scopes),
        expires_at=row["expires_at"],
        revoked_at=row["revoked_at"],
        disabled_at=row["disabled_at"],
        used_at=row.get("used_at"),
        is_key=table is api_keys,
        now=row["now"],
        team_ids=frozenset(row["team_id"] for row in rows if row["team_id"] is not None),
    )
