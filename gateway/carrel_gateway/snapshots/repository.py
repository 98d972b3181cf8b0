"""Queries of snapshots and their contents."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

from sqlalchemy import delete, insert, or_, select, update

from carrel_gateway.snapshots.tables import blobs, snapshots
from carrel_gateway.storage.database import Transaction

_AT_ONCE: Final = 1000
"""Databases limit the parameters of a statement."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A snapshot that is stored as a whole."""

    id: UUID
    session_id: UUID
    session_uid: str
    """Session of the kernel host that it was taken on."""
    owner: str
    boot_id: str
    """The host's, when it was taken."""
    incarnation: str
    """The kernel's process."""
    digest: str
    seq: int
    """Number of the last event whose effect is surely in it."""
    created_at: datetime


_NAMES: Final = [field.name for field in fields(Snapshot)]


async def add(tx: Transaction, snapshot: Snapshot, manifest: str) -> None:
    """Insert a snapshot."""
    values = {name: getattr(snapshot, name) for name in _NAMES}
    await tx.connection.execute(insert(snapshots).values(tenant_id=tx.tenant_id, manifest=manifest, **values))


async def find(tx: Transaction, snapshot_id: UUID) -> Snapshot | None:
    """Return a snapshot of the tenant."""
    query = select(*(snapshots.c[name] for name in _NAMES)).where(
        snapshots.c.tenant_id == tx.tenant_id, snapshots.c.id == snapshot_id
    )
    row = (await tx.connection.execute(query)).mappings().first()
    return Snapshot(**row) if row else None


async def latest(tx: Transaction, session_id: UUID) -> Snapshot | None:
    """Return the session's snapshot: what is known of its state, should its host be lost."""
    query = select(*(snapshots.c[name] for name in _NAMES)).where(
        snapshots.c.tenant_id == tx.tenant_id, snapshots.c.session_id == session_id
    )
    row = (await tx.connection.execute(query.order_by(snapshots.c.created_at.desc()).limit(1))).mappings().first()
    return Snapshot(**row) if row else None


async def manifest_of(tx: Transaction, snapshot_id: UUID) -> str | None:
    """Return the manifest of a snapshot as JSON."""
    query = select(snapshots.c.manifest).where(snapshots.c.tenant_id == tx.tenant_id, snapshots.c.id == snapshot_id)
    return await tx.connection.scalar(query)


async def remove_others(tx: Transaction, session_id: UUID, keep: UUID | None) -> None:
    """Remove the session's other snapshots; all of them with none to keep."""
    statement = delete(snapshots).where(snapshots.c.tenant_id == tx.tenant_id, snapshots.c.session_id == session_id)
    await tx.connection.execute(statement.where(snapshots.c.id != keep) if keep else statement)


# ---------------------------------------------------------------------- contents


async def ready_blobs(tx: Transaction, session_id: UUID) -> dict[UUID, str]:
    """Return the digests of the contents that the session has, by their ids."""
    query = select(blobs.c.id, blobs.c.sha256).where(
        blobs.c.tenant_id == tx.tenant_id, blobs.c.session_id == session_id, blobs.c.state == "ready"
    )
    return {row.id: row.sha256 for row in await tx.connection.execute(query)}


async def add_pending(tx: Transaction, session_id: UUID, contents: Mapping[UUID, tuple[str, int]]) -> None:
    """Insert contents that are about to be stored: id → digest and size."""
    now = datetime.now(UTC)
    rows = [
        {
            "tenant_id": tx.tenant_id,
            "id": blob_id,
            "session_id": session_id,
            "sha256": sha256,
            "size": size,
            "state": "pending",
            "created_at": now,
        }
        for blob_id, (sha256, size) in contents.items()
    ]
    if rows:
        await tx.connection.execute(insert(blobs), rows)


async def make_ready(tx: Transaction, ids: Sequence[UUID]) -> int:
    """Turn pending contents into stored ones; return how many there were, for others were swept away meanwhile."""
    return await _move(tx, ids, ("pending",), "ready")


async def retire(tx: Transaction, ids: Sequence[UUID]) -> None:
    """Give up contents that no snapshot needs any more: their objects are to be removed."""
    await _move(tx, ids, ("ready",), "unused")


async def abandon(tx: Transaction, ids: Sequence[UUID]) -> int:
    """Give up contents that did not become ready, and return how many of these are given up now."""
    return await _move(tx, ids, ("pending", "unused"), "unused")


async def unsettled(tx: Transaction, *, pending_before: datetime, limit: int) -> list[tuple[UUID, UUID]]:
    """Return ids and sessions of contents that are given up, or pending from before a time."""
    query = (
        select(blobs.c.id, blobs.c.session_id)
        .where(
            blobs.c.tenant_id == tx.tenant_id,
            or_(blobs.c.state == "unused", (blobs.c.state == "pending") & (blobs.c.created_at < pending_before)),
        )
        .order_by(blobs.c.created_at)
        .limit(limit)
    )
    return [(row.id, row.session_id) for row in await tx.connection.execute(query)]


async def settle(tx: Transaction, blob_id: UUID) -> None:
    """Say that an object that was given up is gone."""
    await tx.connection.execute(
        delete(blobs).where(blobs.c.tenant_id == tx.tenant_id, blobs.c.id == blob_id, blobs.c.state == "unused")
    )


async def _move(tx: Transaction, ids: Sequence[UUID], before: Sequence[str], after: str) -> int:
    moved = 0
    for part in _parts(ids):
        statement = (
            update(blobs)
            .where(blobs.c.tenant_id == tx.tenant_id, blobs.c.id.in_(part), blobs.c.state.in_(before))
            .values(state=after)
            .returning(blobs.c.id)
        )
        moved += len((await tx.connection.execute(statement)).all())
    return moved


def _parts(ids: Sequence[UUID]) -> Iterator[Sequence[UUID]]:
    for start in range(0, len(ids), _AT_ONCE):
        yield ids[start : start + _AT_ONCE]
