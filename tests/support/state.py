"""A process's state without kernels: database, bus and object store of given settings, and tenants to work as."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, cast
from uuid import UUID

from sqlalchemy import insert

from carrel_gateway.context import Principal, ProcessContext
from carrel_gateway.executors.base import SessionRef
from carrel_gateway.identity.secrets import load_master_keys
from carrel_gateway.identity.tables import tenants, users
from carrel_gateway.identity.tokens import AccessTokens
from carrel_gateway.quotas.keeper import QuotaKeeper
from carrel_gateway.settings import Settings
from carrel_gateway.storage.database import Database
from carrel_gateway.storage.factory import open_bus, open_cache, open_objects, open_windows
from carrel_gateway.storage.ids import new_id


class NoKernels:
    """Stands where executor and pool are; keeps what was released, and knows what else is on the cluster."""

    def __init__(self) -> None:
        self.released: list[SessionRef] = []
        self.made: dict[UUID, str] = {}
        self.orphans: list[SessionRef] = []
        self.workspaces: list[UUID] = []

    async def made_by_gateways(self) -> list[SessionRef]:
        return self.orphans

    async def old_workspaces(self) -> list[UUID]:
        return self.workspaces

    async def made_elsewhere(self, session_id: UUID) -> str | None:
        return self.made.get(session_id)

    async def release(self, session: SessionRef) -> None:
        self.released.append(session)

    async def aclose(self) -> None:
        pass


@asynccontextmanager
async def open_state(settings: Settings) -> AsyncGenerator[ProcessContext]:
    """Open a context; closes it at the end."""
    kernels = NoKernels()
    secrets = load_master_keys(settings)
    database = await Database.connect(settings)
    context = ProcessContext(
        settings=settings,
        database=database,
        bus=await open_bus(settings),
        cache=await open_cache(settings),
        windows=await open_windows(settings),
        objects=await open_objects(settings),
        executor=cast("Any", kernels),
        kernels=cast("Any", kernels),
        quotas=QuotaKeeper(database, settings),
        secrets=secrets,
        tokens=AccessTokens(secrets, lifetime_seconds=settings.access_token_seconds),
        gateway_id=new_id(),
    )
    try:
        yield context
    finally:
        await context.aclose()


async def new_principal(database: Database) -> Principal:
    """Make a tenant of its own, so that tests share a database and see nothing of each other."""
    principal = Principal(tenant_id=new_id(), user_id=new_id())
    same = {"tenant_id": principal.tenant_id, "name": "test", "created_at": datetime.now(UTC)}
    async with database.transaction(principal.tenant_id) as tx:
        await tx.connection.execute(insert(tenants).values(**same))
        await tx.connection.execute(insert(users).values(**same, id=principal.user_id))
    return principal


async def chunks_of(*parts: bytes) -> AsyncIterator[bytes]:
    """Yield the parts."""
    for part in parts:
        yield part


async def collected(chunks: AsyncIterator[bytes]) -> bytes:
    """Return all of the bytes."""
    return b"".join([chunk async for chunk in chunks])
