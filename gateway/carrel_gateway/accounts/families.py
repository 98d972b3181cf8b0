"""Queries of logins: each is a family of refresh tokens, of which the newest alone is good."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import delete, insert, or_, select, update

from carrel_gateway.identity.tables import logins, one_time_tokens
from carrel_gateway.storage.database import Transaction


@dataclass(frozen=True, slots=True)
class Login:
    """One family."""

    id: UUID
    user_id: UUID
    generation: int
    client: str
    created_at: datetime
    refreshed_at: datetime
    expires_at: datetime
    revoked_at: datetime | None


_COLUMNS = [logins.c[name] for name in Login.__slots__]


async def add(tx: Transaction, login_id: UUID, user_id: UUID, *, digest: str, client: str, seconds: float) -> None:
    """Insert a login whose first token has this digest."""
    now = tx.dialect.now()
    await tx.connection.execute(
        insert(logins).values(
            tenant_id=tx.tenant_id,
            id=login_id,
            user_id=user_id,
            digest=digest,
            generation=0,
            client=client,
            created_at=now,
            refreshed_at=now,
            expires_at=tx.dialect.later(seconds),
        )
    )


async def rotate(tx: Transaction, login_id: UUID, *, old: str, new: str, seconds: float) -> bool:
    """Exchange the digest, if it is still the old one and the login stands: of many at once, for one of them.

    The life of the login begins anew.
    """
    statement = (
        update(logins)
        .where(
            logins.c.tenant_id == tx.tenant_id,
            logins.c.id == login_id,
            logins.c.digest == old,
            logins.c.revoked_at.is_(None),
            logins.c.expires_at > tx.dialect.now(),
        )
        .values(
            digest=new,
            generation=logins.c.generation + 1,
            refreshed_at=tx.dialect.now(),
            expires_at=tx.dialect.later(seconds),
        )
        .returning(logins.c.id)
    )
    return await tx.connection.scalar(statement) is not None


async def find(tx: Transaction, login_id: UUID) -> Login | None:
    """Return a login, also one that stands no more."""
    query = select(*_COLUMNS).where(logins.c.tenant_id == tx.tenant_id, logins.c.id == login_id)
    row = (await tx.connection.execute(query)).mappings().first()
    return _login(row) if row else None


async def is_rotated_within(tx: Transaction, login_id: UUID, seconds: float) -> bool:
    """Return whether the login's newest token was made less than so many seconds ago."""
    query = select(logins.c.id).where(
        logins.c.tenant_id == tx.tenant_id,
        logins.c.id == login_id,
        logins.c.revoked_at.is_(None),
        logins.c.refreshed_at > tx.dialect.later(-seconds),
    )
    return await tx.connection.scalar(query) is not None


async def standing(tx: Transaction, user_id: UUID, limit: int) -> list[Login]:
    """Return the logins of a user that stand, newest first."""
    query = (
        select(*_COLUMNS)
        .where(
            logins.c.tenant_id == tx.tenant_id,
            logins.c.user_id == user_id,
            logins.c.revoked_at.is_(None),
            logins.c.expires_at > tx.dialect.now(),
        )
        .order_by(logins.c.id.desc())
        .limit(limit)
    )
    return [_login(row) for row in (await tx.connection.execute(query)).mappings()]


async def revoke(
    tx: Transaction, user_id: UUID, *, only: UUID | None = None, but: UUID | None = None
) -> Sequence[UUID]:
    """End logins of a user: all, one, or all but one; return which."""
    statement = update(logins).where(
        logins.c.tenant_id == tx.tenant_id, logins.c.user_id == user_id, logins.c.revoked_at.is_(None)
    )
    if only is not None:
        statement = statement.where(logins.c.id == only)
    if but is not None:
        statement = statement.where(logins.c.id != but)
    found = await tx.connection.scalars(statement.values(revoked_at=tx.dialect.now()).returning(logins.c.id))
    return found.all()


async def remove_old(tx: Transaction, *, seconds: float) -> int:
    """Delete logins that have not stood for so many seconds, and tokens used once that expired as long ago."""
    before = tx.dialect.later(-seconds)
    gone = await tx.connection.execute(
        delete(logins).where(
            logins.c.tenant_id == tx.tenant_id, or_(logins.c.expires_at < before, logins.c.revoked_at < before)
        )
    )
    tokens = await tx.connection.execute(
        delete(one_time_tokens).where(
            one_time_tokens.c.tenant_id == tx.tenant_id, one_time_tokens.c.expires_at < before
        )
    )
    return gone.rowcount + tokens.rowcount


def _login(row: Any) -> Login:
    return Login(**{name: row[name] for name in Login.__slots__})
