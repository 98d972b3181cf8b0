"""Queries of keys of model providers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import delete, insert, select, update

from carrel_gateway.provider_keys.tables import provider_keys
from carrel_gateway.storage.database import Transaction


@dataclass(frozen=True, slots=True)
class StoredKey:
    """An encrypted key."""

    holder_id: UUID
    provider: str
    user_id: UUID | None
    sealed: str
    hint: str
    updated_at: datetime


async def put(tx: Transaction, key: StoredKey) -> None:
    """Store a key, in the place of an earlier one."""
    values = {"sealed": key.sealed, "hint": key.hint, "updated_at": key.updated_at}
    changed = (
        update(provider_keys)
        .where(
            provider_keys.c.tenant_id == tx.tenant_id,
            provider_keys.c.holder_id == key.holder_id,
            provider_keys.c.provider == key.provider,
        )
        .values(**values)
        .returning(provider_keys.c.provider)
    )
    if await tx.connection.scalar(changed) is None:
        row: dict[str, Any] = {"holder_id": key.holder_id, "provider": key.provider, "user_id": key.user_id}
        await tx.connection.execute(insert(provider_keys).values(tenant_id=tx.tenant_id, **row, **values))


async def find(
    tx: Transaction, holders: Sequence[UUID], provider: str | None = None, *, lock: bool = False
) -> list[StoredKey]:
    """Return the keys of holders; `lock` has others who would change them wait."""
    query = select(provider_keys).where(
        provider_keys.c.tenant_id == tx.tenant_id, provider_keys.c.holder_id.in_(holders)
    )
    if provider is not None:
        query = query.where(provider_keys.c.provider == provider)
    if lock:
        query = query.with_for_update()
    rows = (await tx.connection.execute(query.order_by(provider_keys.c.provider))).mappings()
    return [StoredKey(**{name: row[name] for name in StoredKey.__slots__}) for row in rows]


async def remove(tx: Transaction, holder_id: UUID, provider: str) -> bool:
    """Delete a key; false when there is none."""
    statement = (
        delete(provider_keys)
        .where(
            provider_keys.c.tenant_id == tx.tenant_id,
            provider_keys.c.holder_id == holder_id,
            provider_keys.c.provider == provider,
        )
        .returning(provider_keys.c.provider)
    )
    return await tx.connection.scalar(statement) is not None
