"""Steps on SQLite in its own threads, one go for a whole transaction, and one commit for all that wait for one.

A commit waits for the disk, and SQLite has one writer: while one commit is under way, further transactions gather, and
the next commit takes all of them, each behind a savepoint of its own. So a transaction that fails leaves nothing, and
no other is lost with it; when the commit itself fails, all of them do. Nobody is told before the disk has it.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final, TypeVar
from uuid import UUID

from sqlalchemy.exc import IntegrityError

from carrel_gateway.storage.away import away
from carrel_gateway.storage.compiled import compiled
from carrel_gateway.storage.engine import prepare_sqlite
from carrel_gateway.storage.steps import Rows, Steps

T = TypeVar("T")

READERS: Final = 2
"""SQLite answers from its cache in microseconds; more threads than cores only wait for the interpreter."""
_AT_ONCE: Final = 64
"""Transactions of one commit, so that it does not become long."""


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A transaction that waits for the writer."""

    begin: Callable[[], Steps[Any]]
    result: asyncio.Future[Any]


class DirectSqlite:
    """The threads that have SQLite open, with a connection each."""

    def __init__(self, path: str, turn: asyncio.Lock) -> None:
        self._path = path
        self._turn = turn  # of the one writer, shared with ordinary transactions
        self._writer = ThreadPoolExecutor(1, "carrel-sqlite-writer")
        self._readers = ThreadPoolExecutor(READERS, "carrel-sqlite-reader")
        self._own = threading.local()
        self._opened: list[sqlite3.Connection] = []
        self._waiting: list[_Waiting] = []
        self._writing: asyncio.Task[None] | None = None

    async def run(self, _tenant_id: UUID, begin: Callable[[], Steps[T]], /, *, write: bool) -> T:
        """Carry the steps out in one transaction, and return their result when it is committed.

        Raises
        ------
        DatabaseAway
            It cannot be opened or written.
        """
        loop = asyncio.get_running_loop()
        if not write:
            return await loop.run_in_executor(self._readers, self._read, begin)
        waiting = _Waiting(begin, loop.create_future())
        self._waiting.append(waiting)
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write_all(), name="sqlite-writer")
        return await waiting.result

    async def aclose(self) -> None:
        """Commit what waits, and close the connections."""
        if self._writing:
            await self._writing
        for threads in (self._writer, self._readers):
            await asyncio.to_thread(threads.shutdown)
        for connection in self._opened:
            connection.close()

    # ------------------------------------------------------------------ in the event loop

    async def _write_all(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            async with self._turn:
                taken = [waiting for waiting in self._waiting[:_AT_ONCE] if not waiting.result.done()]
                del self._waiting[:_AT_ONCE]
                if not taken:
                    continue
                results = await loop.run_in_executor(self._writer, self._write, [each.begin for each in taken])
            for waiting, result in zip(taken, results, strict=True):
                if waiting.result.done():  # whoever asked has gone away
                    continue
                if isinstance(result, Exception):
                    waiting.result.set_exception(result)
                else:
                    waiting.result.set_result(result[0])

    # ------------------------------------------------------------------ in the threads

    def _connection(self) -> sqlite3.Connection:
        found: sqlite3.Connection | None = getattr(self._own, "connection", None)
        if found is None:
            found = self._own.connection = sqlite3.connect(self._path, check_same_thread=False)
            self._opened.append(found)
            prepare_sqlite(found)
        return found

    def _read(self, begin: Callable[[], Steps[T]]) -> T:
        try:
            connection = self._connection()
            connection.execute("BEGIN")
            try:
                return _carry_out(connection, begin())
            finally:
                connection.execute("ROLLBACK")
        except sqlite3.Error as error:
            raise _converted(error) from error

    def _write(self, begins: list[Callable[[], Steps[Any]]]) -> list[tuple[Any] | Exception]:
        """Carry out each in turn, and commit all of them; return each one's result, or what became of it."""
        try:
            connection = self._connection()
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.Error as error:
            return [_converted(error)] * len(begins)
        results: list[tuple[Any] | Exception] = []
        try:
            for begin in begins:
                results.append(_behind_savepoint(connection, begin))
                if not connection.in_transaction:  # SQLite itself rolls everything back when the disk fails
                    return [away()] * len(begins)
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            return [_converted(error)] * len(begins)
        finally:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
        return results


def _behind_savepoint(connection: sqlite3.Connection, begin: Callable[[], Steps[T]]) -> tuple[T] | Exception:
    connection.execute("SAVEPOINT one")
    try:
        result = (_carry_out(connection, begin()),)
    except Exception as error:  # noqa: BLE001  handed to whoever waits for this one
        if connection.in_transaction:
            connection.execute("ROLLBACK TO one")
            connection.execute("RELEASE one")
        return _converted(error) if isinstance(error, sqlite3.Error) else error
    connection.execute("RELEASE one")
    return result


def _carry_out(connection: sqlite3.Connection, steps: Steps[T]) -> T:
    try:
        statement, values = next(steps)
        while True:
            if isinstance(values, list):
                ready = compiled(statement, frozenset(values[0]), "sqlite")
                connection.executemany(ready.sql, [ready.arguments(row) for row in values])
                found: Rows = ()
            else:
                ready = compiled(statement, frozenset(values), "sqlite")
                found = ready.rows(connection.execute(ready.sql, ready.arguments(values)).fetchall())
            statement, values = steps.send(found)
    except StopIteration as end:
        return end.value
    finally:
        steps.close()


def _converted(error: sqlite3.Error) -> Exception:
    """Return a violated constraint and our own mistakes as they are, and all else as a database that is away."""
    if isinstance(error, sqlite3.IntegrityError):
        made: Exception = IntegrityError(None, None, error)
    elif isinstance(error, sqlite3.ProgrammingError | sqlite3.DataError | sqlite3.NotSupportedError):
        return error
    else:
        made = away()
    made.__cause__ = error
    return made
