"""Encrypts the stored keys of providers by the newest key of the installation.

    python -m carrel_gateway.provider_keys.rotate

Put a new key in front in CARREL_SECRET_KEYS of all gateways, start them again, run this, and take the old key away. Of
Postgres, CARREL_DATABASE_URL names the role that migrates: nobody else sees all tenants. An embedded database must not
be served meanwhile. What cannot be opened any more stays as it is, and is named.
"""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import select, update
from sqlalchemy.exc import DBAPIError

from carrel_gateway.errors import CarrelError, Unavailable
from carrel_gateway.identity.secrets import MasterKeys, Unsealable, load_master_keys
from carrel_gateway.provider_keys.repository import StoredKey
from carrel_gateway.provider_keys.sealing import resealed
from carrel_gateway.provider_keys.tables import provider_keys
from carrel_gateway.settings import Settings
from carrel_gateway.storage.engine import connect_errors, database_url, make_engine, sqlite_file
from carrel_gateway.storage.folder import FolderLock
from carrel_gateway.storage.migrate import require_all_tenants


@dataclass(frozen=True, slots=True)
class Rotated:
    """What was done."""

    changed: int
    unsealable: list[tuple[UUID, UUID, str]]
    """Tenant, holder and provider of the keys that cannot be opened."""


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
    found = Rotated(0, [])
    try:
        async with engine.begin() as connection:
            if file is None:
                await require_all_tenants(connection)
            for row in (await connection.execute(select(provider_keys).with_for_update())).mappings().all():
                stored = StoredKey(**{name: row[name] for name in StoredKey.__slots__})
                try:
                    sealed = resealed(secrets, row["tenant_id"], stored)
                except Unsealable:
                    found.unsealable.append((row["tenant_id"], stored.holder_id, stored.provider))
                    continue
                if sealed is None:
                    continue
                await connection.execute(
                    update(provider_keys)
                    .where(
                        provider_keys.c.tenant_id == row["tenant_id"],
                        provider_keys.c.holder_id == stored.holder_id,
                        provider_keys.c.provider == stored.provider,
                    )
                    .values(sealed=sealed)
                )
                found = Rotated(found.changed + 1, found.unsealable)
    except (DBAPIError, *connect_errors(url)) as error:
        raise Unavailable("the database does not answer, or its schema is not of this version") from error
    finally:
        await engine.dispose()
        if lock:
            lock.release()
    return found


def main() -> int:
    """Rotate the keys in the database of the settings; return the exit code."""
    settings = Settings()
    try:
        found = asyncio.run(rotate(settings, load_master_keys(settings)))
    except CarrelError as error:
        sys.stderr.write(f"{error.message}\n")
        return 1
    sys.stdout.write(f"{found.changed} keys were encrypted anew\n")
    for tenant_id, holder_id, provider in found.unsealable:
        sys.stderr.write(f"cannot be opened: provider {provider} of {holder_id} in tenant {tenant_id}\n")
    return 1 if found.unsealable else 0


if __name__ == "__main__":
    sys.exit(main())
