"""Queries of uploads in parts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Literal, TypeAlias
from uuid import UUID

from sqlalchemy import delete, func, insert, or_, select, update

from carrel_gateway.storage.database import Transaction
from carrel_gateway.uploads.tables import uploads

UploadState: TypeAlias = Literal["open", "done", "ended"]


@dataclass(frozen=True, slots=True)
class Upload:
    """A file of which parts may have come."""

    id: UUID
    session_id: UUID
    name: str
    content_type: str
    length: int
    """Bytes of the whole file."""
    received: int
    parts: list[str]
    state: UploadState
    artifact_id: UUID | None
    created_at: datetime
    updated_at: datetime

    @property
    def is_whole(self) -> bool:
        """Whether all bytes are there."""
        return self.received == self.length


async def add(tx: Transaction, upload: Upload) -> None:
    """Insert an upload."""
    values = {name: getattr(upload, name) for name in Upload.__slots__}
    await tx.connection.execute(insert(uploads).values(tenant_id=tx.tenant_id, **values))


async def find(tx: Transaction, session_id: UUID, upload_id: UUID) -> Upload | None:
    """Return an upload that was not given up."""
    query = select(uploads).where(
        uploads.c.tenant_id == tx.tenant_id,
        uploads.c.session_id == session_id,
        uploads.c.id == upload_id,
        uploads.c.state != "ended",
    )
    row = (await tx.connection.execute(query)).mappings().first()
    return _upload(row) if row else None


async def count_open(tx: Transaction, session_id: UUID) -> int:
    """Return how many uploads of a session are going on."""
    query = select(func.count()).where(
        uploads.c.tenant_id == tx.tenant_id, uploads.c.session_id == session_id, uploads.c.state == "open"
    )
    return await tx.connection.scalar(query) or 0


async def add_part(tx: Transaction, upload: Upload, part: str, size: int, now: datetime) -> Upload | None:
    """Count a part that is stored; none when the upload has ended, or has other parts meanwhile."""
    grown = replace(upload, parts=[*upload.parts, part], received=upload.received + size, updated_at=now)
    statement = (
        update(uploads)
        .where(
            uploads.c.tenant_id == tx.tenant_id,
            uploads.c.id == upload.id,
            uploads.c.state == "open",
            uploads.c.received == upload.received,
        )
        .values(parts=grown.parts, received=grown.received, updated_at=now)
        .returning(uploads.c.id)
    )
    return None if await tx.connection.scalar(statement) is None else grown


async def end(
    tx: Transaction, upload_id: UUID, state: UploadState, now: datetime, artifact_id: UUID | None = None
) -> bool:
    """End an upload that is open; false for all others."""
    statement = (
        update(uploads)
        .where(uploads.c.tenant_id == tx.tenant_id, uploads.c.id == upload_id, uploads.c.state == "open")
        .values(state=state, artifact_id=artifact_id, updated_at=now)
        .returning(uploads.c.id)
    )
    return await tx.connection.scalar(statement) is not None


async def idle(
    tx: Transaction, *, open_before: datetime, whole_before: datetime, ended_before: datetime, limit: int
) -> list[Upload]:
    """Return uploads that stand still since a time, those that are whole since another, and those that ended."""
    query = (
        select(uploads)
        .where(
            uploads.c.tenant_id == tx.tenant_id,
            or_(
                (uploads.c.state == "open") & (uploads.c.updated_at < open_before),
                (uploads.c.state == "open")
                & (uploads.c.received == uploads.c.length)
                & (uploads.c.updated_at < whole_before),
                (uploads.c.state != "open") & (uploads.c.updated_at < ended_before),
            ),
        )
        .order_by(uploads.c.updated_at)
        .limit(limit)
    )
    return [_upload(row) for row in (await tx.connection.execute(query)).mappings()]


async def remove(tx: Transaction, upload_id: UUID) -> None:
    """Delete the row of an upload that has ended."""
    await tx.connection.execute(
        delete(uploads).where(uploads.c.tenant_id == tx.tenant_id, uploads.c.id == upload_id, uploads.c.state != "open")
    )


def _upload(row: Any) -> Upload:
    return Upload(**{name: row[name] for name in Upload.__slots__})
