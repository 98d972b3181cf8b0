"""People to test with: users of a tenant, and keys of theirs, as rows."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import insert, update

from carrel_gateway.context import Principal
from carrel_gateway.identity.presented import Kind, digest_of, hint_of, make
from carrel_gateway.identity.rights import Role, rights_of
from carrel_gateway.identity.tables import api_keys, team_members, teams, users
from carrel_gateway.storage.database import Database
from carrel_gateway.storage.ids import new_id


async def new_user(database: Database, tenant_id: UUID, role: Role = Role.USER) -> Principal:
    """Make a user of a tenant."""
    user_id = new_id()
    row = {"tenant_id": tenant_id, "id": user_id, "name": "test", "created_at": datetime.now(UTC), "role": role.value}
    async with database.transaction(tenant_id) as tx:
        await tx.connection.execute(insert(users).values(**row))
    return Principal(tenant_id, user_id, role, rights_of(role))


async def add_service(database: Database, account: Principal) -> None:
    """Make the row of a service account that administers the tenant."""
    row = {"tenant_id": account.tenant_id, "id": account.user_id, "name": "test", "created_at": datetime.now(UTC)}
    async with database.transaction(account.tenant_id) as tx:
        await tx.connection.execute(insert(users).values(**row, role=Role.ADMIN.value, kind="service"))


async def new_key(database: Database, owner: Principal, **columns: Any) -> tuple[str, UUID]:
    """Make a key of a user's, and return it with the id of its row."""
    key, key_id = make(Kind.KEY, owner.tenant_id), new_id()
    row = {
        "tenant_id": owner.tenant_id,
        "id": key_id,
        "user_id": owner.user_id,
        "name": "test",
        "digest": digest_of(key).hex(),
        "hint": hint_of(key),
        "created_at": datetime.now(UTC),
        "expires_at": datetime.now(UTC) + timedelta(days=1),
        **columns,
    }
    async with database.transaction(owner.tenant_id) as tx:
        await tx.connection.execute(insert(api_keys).values(**row))
    return key, key_id


async def new_team(database: Database, *members: Principal, role: Role = Role.USER) -> UUID:
    """Make a team of users who have the same role in it."""
    team_id = new_id()
    same = {"tenant_id": members[0].tenant_id, "created_at": datetime.now(UTC)}
    async with database.transaction(members[0].tenant_id) as tx:
        await tx.connection.execute(insert(teams).values(**same, id=team_id, name=str(team_id)))
        for member in members:
            row = {**same, "team_id": team_id, "user_id": member.user_id, "role": role.value}
            await tx.connection.execute(insert(team_members).values(**row))
    return team_id


async def change_user(database: Database, user: Principal, **columns: Any) -> None:
    """Change a user's row."""
    async with database.transaction(user.tenant_id) as tx:
        await tx.connection.execute(
            update(users).where(users.c.tenant_id == user.tenant_id, users.c.id == user.user_id).values(**columns)
        )


async def change_key(database: Database, owner: Principal, key_id: UUID, **columns: Any) -> None:
    """Change a key's row."""
    async with database.transaction(owner.tenant_id) as tx:
        await tx.connection.execute(
            update(api_keys).where(api_keys.c.tenant_id == owner.tenant_id, api_keys.c.id == key_id).values(**columns)
        )
