"""Queries of accounts (by the role that looks them up, without a tenant) and of what a tenant knows of a person."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from carrel_gateway.identity.rights import Role
from carrel_gateway.identity.tables import accounts, tenants, users
from carrel_gateway.storage.database import Transaction


@dataclass(frozen=True, slots=True)
class Account:
    """A person, above all tenants."""

    id: UUID
    email: str | None
    password_hash: str | None
    issuer: str | None
    subject: str | None
    tenants: tuple[UUID, ...]
    """The first is their home."""
    verified_at: datetime | None
    disabled_at: datetime | None
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Member:
    """What one tenant knows of a person."""

    tenant_id: UUID
    tenant_name: str
    user_id: UUID
    name: str
    email: str | None
    role: Role
    kind: str
    preferences: dict[str, Any]
    disabled_at: datetime | None
    created_at: datetime


async def by_email(connection: AsyncConnection, email: str) -> Account | None:
    """Return the account of an address in its canonical form."""
    return await _one(connection, accounts.c.email == email)


async def by_id(connection: AsyncConnection, account_id: UUID) -> Account | None:
    """Return an account."""
    return await _one(connection, accounts.c.id == account_id)


async def by_subject(connection: AsyncConnection, issuer: str, subject: str) -> Account | None:
    """Return the account of whom an issuer knows under a subject."""
    return await _one(connection, (accounts.c.issuer == issuer) & (accounts.c.subject == subject))


async def add(connection: AsyncConnection, account: Account) -> None:
    """Insert an account.

    Raises
    ------
    IntegrityError
        The address or the subject has one.
    """
    values = {name: getattr(account, name) for name in Account.__slots__}
    await connection.execute(insert(accounts).values(**{**values, "tenants": [str(one) for one in account.tenants]}))


async def set_password(connection: AsyncConnection, account_id: UUID, old: str | None, new: str) -> bool:
    """Exchange the hash of a password, if it is still the old one; whoever has done it by mail is verified."""
    is_old = accounts.c.password_hash.is_(None) if old is None else accounts.c.password_hash == old
    statement = (
        update(accounts)
        .where(accounts.c.id == account_id, is_old, accounts.c.disabled_at.is_(None))
        .values(password_hash=new)
        .returning(accounts.c.id)
    )
    return await connection.scalar(statement) is not None


async def set_verified(connection: AsyncConnection, account_id: UUID) -> None:
    """Note that a person has shown that the address is theirs."""
    statement = update(accounts).where(accounts.c.id == account_id, accounts.c.verified_at.is_(None))
    await connection.execute(statement.values(verified_at=datetime.now(UTC)))


async def link(connection: AsyncConnection, account_id: UUID, issuer: str, subject: str) -> None:
    """Note whom an issuer knows an account as; the caller has seen that it has no issuer."""
    statement = update(accounts).where(accounts.c.id == account_id, accounts.c.issuer.is_(None))
    await connection.execute(statement.values(issuer=issuer, subject=subject))


async def join(connection: AsyncConnection, account_id: UUID, tenant_id: UUID) -> None:
    """Add a tenant to an account's, if it is not one of them; the caller has made the user there."""
    known = await connection.scalar(select(accounts.c.tenants).where(accounts.c.id == account_id).with_for_update())
    if known is None or str(tenant_id) in known:
        return
    joined = update(accounts).where(accounts.c.id == account_id).values(tenants=[*known, str(tenant_id)])
    await connection.execute(joined)


async def all_tenants(connection: AsyncConnection, after: UUID, limit: int) -> list[tuple[UUID, tuple[UUID, ...]]]:
    """Return ids of accounts, in their order, with their tenants."""
    query = select(accounts.c.id, accounts.c.tenants).where(accounts.c.id > after).order_by(accounts.c.id).limit(limit)
    return [(row.id, _ids(row.tenants)) for row in await connection.execute(query)]


async def add_tenant(tx: Transaction, name: str) -> None:
    """Insert the transaction's tenant."""
    await tx.connection.execute(insert(tenants).values(tenant_id=tx.tenant_id, name=name, created_at=datetime.now(UTC)))


async def remove_tenant(tx: Transaction) -> None:
    """Delete the transaction's tenant, with all that it has."""
    await tx.connection.execute(delete(tenants).where(tenants.c.tenant_id == tx.tenant_id))


async def add_member(tx: Transaction, user_id: UUID, *, name: str, email: str | None, role: Role) -> None:
    """Insert a person's user of the tenant."""
    row = {"id": user_id, "name": name, "email": email, "role": role.value, "kind": "person"}
    await tx.connection.execute(insert(users).values(**row, tenant_id=tx.tenant_id, created_at=datetime.now(UTC)))


async def remove_member(tx: Transaction, user_id: UUID) -> None:
    """Delete a user of the tenant."""
    await tx.connection.execute(delete(users).where(users.c.tenant_id == tx.tenant_id, users.c.id == user_id))


async def member(tx: Transaction, user_id: UUID) -> Member | None:
    """Return a user of the tenant."""
    query = (
        select(users, tenants.c.name.label("tenant_name"))
        .join(tenants, tenants.c.tenant_id == users.c.tenant_id)
        .where(users.c.tenant_id == tx.tenant_id, users.c.id == user_id)
    )
    row = (await tx.connection.execute(query)).mappings().first()
    if row is None:
        return None
    return Member(
        tenant_id=tx.tenant_id,
        tenant_name=row["tenant_name"],
        user_id=row["id"],
        name=row["name"],
        email=row["email"],
        role=Role(row["role"]),
        kind=row["kind"],
        preferences=row["preferences"],
        disabled_at=row["disabled_at"],
        created_at=row["created_at"],
    )


async def lock_member(tx: Transaction, user_id: UUID) -> None:
    """Have others who would change the user wait until the transaction ends."""
    query = select(users.c.id).where(users.c.tenant_id == tx.tenant_id, users.c.id == user_id)
    await tx.connection.execute(query.with_for_update(key_share=True))


async def change_member(tx: Transaction, user_id: UUID, changes: dict[str, Any]) -> bool:
    """Change columns of a user; false when there is none."""
    statement = update(users).where(users.c.tenant_id == tx.tenant_id, users.c.id == user_id)
    return await tx.connection.scalar(statement.values(**changes).returning(users.c.id)) is not None


async def _one(connection: AsyncConnection, condition: ColumnElement[bool]) -> Account | None:
    row = (await connection.execute(select(accounts).where(condition))).mappings().first()
    if row is None:
        return None
    return Account(**{name: row[name] for name in Account.__slots__ if name != "tenants"}, tenants=_ids(row["tenants"]))


def _ids(texts: Sequence[str]) -> tuple[UUID, ...]:
    return tuple(UUID(text) for text in texts)
