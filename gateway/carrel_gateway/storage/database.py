"""Transactions: each bound to a tenant, committed at its end, rolled back on an error.

There are two ways to work: `transaction`, on a connection of SQLAlchemy's, and `run`, which carries out steps by the
driver itself and is for what a request does most. No query is here; repositories have them. Whatever a driver raises
comes out as `DatabaseAway`, but a constraint that is violated comes out as it is: a repository knows what it means.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Final, Protocol, TypeVar
from uuid import UUID

import structlog
from sqlalchemy import text
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, NotSupportedError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from carrel_gateway.settings import Settings
from carrel_gateway.storage import migrate, sqlite
from carrel_gateway.storage.away import DatabaseAway, away, full
from carrel_gateway.storage.dialect import Dialect, PostgresDialect, SqliteDialect
from carrel_gateway.storage.direct_sqlite import DirectSqlite
from carrel_gateway.storage.engine import (
    WRITE,
    connect_errors,
    database_url,
    driver_arguments,
    is_at_its_end,
    make_engine,
    sqlite_file,
)
from carrel_gateway.storage.folder import FolderLock
from carrel_gateway.storage.steps import Rows, Step, Steps

__all__ = ["Database", "DatabaseAway", "Transaction", "converted"]

T = TypeVar("T")

_ATTEMPTS: Final = 2
"""The pool may hold connections that a restart of the server has cut; then all of them are thrown away at once."""
_NOBODY: Final = UUID(int=0)

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Transaction:
    """One transaction for one tenant."""

    connection: AsyncConnection
    tenant_id: UUID
    dialect: Dialect
    _after_commit: list[Callable[[], Awaitable[None]]] = field(default_factory=list[Callable[[], Awaitable[None]]])

    def after_commit(self, act: Callable[[], Awaitable[None]]) -> None:
        """Have something done when this is committed, and not when it is rolled back."""
        self._after_commit.append(act)

    async def run(self, steps: Steps[T]) -> T:
        """Carry out steps within this transaction, and return their result; it is not committed yet."""
        try:
            step = next(steps)
            while True:
                step = steps.send(await self._rows(step))
        except StopIteration as end:
            return end.value
        finally:
            steps.close()

    async def _rows(self, step: Step) -> Rows:
        result = await self.connection.execute(*step)
        return result.all() if result.returns_rows else ()

    async def committed(self) -> None:
        """Do what was left for after the commit; called by the database."""
        for act in self._after_commit:
            await act()


class _Direct(Protocol):
    """Transactions by the driver itself."""

    async def run(self, tenant_id: UUID, begin: Callable[[], Steps[T]], /, *, write: bool) -> T: ...

    async def aclose(self) -> None: ...


class Database:
    """The connections of one process."""

    def __init__(self, engine: AsyncEngine, dialect: Dialect, lock: FolderLock | None, *, direct: int) -> None:
        self.dialect = dialect
        self._engine = engine
        self._reader = engine.execution_options(**{WRITE: False})
        self._connect_errors = connect_errors(engine.url)
        self._lock = lock
        # SQLite has one writer at a time, and waits for it by polling; a queue is faster and fair.
        self._turn: asyncio.Lock | None = None if dialect.shared else asyncio.Lock()
        self._writer: asyncio.Task[object] | None = None
        self._direct = _direct(engine, self._turn, size=direct)

    @classmethod
    async def connect(cls, settings: Settings) -> Database:
        """Open the database; an embedded one is made, locked and brought to this version's schema.

        Raises
        ------
        DataFolderInUse
            Another process has the embedded database.
        SchemaMismatch
            The schema is not of this version.
        DatabaseAway
            It does not answer.
        """
        url = database_url(settings.database)
        file = sqlite_file(url)
        lock = FolderLock(file.parent) if file else None
        try:
            if file:
                await migrate.upgrade(settings.database)
            engine = make_engine(url, pool_size=settings.db_pool_size, max_overflow=settings.db_max_overflow)
            dialect = SqliteDialect() if file else PostgresDialect()
            database = cls(engine, dialect, lock, direct=settings.db_pool_size)
            await database._check_schema()
        except BaseException:
            if lock:
                lock.release()
            raise
        return database

    @asynccontextmanager
    async def transaction(self, tenant_id: UUID, *, write: bool = True) -> AsyncGenerator[Transaction]:
        """Work for one tenant; commits at the end, rolls back when an exception comes out.

        Transactions do not nest; pass the one that is open on.

        Parameters
        ----------
        write
            Reads need not wait for SQLite's one writer, and say so.

        Raises
        ------
        DatabaseAway
            It does not answer, or cannot write.
        """
        async with AsyncExitStack() as stack:
            if write:
                await self._take_turn(stack)
            connection = await self._begin(stack, lambda opened: self.dialect.begin(opened, tenant_id), write=write)
            tx = Transaction(connection, tenant_id, self.dialect)
            try:
                with converted():
                    yield tx
                    await connection.commit()
            except DatabaseAway as error:
                if isinstance(error.__cause__, OSError) or is_at_its_end(error.__cause__):
                    # Whoever comes next gets another connection.
                    await connection.invalidate()
                raise
        await tx.committed()

    async def run(self, tenant_id: UUID, begin: Callable[[], Steps[T]], *, write: bool = True) -> T:
        """Carry out steps for one tenant in a transaction of their own, and return their result when it is committed.

        The fast way, for what every request does: on Postgres by asyncpg itself, under the same role and row-level
        security as `transaction`; on SQLite in one go of its thread, and with one wait for the disk for all who commit
        at the same time. What is to be done after the commit is done by the caller, when this returns.

        Parameters
        ----------
        begin
            Makes the steps. What they raise rolls the transaction back and comes out.
        write
            Reads need not wait for SQLite's one writer; on Postgres a transaction that only reads cannot write.

        Raises
        ------
        DatabaseAway
            It does not answer, or cannot write.
        """
        if write and self._writer is not None and self._writer is asyncio.current_task():
            raise RuntimeError("write transactions do not nest; run the steps in the open one")
        return await self._direct.run(tenant_id, begin, write=write)

    @asynccontextmanager
    async def worker_transaction(self, *, write: bool = False) -> AsyncGenerator[AsyncConnection]:
        """Work with the worker's rights: the live jobs and expired runs of all tenants, and nothing else.

        It reads unless it says otherwise; then it commits at the end.
        """
        async with AsyncExitStack() as stack:
            if write:
                await self._take_turn(stack)
            connection = await self._begin(stack, self.dialect.begin_worker, write=write)
            with converted():
                yield connection
                if write:
                    await connection.commit()

    @asynccontextmanager
    async def login_transaction(self) -> AsyncGenerator[AsyncConnection]:
        """Work with the rights of the lookup of accounts, and no tenant's; commits at the end.

        Raises
        ------
        DatabaseAway
            It does not answer, or cannot write.
        """
        async with AsyncExitStack() as stack:
            await self._take_turn(stack)
            connection = await self._begin(stack, self.dialect.begin_login, write=True)
            with converted():
                yield connection
                await connection.commit()

    async def ping(self) -> None:
        """Ask the database for an answer.

        Raises
        ------
        DatabaseAway
            None came.
        """
        async with self.worker_transaction() as connection:
            await connection.execute(text("SELECT 1"))

    async def forget(self) -> None:
        """Have what was deleted leave the files too: SQLite's log of writes holds it for a time.

        Postgres vacuums by itself.
        """
        file = sqlite_file(self._engine.url)
        if file:
            with suppress(sqlite3.OperationalError):  # somebody reads; the next deletion does it
                await asyncio.to_thread(sqlite.checkpoint, str(file))

    async def aclose(self) -> None:
        """Close all connections and give the data folder back."""
        await self._direct.aclose()
        await self._engine.dispose()
        if self._lock:
            self._lock.release()

    async def _check_schema(self) -> None:
        try:
            with converted():
                async with self._engine.connect() as connection:
                    await migrate.require_current(connection, lambda: self.dialect.begin(connection, _NOBODY))
        except self._connect_errors as error:
            raise away() from error
        except BaseException:
            await self._engine.dispose()
            raise

    async def _take_turn(self, stack: AsyncExitStack) -> None:
        if self._turn is None:
            return
        me = asyncio.current_task()
        if self._writer is me:
            raise RuntimeError("write transactions do not nest; pass the open one on")
        await stack.enter_async_context(self._turn)
        self._writer = me
        stack.callback(self._give_turn)

    def _give_turn(self) -> None:
        self._writer = None

    async def _begin(
        self, stack: AsyncExitStack, bind: Callable[[AsyncConnection], Awaitable[None]], *, write: bool
    ) -> AsyncConnection:
        """Return a connection with a transaction begun; it goes back to the pool with the stack."""
        engine = self._engine if write else self._reader
        for attempt in range(_ATTEMPTS):
            connection: AsyncConnection | None = None
            try:
                with converted():
                    connection = await stack.enter_async_context(engine.connect())
                    await connection.begin()
                    await bind(connection)
            except (DatabaseAway, *self._connect_errors) as error:
                if connection is not None and is_at_its_end(error.__cause__):
                    await connection.invalidate()
                last = attempt + 1 == _ATTEMPTS
                if last or not _was_cut(error):
                    raise error if isinstance(error, DatabaseAway) else away() from error
                _log.info("database_connection_cut")
            else:
                return connection
        raise AssertionError("the loop returns or raises")


@contextmanager
def converted() -> Generator[None]:
    """Turn what a driver raises for a database that is away, full or overloaded into `DatabaseAway`.

    What is this program's own mistake, or a constraint that did its work, stays as it is.
    """
    try:
        yield
    except (IntegrityError, ProgrammingError, DataError, NotSupportedError):
        raise
    except PoolTimeoutError as error:
        raise full() from error
    except (DBAPIError, OSError) as error:  # `TimeoutError` is one: what a driver says of a server that hangs
        raise away() from error
    except Exception as error:
        if is_at_its_end(error):
            raise away() from error
        raise


def _direct(engine: AsyncEngine, turn: asyncio.Lock | None, *, size: int) -> _Direct:
    if turn is not None:
        return DirectSqlite(engine.url.database or "", turn)
    from carrel_gateway.storage.direct_postgres import DirectPostgres  # noqa: PLC0415  needs an extra

    return DirectPostgres(driver_arguments(engine), size=size)


def _was_cut(error: Exception) -> bool:
    cause = error.__cause__
    return is_at_its_end(cause) or (isinstance(cause, DBAPIError) and cause.connection_invalidated)
