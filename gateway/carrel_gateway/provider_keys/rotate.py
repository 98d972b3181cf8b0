"""Encrypts the stored keys of providers, and the secrets of MCP servers, by the newest key of the installation.

    python -m carrel_gateway.provider_keys.rotate

Put a new key in front in CARREL_SECRET_KEYS of all gateways, start them again, run this, and take the old key away. Of
Postgres, CARREL_DATABASE_URL names the role that migrates: nobody else sees all tenants. An embedded database must not
be served meanwhile. What cannot be opened any more stays as it is, and is named.
"""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

from sqlalchemy import select, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from carrel_gateway.errors import CarrelError, Unavailable
from carrel_gateway.identity.sealed import Sealed
from carrel_gateway.identity.secrets import MasterKeys, Unsealable, load_master_keys
from carrel_gateway.mcp_servers.service import SEALED_SERVERS
from carrel_gateway.provider_keys.sealing import SEALED
from carrel_gateway.settings import Settings
from carrel_gateway.storage.engine import connect_errors, database_url, make_engine, sqlite_file
from carrel_gateway.storage.folder import FolderLock
from carrel_gateway.storage.migrate import require_all_tenants

_SEALED: Final = (SEALED, SEALED_SERVERS)


@dataclass
class Rotated:
    """What was done."""

    changed: int = 0
    unsealable: list[tuple[UUID, str]] = field(default_factory=list[tuple[UUID, str]])
    """Tenant and name of what cannot be opened."""


async def rotate(settings: Settings, secrets: MasterKeys) -> Rotated:
    """Encrypt anew what the newest key did not encrypt; in one transaction.

    Raises
    ------
    Unavailable
        The database does not answer.
    MigrationFailed
        The role does not see all tenants.
    DataFolderInUse
        The embedded database is served.
    """
    url = database_url(settings.database)
    file = sqlite_file(url)
    lock = FolderLock(file.parent) if file else None
    engine = make_engine(url, pool_size=1, max_overflow=0)
    found = Rotated()
    try:
        async with engine.begin() as connection:
            if file is None:
                await require_all_tenants(connection)
            for sealed in _SEALED:
                await _rotate(connection, sealed, secrets, found)
    except (DBAPIError, *connect_errors(url)) as error:
        raise Unavailable("the database does not answer, or its schema is not of this version") from error
    finally:
        await engine.dispose()
        if lock:
            lock.release()
    return found


async def _rotate(connection: AsyncConnection, sealed: Sealed, secrets: MasterKeys, found: Rotated) -> None:
    query = select(sealed.table).where(sealed.table.c.sealed.is_not(None)).with_for_update()
    for row in (await connection.execute(query)).mappings().all():
        try:
            anew = sealed.resealed(secrets, row)
        except Unsealable:
            found.unsealable.append((row["tenant_id"], sealed.told(row)))
            continue
        if anew is not None:
            this = [column == row[column.name] for column in sealed.table.primary_key.columns]
            await connection.execute(update(sealed.table).where(*this).values(sealed=anew))
            found.changed += 1


def main() -> int:
    """Rotate the keys in the database of the settings; return the exit code."""
    try:
        settings = Settings()
        found = asyncio.run(rotate(settings, load_master_keys(settings)))
    except CarrelError as error:
        sys.stderr.write(f"{error.message}\n")
        return 1
    sys.stdout.write(f"{found.changed} secrets were encrypted anew\n")
    for tenant_id, told in found.unsealable:
        sys.stderr.write(f"cannot be opened: {told} in tenant {tenant_id}\n")
    return 1 if found.unsealable else 0


if __name__ == "__main__":
    sys.exit(main())
