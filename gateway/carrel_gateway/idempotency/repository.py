"""Queries of idempotency keys. Times are the database's, so that gateways' clocks need not agree."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from sqlalchemy import case, delete, select, update
from sqlalchemy.dialects import postgresql, sqlite

from carrel_gateway.idempotency.tables import idempotency_keys as keys
from carrel_gateway.storage.database import Transaction

_COLUMNS: Final = ("effect_id", "operation", "fingerprint", "state", "owner", "generation", "status", "headers", "body")


@dataclass(frozen=True, slots=True)
class Entry:
    """What is known under a key."""

    effect_id: UUID
    operation: str
    fingerprint: str | None
    state: str
    owner: UUID
    generation: int
    status: int | None
    headers: dict[str, str] | None
    body: bytes | None
    lapsed: bool
    """Whoever works on it has not renewed the lease."""
    expired: bool


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to do what a key stands for, once."""

    user_id: UUID
    digest: str
    effect_id: UUID
    """Id for what the request makes: the same when it is tried again after a crash."""
    generation: int
    """Grows by one with every try."""


@dataclass(frozen=True, slots=True)
class Intent:
    """What a claim is for, by whom, and for how long."""

    operation: str
    fingerprint: str | None
    owner: UUID
    lease_seconds: float
    keep_seconds: float


async def find(tx: Transaction, user_id: UUID, digest: str) -> Entry | None:
    """Return what is known under a key, and keep others from claiming it until the transaction ends."""
    query = (
        select(
            *(keys.c[name] for name in _COLUMNS),
            case((keys.c.lease_until < tx.dialect.now(), 1), else_=0).label("lapsed"),
            case((keys.c.expires_at < tx.dialect.now(), 1), else_=0).label("expired"),
        )
        .where(keys.c.tenant_id == tx.tenant_id, keys.c.user_id == user_id, keys.c.digest == digest)
        .with_for_update()
    )
    row = (await tx.connection.execute(query)).mappings().first()
    if row is None:
        return None
    known = {name: row[name] for name in _COLUMNS}
    return Entry(**known, lapsed=bool(row["lapsed"]), expired=bool(row["expired"]))


async def add(tx: Transaction, claim: Claim, intent: Intent) -> bool:
    """Insert a running claim; false when another request was first."""
    insert = postgresql.insert if tx.dialect.name == "postgresql" else sqlite.insert
    own = {"tenant_id": tx.tenant_id, "user_id": claim.user_id, "digest": claim.digest}
    statement = (
        insert(keys).values(**own, **_running(tx, claim, intent)).on_conflict_do_nothing().returning(keys.c.generation)
    )
    return await tx.connection.scalar(statement) is not None


async def take(tx: Transaction, claim: Claim, intent: Intent) -> None:
    """Make a row that `find` has locked a running claim of the next generation."""
    statement = update(keys).where(
        keys.c.tenant_id == tx.tenant_id, keys.c.user_id == claim.user_id, keys.c.digest == claim.digest
    )
    answer = {"status": None, "headers": None, "body": None}
    await tx.connection.execute(statement.values(**_running(tx, claim, intent), **answer))


async def change(tx: Transaction, claim: Claim, **values: Any) -> bool:
    """Change the claim's row; false when another request has taken the key over."""
    statement = (
        update(keys)
        .where(
            keys.c.tenant_id == tx.tenant_id,
            keys.c.user_id == claim.user_id,
            keys.c.digest == claim.digest,
            keys.c.generation == claim.generation,
            keys.c.state == "running",
        )
        .values(**values)
        .returning(keys.c.generation)
    )
    return await tx.connection.scalar(statement) is not None


async def remove_expired(tx: Transaction) -> int:
    """Delete what nobody is promised any more, and return how many rows that were."""
    statement = delete(keys).where(keys.c.tenant_id == tx.tenant_id, keys.c.expires_at < tx.dialect.now())
    return (await tx.connection.execute(statement)).rowcount


def _running(tx: Transaction, claim: Claim, intent: Intent) -> dict[str, Any]:
    return {
        "effect_id": claim.effect_id,
        "generation": claim.generation,
        "operation": intent.operation,
        "fingerprint": intent.fingerprint,
        "state": "running",
        "owner": intent.owner,
        "lease_until": tx.dialect.later(intent.lease_seconds),
        "expires_at": tx.dialect.later(intent.keep_seconds),
    }
