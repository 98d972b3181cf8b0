"""An aiosqlite connection that goes to its thread once for each statement, and not for cursors.

The driver's own goes there four times: to make a cursor, to execute, to fetch and to close, which takes longer than
SQLite takes for the statement. Rows are fetched at once, as many as a page has; there are no server-side cursors.
A transaction is begun with its first statement, in the same go.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Final

import aiosqlite
from aiosqlite.context import contextmanager

_CHECKPOINT_SECONDS: Final = 1.0
"""Longest wait for readers; the next checkpoint is as good."""


class Cursor(aiosqlite.Cursor):
    """A cursor whose rows are there when `execute` returns."""

    _rows: list[Any]

    async def execute(self, sql: str, parameters: Iterable[Any] | None = None) -> Cursor:
        """Execute a statement and fetch what it returns."""
        self._rows = await self._execute(_run, self._cursor, sql, parameters or ())
        return self

    async def fetchall(self) -> list[Any]:
        """Return the rows, once."""
        rows, self._rows = self._rows, []
        return rows

    async def close(self) -> None:
        """Do nothing: a statement whose rows are fetched holds nothing."""


class Connection(aiosqlite.Connection):
    """A connection with such cursors."""

    to_begin = ""
    """Statement that begins the transaction, until it has been executed."""

    async def rollback(self) -> None:
        """Roll back the transaction, if it was begun."""
        self.to_begin = ""
        await super().rollback()

    async def close(self) -> None:
        """Close it; a transaction that was not begun need not be."""
        self.to_begin = ""
        await super().close()

    async def _execute(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call a function in the thread, within the transaction."""
        # Taken here and not in the thread: when the caller is cancelled, the next call must not begin once more.
        statement, self.to_begin = self.to_begin, ""
        if statement:
            return await super()._execute(self._begin, statement, partial(fn, *args, **kwargs))
        return await super()._execute(fn, *args, **kwargs)

    def _begin(self, statement: str, fn: Callable[[], Any]) -> Any:
        try:
            self._conn.execute(statement)
        except BaseException:
            self.to_begin = statement  # nothing is ever executed outside of a transaction
            raise
        return fn()

    @contextmanager
    async def cursor(self) -> aiosqlite.Cursor:
        """Return a new cursor; SQLite is not asked for it."""
        return Cursor(self, self._conn.cursor())


def connect(path: str) -> Connection:
    """Return a connection to a database's file; it is opened when it is awaited."""
    connection = Connection(lambda: sqlite3.connect(path, check_same_thread=False), iter_chunk_size=64)
    connection._thread.daemon = True  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  as SQLAlchemy does: a connection left open must not hold the exit up
    return connection


def checkpoint(path: str) -> None:
    """Write what is in the write-ahead log to the database and empty the log, where nobody reads from it just now."""
    connection = sqlite3.connect(path, timeout=_CHECKPOINT_SECONDS)
    try:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    finally:
        connection.close()


def _run(cursor: sqlite3.Cursor, sql: str, parameters: Iterable[Any]) -> list[Any]:
    cursor.execute(sql, parameters)  # pyright: ignore[reportArgumentType]  a sequence, as SQLAlchemy gives it
    return cursor.fetchall()
