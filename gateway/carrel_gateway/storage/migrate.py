"""Brings a database to the schema of this version, and says when it is not of it. The steps are in `migrations`.

The embedded database is brought up by the gateway itself. Postgres is brought up by `carrel db upgrade`, or

    python -m carrel_gateway.storage.migrate

with CARREL_DATABASE_URL naming the role that owns the tables; of several that do it at the same time, one does the
work. That role must be able to bypass row-level security: it is forced on owners too, and a backfill would silently
do nothing.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sqlalchemy import Connection, inspect, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from carrel_gateway.errors import CarrelError
from carrel_gateway.settings import Settings
from carrel_gateway.storage.dialect import APP_ROLE, LOGIN_ROLE, WORKER_ROLE
from carrel_gateway.storage.engine import connect_errors, database_url, make_engine, sqlite_file

if TYPE_CHECKING:
    from alembic.config import Config

HEAD: Final = "0019"
"""Revision of this version's schema."""
KNOWN: Final = frozenset(f"{number:04}" for number in range(1, int(HEAD) + 1))
"""Revisions that this version can start from."""
_LOCK: Final = 0x63617272656C  # "carrel": number of the advisory lock


class SchemaMismatch(CarrelError):
    """The database is not of this version's schema."""

    code = "schema_mismatch"


class MigrationFailed(CarrelError):
    """The database could not be brought to this version's schema."""

    code = "migration_failed"


async def upgrade(url: str) -> None:
    """Bring the database to this version's schema; quick when it is there already.

    Raises
    ------
    SchemaMismatch
        It is of a version that this one does not know.
    MigrationFailed
        It does not answer, or the role lacks a right; the message says which.
    """
    parsed = database_url(url)
    engine = make_engine(parsed, pool_size=1, max_overflow=0)
    try:
        async with engine.begin() as connection:
            if parsed.get_backend_name() != "sqlite":
                await connection.execute(text("SELECT pg_advisory_xact_lock(:number)"), {"number": _LOCK})
                await require_all_tenants(connection)
            revision = await connection.run_sync(revision_of)
            if revision is not None and revision not in KNOWN:
                raise _unknown(revision)
            if revision != HEAD:
                await connection.run_sync(_upgrade)
    except (DBAPIError, *connect_errors(parsed)) as error:
        raise MigrationFailed(
            f"the database could not be brought to this version's schema: {_reason(error)}"
        ) from error
    finally:
        await engine.dispose()


async def current(url: str) -> str | None:
    """Return the revision of a database's schema; none when it has none yet. Changes nothing.

    Raises
    ------
    MigrationFailed
        It does not answer.
    """
    parsed = database_url(url)
    file = sqlite_file(parsed)
    if file is not None and not file.exists():  # to connect would make it
        return None
    engine = make_engine(parsed, pool_size=1, max_overflow=0)
    try:
        async with engine.connect() as connection:
            return await connection.run_sync(revision_of)
    except (DBAPIError, *connect_errors(parsed)) as error:
        raise MigrationFailed(f"the database could not be asked for its schema: {_reason(error)}") from error
    finally:
        await engine.dispose()


def _reason(error: BaseException) -> str:
    return str(getattr(error, "orig", None) or error).splitlines()[0]


async def require_current(connection: AsyncConnection, take_role: Callable[[], Awaitable[None]]) -> None:
    """Check the schema, as the role that the gateway works as.

    Raises
    ------
    SchemaMismatch
        The schema is not this version's, or the login may not act as the gateway's roles.
    """
    if not await connection.run_sync(_has_revision):
        raise _behind("not there")
    try:
        await take_role()
        revision = await connection.run_sync(revision_of)
    except DBAPIError as error:
        if error.connection_invalidated:
            raise
        raise SchemaMismatch(
            "the login of CARREL_DATABASE_URL may not act as the gateway; as the role that migrates run: "
            f"GRANT {APP_ROLE}, {LOGIN_ROLE}, {WORKER_ROLE} TO <login>"
        ) from error
    if revision is not None and revision not in KNOWN:
        raise _unknown(revision)
    if revision != HEAD:
        raise _behind(revision)


def revision_of(connection: Connection) -> str | None:
    """Return the revision of a database's schema; none when it has none yet."""
    if not _has_revision(connection):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


def _has_revision(connection: Connection) -> bool:
    return inspect(connection).has_table("alembic_version")


def configuration(connection: Connection) -> Config:
    """Return the configuration with which alembic works on an open connection."""
    from alembic.config import Config  # noqa: PLC0415  a tenth of a start, and only a database that is behind needs it

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent.parent / "migrations"))
    config.attributes["connection"] = connection
    return config


def _upgrade(connection: Connection) -> None:
    from alembic import command  # noqa: PLC0415  as above

    command.upgrade(configuration(connection), HEAD)


async def require_all_tenants(connection: AsyncConnection) -> None:
    """Check that the role sees the rows of all tenants.

    Raises
    ------
    MigrationFailed
        Row-level security hides them from it.
    """
    may = await connection.scalar(text("SELECT rolsuper OR rolbypassrls FROM pg_roles WHERE rolname = current_user"))
    if not may:
        raise MigrationFailed(
            "the role that migrates must bypass row-level security; as a superuser run: ALTER ROLE … BYPASSRLS"
        )


def _behind(revision: str | None) -> SchemaMismatch:
    return SchemaMismatch(
        f"the database's schema is {revision or 'not there'}, this version needs {HEAD}; run: carrel db upgrade"
    )


def _unknown(revision: str) -> SchemaMismatch:
    return SchemaMismatch(
        f"the database's schema is {revision}, which this version ({HEAD}) does not know; "
        "use the newer Carrel that made it"
    )


def main() -> int:
    """Migrate the database of the settings; return the exit code."""
    try:
        asyncio.run(upgrade(Settings().database))
    except CarrelError as error:
        sys.stderr.write(f"{error.message}\n")
        return 1
    sys.stdout.write(f"the database has the schema {HEAD}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
