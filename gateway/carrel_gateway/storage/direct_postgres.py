"""Steps on Postgres by asyncpg itself, for what a request does most: with its own connections and no layer between.

A transaction takes one round trip to begin, with the role and the tenant in it, one for each statement, and one to
commit. One that only reads has nothing to commit: it stays open for a moment. The tenant's next read goes on in it, and
sees what was committed meanwhile, for each statement does; the end of it goes with the beginning of the connection's
next transaction or, when none comes, follows by itself. Connections are kept, never more than the pool's size: who
finds none free waits, which is faster than opening another one. No write is sent twice; a connection that a restart of
the server has cut is replaced before the first step, or where somebody only reads.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, NamedTuple, TypeVar
from uuid import UUID

import asyncpg
import structlog
from asyncpg.exceptions import InvalidCachedStatementError
from sqlalchemy.exc import IntegrityError

from carrel_gateway.storage import engine
from carrel_gateway.storage.away import away, full
from carrel_gateway.storage.compiled import compiled
from carrel_gateway.storage.dialect import APP_ROLE
from carrel_gateway.storage.steps import Rows, Steps, Values

T = TypeVar("T")

OPEN_SECONDS: Final = 0.02
"""So long the transaction of a read may stay open when nothing follows; it holds no row and no snapshot."""
SHARED_SECONDS: Final = 0.5
"""So long reads may go on in one transaction: a migration that wants a table for itself waits for its end."""
_CLOSE_SECONDS: Final = 5
_OURS: Final = (asyncpg.SyntaxOrAccessError, asyncpg.DataError, asyncpg.FeatureNotSupportedError)
"""Mistakes of this program, and what row-level security refuses: they are not hidden behind 'try again'."""

_CUT: Final = (
    asyncpg.PostgresConnectionError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    ConnectionError,
)
"""The connection is gone, and what it says of the statement is nothing.

The driver calls it an error of its own when the server's last word has come and the end of the connection has not."""
_DRIVER: Final = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)
"""All that the driver raises."""

_connect: Any = asyncpg.connect  # pyright: ignore[reportUnknownVariableType]
"""It has no types."""

_log = structlog.get_logger(__name__)


class _OpenRead(NamedTuple):
    """A transaction that only reads, on a connection that is free."""

    tenant_id: UUID
    begun_at: float
    over_at: float
    """Loop times."""


