"""Queries of invitations: rows of a tenant's, each good once, until its time is over or it is taken back."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import ColumnElement, delete, insert, select, update

from carrel_gateway.identity.rights import Role
from carrel_gateway.identity.tables import one_time_tokens
from carrel_gateway.storage.database import Transaction

_PURPOSE: Final = "invite"


@dataclass(frozen=True, slots=True)
class Pending:
    """An invitation that nobody has accepted yet."""

    id: UUID
    email: str
    role: Role
    invited_by: UUID
    """Id of the user."""
    created_at: datetime
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Sender:
    """Who sent an invitation."""

    user_id: UUID
    maker_id: UUID | None
    """The person behind it: they themselves, or whoever made the key of a service account."""


async def add(
    tx: Transaction, invitation_id: UUID, sender: Sender, *, email: str, role: Role, digest: str, seconds: float
) -> None:
    """Insert an invitation."""
    await tx.connection.execute(
        insert(one_time_tokens).values(
            tenant_id=tx.tenant_id,
            id=invitation_id,
            user_id=sender.user_id,
            purpose=_PURPOSE,
            digest=digest,
            detail={"email": email, "role": role.value, "maker_id": sender.maker_id},
            created_at=tx.dialect.now(),
            expires_at=tx.dialect.later(seconds),
        )
    )


async def find(tx: Transaction, invitation_id: UUID) -> Pending | None:
    """Return an invitation that can be accepted."""
    query = select(one_time_tokens).where(*_pending(tx), one_time_tokens.c.id == invitation_id)
    row = (await tx.connection.execute(query)).mappings().first()
    return _invitation(row) if row else None


async def page(tx: Transaction, *, before: UUID | None, limit: int) -> list[Pending]:
    """Return invitations that can be accepted, newest first."""
    query = select(one_time_tokens).where(*_pending(tx))
    if before is not None:
        query = query.where(one_time_tokens.c.id < before)
    rows = await tx.connection.execute(query.order_by(one_time_tokens.c.id.desc()).limit(limit))
    return [_invitation(row) for row in rows.mappings()]


async def remove(tx: Transaction, invitation_id: UUID) -> Role | None:
    """Delete an invitation that could be accepted, and return the role it would have given."""
    statement = delete(one_time_tokens).where(*_pending(tx), one_time_tokens.c.id == invitation_id)
    detail = await tx.connection.scalar(statement.returning(one_time_tokens.c.detail))
    return None if detail is None else Role(detail["role"])


async def mark(tx: Transaction, invitation_id: UUID, *, used: bool) -> Sender | None:
    """Change whether an invitation was accepted, and return who sent it; of two at the same time one gets none."""
    is_open = one_time_tokens.c.used_at.is_(None) if used else one_time_tokens.c.used_at.is_not(None)
    statement = (
        update(one_time_tokens)
        .where(
            one_time_tokens.c.tenant_id == tx.tenant_id,
            one_time_tokens.c.id == invitation_id,
            one_time_tokens.c.purpose == _PURPOSE,
            is_open,
        )
        .values(used_at=tx.dialect.now() if used else None)
        .returning(one_time_tokens.c.user_id, one_time_tokens.c.detail)
    )
    row = (await tx.connection.execute(statement)).first()
    if row is None:
        return None
    maker_id = row.detail.get("maker_id")  # those of a week ago have none
    return Sender(row.user_id, UUID(maker_id) if maker_id else None)


def _pending(tx: Transaction) -> tuple[ColumnElement[bool], ...]:
    return (
        one_time_tokens.c.tenant_id == tx.tenant_id,
        one_time_tokens.c.purpose == _PURPOSE,
        one_time_tokens.c.used_at.is_(None),
        one_time_tokens.c.expires_at > tx.dialect.now(),
    )


def _invitation(row: Any) -> Pending:
    return Pending(
        row["id"],
        row["detail"]["email"],
        Role(row["detail"]["role"]),
        row["user_id"],
        row["created_at"],
        row["expires_at"],
    )
