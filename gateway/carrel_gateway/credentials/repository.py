"""Queries of keys and tickets."""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import func, insert, or_, select, update

from carrel_gateway.identity.tables import api_keys, one_time_tokens, users
from carrel_gateway.storage.database import Transaction


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key, without what it is: that is known to whoever made it alone."""

    id: UUID
    user_id: UUID
    maker_id: UUID | None
    """The person who made it; of some old ones it is not known."""
    name: str
    hint: str
    """Its last characters."""
    scopes: list[str] | None
    created_at: datetime
    expires_at: datetime | None
    used_at: datetime | None
    revoked_at: datetime | None


_NAMES = [field.name for field in fields(ApiKey)]
_COLUMNS = [api_keys.c[name] for name in _NAMES]


async def add(tx: Transaction, key: ApiKey, digest: bytes) -> None:
    """Insert a key."""
    values = {name: getattr(key, name) for name in _NAMES}
    await tx.connection.execute(insert(api_keys).values(**values, tenant_id=tx.tenant_id, digest=digest.hex()))


async def find(tx: Transaction, key_id: UUID, *, lock: bool = False) -> ApiKey | None:
    """Return a key, in force or not; `lock` has others who would change it wait."""
    query = select(*_COLUMNS).where(api_keys.c.tenant_id == tx.tenant_id, api_keys.c.id == key_id)
    row = (await tx.connection.execute(query.with_for_update() if lock else query)).mappings().first()
    return _key(row) if row else None


async def page(tx: Transaction, user_id: UUID | None, *, before: UUID | None, limit: int) -> list[ApiKey]:
    """Return keys of a user, or of all service accounts, newest first."""
    query = select(*_COLUMNS).where(api_keys.c.tenant_id == tx.tenant_id)
    if user_id is None:
        service = select(users.c.id).where(users.c.tenant_id == tx.tenant_id, users.c.kind == "service")
        query = query.where(api_keys.c.user_id.in_(service))
    else:
        query = query.where(api_keys.c.user_id == user_id)
    if before is not None:
        query = query.where(api_keys.c.id < before)
    query = query.order_by(api_keys.c.id.desc()).limit(limit)
    return [_key(row) for row in (await tx.connection.execute(query)).mappings()]


async def count_in_force(tx: Transaction, user_id: UUID) -> int:
    """Return how many keys of a user may be used."""
    query = (
        select(func.count())
        .select_from(api_keys)
        .where(
            api_keys.c.tenant_id == tx.tenant_id,
            api_keys.c.user_id == user_id,
            api_keys.c.revoked_at.is_(None),
            or_(api_keys.c.expires_at.is_(None), api_keys.c.expires_at > tx.dialect.now()),
        )
    )
    return await tx.connection.scalar(query) or 0


async def lock_owner(tx: Transaction, user_id: UUID) -> str | None:
    """Keep the owner as it is until the transaction ends, and return its kind; none where there is no such user."""
    query = select(users.c.kind).where(users.c.tenant_id == tx.tenant_id, users.c.id == user_id)
    return await tx.connection.scalar(query.with_for_update())


async def revoke(tx: Transaction, key_id: UUID) -> bool:
    """Revoke a key; false where it was already."""
    statement = (
        update(api_keys)
        .where(api_keys.c.tenant_id == tx.tenant_id, api_keys.c.id == key_id, api_keys.c.revoked_at.is_(None))
        .values(revoked_at=tx.dialect.now())
        .returning(api_keys.c.id)
    )
    return await tx.connection.scalar(statement) is not None


async def revoke_all(tx: Transaction, user_id: UUID, *, but: UUID | None) -> list[UUID]:
    """Revoke the keys of a user, but one if named, and return those that were not revoked before."""
    statement = update(api_keys).where(
        api_keys.c.tenant_id == tx.tenant_id, api_keys.c.user_id == user_id, api_keys.c.revoked_at.is_(None)
    )
    if but is not None:
        statement = statement.where(api_keys.c.id != but)
    return list(await tx.connection.scalars(statement.values(revoked_at=tx.dialect.now()).returning(api_keys.c.id)))


async def add_ticket(
    tx: Transaction, ticket_id: UUID, user_id: UUID, digest: bytes, credential_id: UUID | None, *, seconds: float
) -> datetime:
    """Insert a ticket, and return when it ends."""
    statement = (
        insert(one_time_tokens)
        .values(
            tenant_id=tx.tenant_id,
            id=ticket_id,
            user_id=user_id,
            purpose="ticket",
            digest=digest.hex(),
            detail={"credential_id": credential_id},
            created_at=tx.dialect.now(),
            expires_at=tx.dialect.later(seconds),
        )
        .returning(one_time_tokens.c.expires_at)
    )
    return (await tx.connection.execute(statement)).scalar_one()


def _key(row: Any) -> ApiKey:
    return ApiKey(**{name: row[name] for name in _NAMES})
