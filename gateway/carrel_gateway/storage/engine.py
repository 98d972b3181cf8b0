"""Makes engines from a database's URL, with what each database needs on every connection. Opens nothing by itself."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Final

from sqlalchemy import URL, Connection, event, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool

from carrel_gateway.errors import CarrelError
from carrel_gateway.storage import sqlite

CONNECT_SECONDS: Final = 5
CHECKOUT_SECONDS: Final = 10
COMMAND_SECONDS: Final = 60
"""No statement of the gateway takes so long; one that does hangs on a dead connection."""
IDLE_SECONDS: Final = 10
"""A transaction of which Postgres hears nothing for so long is over: whoever began it stands still or is gone, and
others may wait for its rows."""
_GONE: Final = {  # milliseconds, but the keepalives, which are seconds
    "client_connection_check_interval": "5000",  # also while a statement waits for rows of another transaction
    "tcp_keepalives_idle": "15",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "30000",
}
"""By which Postgres notices a gateway that is gone without a word, as when its node loses power; by itself it takes
hours. Source: "Connection Settings" of PostgreSQL's manual."""
_BUSY_MILLISECONDS: Final = 10_000
WRITE: Final = "carrel_write"
"""Execution option of connections whose transaction writes; SQLite must know it at the beginning."""


class InvalidDatabaseUrl(CarrelError):
    """CARREL_DATABASE_URL cannot be used; the message says why, without the URL, which may hold a password."""

    code = "invalid_database_url"


def database_url(url: str) -> URL:
    """Return the URL with the driver that is used.

    Raises
    ------
    InvalidDatabaseUrl
        It is no URL, or of another database.
    """
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError) as error:
        raise InvalidDatabaseUrl("CARREL_DATABASE_URL is no URL; postgresql://user@host/name is one") from error
    match parsed.get_backend_name():
        case "postgresql" | "postgres":
            return parsed.set(drivername="postgresql+asyncpg")
        case "sqlite":
            if not parsed.database or parsed.database == ":memory:":
                raise InvalidDatabaseUrl("CARREL_DATABASE_URL must name a file: sqlite:////absolute/path/carrel.db")
            return parsed.set(drivername="sqlite+aiosqlite")
        case other:
            raise InvalidDatabaseUrl(f"CARREL_DATABASE_URL must begin with postgresql:// or sqlite://, not {other}://")


def sqlite_file(url: URL) -> Path | None:
    """Return the file of an SQLite database; none for another database."""
    return Path(url.database or "") if url.get_backend_name() == "sqlite" else None


def make_engine(url: URL, *, pool_size: int, max_overflow: int) -> AsyncEngine:
    """Return an engine; it connects when it is first used."""
    if url.get_backend_name() == "sqlite":
        engine = create_async_engine(
            url,
            poolclass=AsyncAdaptedQueuePool,
            pool_size=pool_size,
            max_overflow=max_overflow,
            pool_timeout=CHECKOUT_SECONDS,
            hide_parameters=True,  # what people write does not belong into logs of errors
            pool_reset_on_return=None,  # every transaction is ended by whoever began it; a second ROLLBACK costs time
            async_creator=lambda: sqlite.connect(url.database or ""),
        )
        event.listen(engine.sync_engine, "connect", prepare_sqlite)
        event.listen(engine.sync_engine, "begin", _begin_sqlite)
        return engine
    url, arguments = _postgres_arguments(url)
    try:
        return create_async_engine(
            url,
            pool_size=pool_size,
            max_overflow=max_overflow,
            pool_timeout=CHECKOUT_SECONDS,
            hide_parameters=True,  # what people write does not belong into logs of errors
            connect_args=arguments,
        )
    except ModuleNotFoundError as error:
        raise InvalidDatabaseUrl("Postgres needs the extra `db`: pip install 'carrel[db]'") from error


def _postgres_arguments(url: URL) -> tuple[URL, dict[str, Any]]:
    """Return the URL without what only libpq knows, and what every connection to Postgres is opened with."""
    arguments: dict[str, Any] = {
        "timeout": CONNECT_SECONDS,
        "command_timeout": COMMAND_SECONDS,
        "server_settings": {
            "application_name": "carrel-gateway",
            "jit": "off",  # short statements only: compiling them costs more than it saves
            "idle_in_transaction_session_timeout": str(round(IDLE_SECONDS * 1000)),
            **_GONE,
        },
    }
    sslmode = url.query.get("sslmode")  # the name that libpq gives it
    if sslmode:
        arguments["ssl"] = sslmode
        url = url.difference_update_query(["sslmode"])
    return url, arguments


def driver_arguments(engine: AsyncEngine) -> dict[str, Any]:
    """Return what the driver of Postgres itself is connected with, to the database of this engine."""
    url, arguments = _postgres_arguments(engine.url)
    return {**engine.dialect.create_connect_args(url)[1], **arguments}


def prepare_sqlite(connection: Any, _record: Any = None) -> None:
    """Set what SQLite keeps per connection; WAL is kept in the file."""
    connection.isolation_level = None  # the driver begins no transactions behind our back
    cursor = connection.cursor()
    for pragma in (
        "journal_mode=WAL",
        "synchronous=FULL",  # what was acknowledged outlives a power cut
        "foreign_keys=ON",
        "secure_delete=ON",  # what is deleted is overwritten
        f"busy_timeout={_BUSY_MILLISECONDS}",
        "temp_store=MEMORY",
        "cache_size=-16384",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get(WRITE, True)
    opened: Any = connection.connection.driver_connection
    opened.to_begin = "BEGIN IMMEDIATE" if writes else "BEGIN"


def connect_errors(url: URL) -> tuple[type[Exception], ...]:
    """Return what the driver raises, unwrapped, when it cannot connect, or finds a connection at its end."""
    if url.get_backend_name() == "sqlite":
        return (OSError, TimeoutError)
    import asyncpg  # noqa: PLC0415  an extra; there when the database is Postgres

    return (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)


def is_at_its_end(error: BaseException | None) -> bool:
    """Return whether a driver says so, as a mistake of its own, of a connection: the server's last word has come, and
    the end of the connection has not yet.
    """
    asyncpg = sys.modules.get("asyncpg")  # an extra; there when the database is Postgres
    return asyncpg is not None and isinstance(error, asyncpg.InternalClientError)
