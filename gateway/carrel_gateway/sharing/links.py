"""Queries of links that show a session to whoever has them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import insert, select, update

from carrel_gateway.sharing.tables import share_links
from carrel_gateway.storage.database import Transaction


@dataclass(frozen=True, slots=True)
class ShareLink:
    """A link, without its token, which only its maker has seen."""

    id: UUID
    session_id: UUID
    user_id: UUID
    created_at: datetime
    expires_at: datetime
    revoked_at: datetime | None
    maker_id: UUID | None
    """The person behind `user_id`: they themselves, or whoever made the key of a service account."""


async def add(tx: Transaction, link: ShareLink, digest: str) -> None:
    """Insert a link."""
    values = {name: getattr(link, name) for name in ShareLink.__slots__}
    await tx.connection.execute(insert(share_links).values(tenant_id=tx.tenant_id, digest=digest, **values))


async def of_session(tx: Transaction, session_id: UUID) -> list[ShareLink]:
    """Return the links of a session, newest first."""
    query = (
        select(share_links)
        .where(share_links.c.tenant_id == tx.tenant_id, share_links.c.session_id == session_id)
        .order_by(share_links.c.id.desc())
    )
    return [_link(row) for row in (await tx.connection.execute(query)).mappings()]


async def find(tx: Transaction, session_id: UUID, link_id: UUID, *, lock: bool = False) -> ShareLink | None:
    """Return a link of a session, whether it shows anything or not; `lock` has others who would change it wait."""
    query = select(share_links).where(
        share_links.c.tenant_id == tx.tenant_id, share_links.c.session_id == session_id, share_links.c.id == link_id
    )
    row = (await tx.connection.execute(query.with_for_update() if lock else query)).mappings().first()
    return _link(row) if row else None


async def find_open(tx: Transaction, digest: str) -> ShareLink | None:
    """Return a link that is neither over nor revoked."""
    query = select(share_links).where(
        share_links.c.tenant_id == tx.tenant_id,
        share_links.c.digest == digest,
        share_links.c.revoked_at.is_(None),
        share_links.c.expires_at > tx.dialect.now(),
    )
    row = (await tx.connection.execute(query)).mappings().first()
    return _link(row) if row else None


async def revoke(tx: Transaction, session_id: UUID, link_id: UUID) -> bool:
    """Have a link show nothing any more; false when there is none that could."""
    statement = (
        update(share_links)
        .where(
            share_links.c.tenant_id == tx.tenant_id,
            share_links.c.session_id == session_id,
            share_links.c.id == link_id,
            share_links.c.revoked_at.is_(None),
        )
        .values(revoked_at=tx.dialect.now())
        .returning(share_links.c.id)
    )
    return await tx.connection.scalar(statement) is not None


def _link(row: Any) -> ShareLink:
    return ShareLink(**{name: row[name] for name in ShareLink.__slots__})