class DirectPostgres:
    """A pool of asyncpg's connections, and transactions on them."""

    def __init__(self, arguments: dict[str, Any], *, size: int) -> None:
        self._arguments = arguments
        self._places = asyncio.Semaphore(size)
        self._free: list[Any] = []
        self._open: dict[Any, _OpenRead] = {}
        """Those of the free ones on which a read is not ended yet, in the order in which they came back."""
        self._ending: asyncio.Task[None] | None = None
        self._closed = False

    async def run(self, tenant_id: UUID, begin: Callable[[], Steps[T]], /, *, write: bool) -> T:
        """Carry the steps out in one transaction of the tenant, and return their result when it is committed.

        Raises
        ------
        DatabaseAway
            It does not answer or cannot write, or all connections are in use.
        """
        await self._take_place()
        try:
            if not write and (shared := self._take_shared(tenant_id)):
                try:
                    return await self._read(*shared, begin)
                except _CUT:
                    _log.info("database_connection_cut")
                    self._drop_free()
            connection = await self._begun(tenant_id, write=write)
            if not write:
                return await self._read(connection, _OpenRead(tenant_id, _now(), _now()), begin)
            try:
                result = await _carry_out(connection, begin())
                await _commit(connection)
            except BaseException as error:
                await self._give_up(connection, error)
                raise
            self._free.append(connection)
        except _OURS as error:
            if isinstance(error, InvalidCachedStatementError):  # a migration came between; it is prepared anew
                raise away() from error
            raise
        except asyncpg.IntegrityConstraintViolationError as error:
            raise IntegrityError(None, None, error) from error
        except (*_DRIVER, OSError) as error:
            if isinstance(error, ValueError):  # a value that its column cannot have
                raise
            raise away() from error
        finally:
            self._places.release()
        return result

    async def aclose(self) -> None:
        """Close the connections that are free; those in use are closed when they would come back."""
        self._closed = True
        if self._ending:
            self._ending.cancel()
            with suppress(asyncio.CancelledError):
                await self._ending
        while self._free:
            with suppress(*_DRIVER, OSError):
                await self._free.pop().close(timeout=_CLOSE_SECONDS)

    async def _take_place(self) -> None:
        if self._closed:
            raise away()
        if not self._places.locked():
            await self._places.acquire()
            return
        try:
            async with asyncio.timeout(engine.CHECKOUT_SECONDS):
                await self._places.acquire()
        except TimeoutError as error:
            raise full() from error

    async def _begun(self, tenant_id: UUID, *, write: bool) -> Any:
        """Return a connection in a transaction that is bound to the tenant."""
        # One statement of the simple protocol takes no parameters; an id as hexadecimal digits needs no quoting.
        begin = f"BEGIN ISOLATION LEVEL READ COMMITTED{'' if write else ' READ ONLY'}"
        binding = f"{begin};SET LOCAL role='{APP_ROLE}';SET LOCAL app.tenant='{tenant_id.hex}'"
        while self._free:
            connection: Any = self._free.pop()
            is_open = self._open.pop(connection, None) is not None
            try:
                await connection.execute(f"COMMIT;{binding}" if is_open else binding)
            except BaseException as error:
                connection.terminate()
                if not isinstance(error, (*_DRIVER, ConnectionError)):
                    raise
                _log.info("database_connection_cut")
                self._drop_free()
            else:
                return connection
        connection = await _connect(**self._arguments)
        try:
            await connection.execute(binding)
        except BaseException:
            connection.terminate()
            raise
        return connection

    def _take_shared(self, tenant_id: UUID) -> tuple[Any, _OpenRead] | None:
        """Take a free connection on which the tenant has a read open that may go on."""
        oldest = _now() - SHARED_SECONDS
        for connection, read in self._open.items():
            if read.tenant_id == tenant_id and read.begun_at > oldest:
                del self._open[connection]
                self._free.remove(connection)
                return connection, read
        return None

    async def _read(self, connection: Any, read: _OpenRead, begin: Callable[[], Steps[T]]) -> T:
        try:
            result = await _carry_out(connection, begin())
        except BaseException as error:
            await self._give_up(connection, error)
            raise
        self._free.append(connection)
        self._open[connection] = read._replace(over_at=_now())
        if self._ending is None or self._ending.done():
            self._ending = asyncio.create_task(self._end_reads(), name="postgres-reads")
        return result

    async def _end_reads(self) -> None:
        """End the reads after which nothing came on their connections, until there are none."""
        while self._open and not self._closed:
            seconds = next(iter(self._open.values())).over_at + OPEN_SECONDS - _now()
            if seconds > 0:
                await asyncio.sleep(seconds)
                continue
            async with self._places:  # whoever comes meanwhile waits, and opens no further connection
                if self._open:
                    await self._end_read(next(iter(self._open)))

    async def _end_read(self, connection: Any) -> None:
        del self._open[connection]
        self._free.remove(connection)
        try:
            await connection.execute("COMMIT")
        except BaseException as error:
            connection.terminate()
            if not isinstance(error, (*_DRIVER, OSError)):
                raise  # whoever comes next finds out about the others
        else:
            self._free.append(connection)

    def _drop_free(self) -> None:
        """Throw all of them away: one was cut, so the others have been too, or will not be missed."""
        self._open.clear()
        while self._free:
            self._free.pop().terminate()

    async def _give_up(self, connection: Any, error: BaseException) -> None:
        """Roll back, and keep the connection where it is certain that nothing of the transaction is left on it."""
        usable = isinstance(error, Exception) and not isinstance(
            error, OSError | asyncpg.InterfaceError | asyncpg.InternalClientError
        )
        if usable and not connection.is_closed() and not self._closed:
            try:
                await connection.execute("ROLLBACK")
            except BaseException as failure:
                connection.terminate()
                if not isinstance(failure, (*_DRIVER, OSError)):
                    raise
            else:
                self._free.append(connection)
                return
        connection.terminate()


def _now() -> float:
    return asyncio.get_running_loop().time()


async def _carry_out(connection: Any, steps: Steps[T]) -> T:
    try:
        statement, values = next(steps)
        while True:
            ready = compiled(statement, _names(values), "postgresql")
            if isinstance(values, list):
                await connection.executemany(ready.sql, [ready.arguments(row) for row in values])
                found: Rows = ()
            else:
                found = ready.rows(await connection.fetch(ready.sql, *ready.arguments(values)))
            statement, values = steps.send(found)
    except StopIteration as end:
        return end.value
    finally:
        steps.close()


def _names(values: Values | list[dict[str, Any]]) -> frozenset[str]:
    return frozenset(values[0] if isinstance(values, list) else values)


async def _commit(connection: Any) -> None:
    # A transaction that has failed is rolled back by COMMIT, which says so and is no error.
    if await connection.execute("COMMIT") != "COMMIT":
        raise away()
