"""Queries of the registry of artifacts."""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Select, and_, delete, func, insert, or_, select, update

from carrel_gateway.artifacts.tables import artifacts
from carrel_gateway.storage.database import Transaction
from carrel_wire.log import FileCategory


@dataclass(frozen=True, slots=True)
class Artifact:
    """One version of a file."""

    id: UUID
    session_id: UUID
    name: str
    category: FileCategory
    version: int
    size: int
    """Bytes."""
    content_type: str
    sha256: str
    execution_id: UUID | None
    run_id: UUID | None
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Unsettled:
    """A row whose object is to be removed."""

    id: UUID
    session_id: UUID
    state: str


_NAMES = [field.name for field in fields(Artifact)]
_COLUMNS = [artifacts.c[name] for name in _NAMES]


async def add_pending(tx: Transaction, artifact: Artifact) -> None:
    """Insert the row of a file that is about to be written."""
    values = {name: getattr(artifact, name) for name in _NAMES}
    values |= {"tenant_id": tx.tenant_id, "state": "pending", "version": None}
    await tx.connection.execute(insert(artifacts).values(**values))


async def next_version(tx: Transaction, session_id: UUID, category: str, name: str) -> int:
    """Return a version that the name never had; the caller has locked the session."""
    last = await tx.connection.scalar(
        select(func.max(artifacts.c.version)).where(
            artifacts.c.tenant_id == tx.tenant_id,
            artifacts.c.session_id == session_id,
            artifacts.c.category == category,
            artifacts.c.name == name,
        )
    )
    return (last or 0) + 1


async def make_ready(tx: Transaction, artifact: Artifact) -> bool:
    """Turn a pending row into the version; false when it was swept away meanwhile."""
    statement = (
        update(artifacts)
        .where(artifacts.c.tenant_id == tx.tenant_id, artifacts.c.id == artifact.id, artifacts.c.state == "pending")
        .values(
            state="ready",
            version=artifact.version,
            size=artifact.size,
            sha256=artifact.sha256,
            created_at=artifact.created_at,
        )
        .returning(artifacts.c.id)
    )
    return await tx.connection.scalar(statement) is not None


async def find(tx: Transaction, artifact_id: UUID) -> Artifact | None:
    """Return a version by its id."""
    return await _first(tx, _ready(tx).where(artifacts.c.id == artifact_id))


async def newest(tx: Transaction, session_id: UUID, name: str, category: str) -> Artifact | None:
    """Return the newest version of a name."""
    query = _ready(tx).where(
        artifacts.c.session_id == session_id, artifacts.c.category == category, artifacts.c.name == name
    )
    return await _first(tx, query.order_by(artifacts.c.version.desc()).limit(1))


async def newest_of_all(
    tx: Transaction,
    session_id: UUID,
    *,
    category: str | None,
    prefix: str,
    after: tuple[str, str] | None = None,
    limit: int | None = None,
    offset: int = 0,
) -> list[Artifact]:
    """Return the newest version of every name, by name and category, after such a pair."""
    mine = [artifacts.c.session_id == session_id]
    if category:
        mine.append(artifacts.c.category == category)
    if prefix:
        mine.append(func.substr(artifacts.c.name, 1, len(prefix)) == prefix)  # LIKE ignores case on SQLite
    last = (
        select(artifacts.c.category, artifacts.c.name, func.max(artifacts.c.version).label("version"))
        .where(artifacts.c.tenant_id == tx.tenant_id, artifacts.c.state == "ready", *mine)
        .group_by(artifacts.c.category, artifacts.c.name)
        .subquery()
    )
    query = (
        _ready(tx)
        .where(*mine)
        .join(
            last,
            (last.c.category == artifacts.c.category)
            & (last.c.name == artifacts.c.name)
            & (last.c.version == artifacts.c.version),
        )
        .order_by(artifacts.c.name, artifacts.c.category)
        .limit(limit)
        .offset(offset)
    )
    if after is not None:
        name, kind = after
        query = query.where(or_(artifacts.c.name > name, and_(artifacts.c.name == name, artifacts.c.category > kind)))
    return [_artifact(row) for row in (await tx.connection.execute(query)).mappings()]


async def versions(
    tx: Transaction, artifact: Artifact, *, before: int | None, limit: int, offset: int
) -> list[Artifact]:
    """Return the versions of a file's name that are there, newest first, before one."""
    query = _ready(tx).where(
        artifacts.c.session_id == artifact.session_id,
        artifacts.c.category == artifact.category,
        artifacts.c.name == artifact.name,
    )
    if before is not None:
        query = query.where(artifacts.c.version < before)
    query = query.order_by(artifacts.c.version.desc()).limit(limit).offset(offset)
    return [_artifact(row) for row in (await tx.connection.execute(query)).mappings()]


async def mark_deleted(tx: Transaction, session_id: UUID, name: str, category: str) -> list[UUID]:
    """Take all versions of a name away from callers, and return their ids."""
    statement = (
        update(artifacts)
        .where(
            artifacts.c.tenant_id == tx.tenant_id,
            artifacts.c.session_id == session_id,
            artifacts.c.category == category,
            artifacts.c.name == name,
            artifacts.c.state == "ready",
        )
        .values(state="deleted")
        .returning(artifacts.c.id)
    )
    return list(await tx.connection.scalars(statement))


async def unsettled(tx: Transaction, *, pending_before: datetime, limit: int) -> list[Unsettled]:
    """Return deleted rows, and pending ones from before a time, oldest first."""
    query = (
        select(artifacts.c.id, artifacts.c.session_id, artifacts.c.state)
        .where(
            artifacts.c.tenant_id == tx.tenant_id,
            or_(
                artifacts.c.state == "deleted",
                (artifacts.c.state == "pending") & (artifacts.c.created_at < pending_before),
            ),
        )
        .order_by(artifacts.c.created_at)
        .limit(limit)
    )
    return [Unsettled(*row) for row in await tx.connection.execute(query)]


async def condemn(tx: Transaction, artifact_id: UUID) -> bool:
    """Take a row that is pending or deleted for deleted, so that it never becomes ready; false for all others."""
    statement = (
        update(artifacts)
        .where(
            artifacts.c.tenant_id == tx.tenant_id,
            artifacts.c.id == artifact_id,
            artifacts.c.state.in_(("pending", "deleted")),
        )
        .values(state="deleted")
        .returning(artifacts.c.id)
    )
    return await tx.connection.scalar(statement) is not None


async def settle(tx: Transaction, artifact_id: UUID) -> None:
    """Say that the object is gone: a version keeps its row, a file that never became one does not."""
    mine = (
        artifacts.c.tenant_id == tx.tenant_id,
        artifacts.c.id == artifact_id,
        artifacts.c.state == "deleted",
    )
    await tx.connection.execute(delete(artifacts).where(*mine, artifacts.c.version.is_(None)))
    await tx.connection.execute(update(artifacts).where(*mine).values(state="removed"))


def _ready(tx: Transaction) -> Select[Any]:
    return select(*_COLUMNS).where(artifacts.c.tenant_id == tx.tenant_id, artifacts.c.state == "ready")


async def _first(tx: Transaction, query: Select[Any]) -> Artifact | None:
    row = (await tx.connection.execute(query)).mappings().first()
    return _artifact(row) if row else None


def _artifact(row: Any) -> Artifact:
    return Artifact(**row)
