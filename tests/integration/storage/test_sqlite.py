"""The embedded database's connections: each statement is one trip to the driver's thread, and a commit is few of them.

Trips are counted, not timed. What a second trip would cost shows in `make bench`. A transaction is begun with its first
statement, which is never executed without it, whether beginning fails or the statement is cancelled.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import aiosqlite
import pytest
from sqlalchemy import text
from tests.support.state import new_principal, open_state

from carrel_gateway.history.service import HistoryService
from carrel_gateway.sessions.service import SessionService
from carrel_gateway.settings import Settings
from carrel_gateway.storage.engine import database_url, make_engine
from carrel_gateway.storage.ids import new_id
from carrel_gateway.storage.sqlite import connect
from carrel_wire.log import CellFinished, CellOutputs, LogPayload


@pytest.fixture
def trips(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The calls that went to the driver's thread."""
    made: list[str] = []
    execute = aiosqlite.Connection._execute  # pyright: ignore[reportPrivateUsage]

    async def counted(self: aiosqlite.Connection, fn, *args, **kwargs):
        made.append(fn.__name__)
        return await execute(self, fn, *args, **kwargs)

    monkeypatch.setattr(aiosqlite.Connection, "_execute", counted)
    return made


async def test_a_statement_is_one_trip(tmp_path: Path, trips: list[str]):
    connection = await connect(str(tmp_path / "a.db"))
    cursor = await connection.cursor()
    await cursor.execute("SELECT 1 UNION SELECT 2")
    assert await cursor.fetchall() == [(1,), (2,)]
    assert await cursor.fetchall() == []
    await cursor.close()
    assert len(trips) == 1
    await connection.close()


async def test_a_transaction_is_begun_and_ended_once(tmp_path: Path, trips: list[str]):
    engine = make_engine(database_url(f"sqlite:///{tmp_path / 'a.db'}"), pool_size=1, max_overflow=0)
    async with engine.connect() as first:
        await first.execute(text("CREATE TABLE t (a INTEGER)"))
        await first.commit()
    trips.clear()
    async with engine.connect() as connection:
        await connection.execute(text("INSERT INTO t VALUES (1)"))
        await connection.commit()
    assert len(trips) == 2, trips  # BEGIN IMMEDIATE with INSERT, COMMIT
    async with engine.connect() as connection:
        await connection.execute(text("INSERT INTO t VALUES (2)"))  # and nobody commits it
    async with engine.connect() as connection:
        assert list(await connection.scalars(text("SELECT a FROM t"))) == [1]
    await engine.dispose()


async def test_nothing_is_executed_outside_of_a_transaction(tmp_path: Path):
    path = str(tmp_path / "a.db")
    with closing(sqlite3.connect(path)) as other:
        connection = await connect(path)
        connection.isolation_level = None
        await connection.execute("CREATE TABLE t (a INTEGER)")
        await connection.execute("PRAGMA busy_timeout=1")
        other.execute("BEGIN IMMEDIATE")
        connection.to_begin = "BEGIN IMMEDIATE"
        for _ in range(2):  # it is not begun the second time either
            with pytest.raises(sqlite3.OperationalError, match="locked"):
                await connection.execute("INSERT INTO t VALUES (1)")
        other.rollback()
        await connection.execute("INSERT INTO t VALUES (2)")
        await connection.commit()
        assert other.execute("SELECT a FROM t").fetchall() == [(2,)]
        await connection.close()


async def test_a_cancelled_first_statement_is_rolled_back(tmp_path: Path):
    connection = await connect(str(tmp_path / "a.db"))
    connection.isolation_level = None
    await connection.execute("CREATE TABLE t (a INTEGER)")
    busy = threading.Event()
    holding = asyncio.create_task(connection._execute(busy.wait, 30))
    await asyncio.sleep(0)  # it has been handed to the thread
    connection.to_begin = "BEGIN IMMEDIATE"
    cancelled = asyncio.create_task(connection.execute("INSERT INTO t VALUES (1)"))
    await asyncio.sleep(0)  # so has this
    cancelled.cancel()
    rolling_back = asyncio.create_task(connection.rollback())
    await asyncio.sleep(0)
    busy.set()
    await asyncio.gather(holding, rolling_back)
    assert await (await connection.execute("SELECT a FROM t")).fetchall() == []
    await connection.close()


async def test_the_end_of_a_cell_is_committed_in_few_trips(tmp_path: Path, trips: list[str]):
    async with open_state(Settings(_env_file=None, data_dir=tmp_path)) as context:
        principal = await new_principal(context.database)
        session = await SessionService(context, principal).create()
        history = HistoryService(context, principal)
        trips.clear()
        async with context.database.transaction(principal.tenant_id) as tx:
            await history.append(session.id, end_of_a_cell(), actor="kernel", tx=tx)
        assert len(trips) == 4, trips  # begin with number, events, cell, commit


async def test_by_itself_it_is_one_trip_and_many_wait_for_the_disk_together(tmp_path: Path, trips: list[str]):
    async with open_state(Settings(_env_file=None, data_dir=tmp_path)) as context:
        principal = await new_principal(context.database)
        sessions = [await SessionService(context, principal).create() for _ in range(8)]
        history = HistoryService(context, principal)
        commits: list[int] = []
        write = context.database._direct._write

        def counted(begins: list[object]):
            commits.append(len(begins))
            return write(begins)

        context.database._direct._write = counted
        trips.clear()
        await history.append(sessions[0].id, end_of_a_cell(), actor="kernel")
        assert (commits, trips) == ([1], [])
        await asyncio.gather(*(history.append(one.id, end_of_a_cell(), actor="kernel") for one in sessions))
        assert len(commits) <= 3, commits  # the first to come goes at once, and the others with the next
        assert sum(commits) == 9
        assert [len(await history.events(one.id)) for one in sessions] == [5, *[3] * 7]


def end_of_a_cell() -> list[LogPayload]:
    execution = new_id()
    outputs = CellOutputs(execution_id=execution, last_n=2, outputs=[{"output_type": "stream"}])
    return [outputs, CellFinished(execution_id=execution, status="ok", code="1 + 1")]


async def test_a_transaction_that_is_cancelled_while_it_begins_is_given_up_whole(tmp_path: Path):
    """Closing its connection must not begin it a second time: it would stay open, and lock everybody else out."""
    settings = Settings(_env_file=None, data_dir=tmp_path)  # pyright: ignore[reportCallIssue]
    async with open_state(settings) as context:
        principal = await new_principal(context.database)
        with closing(sqlite3.connect(tmp_path / "carrel.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            creating = asyncio.create_task(SessionService(context, principal).create())
            await asyncio.sleep(0.2)  # it waits for the other one in the driver's thread
            creating.cancel()
            await asyncio.sleep(0)
            other.execute("ROLLBACK")
        await asyncio.gather(creating, return_exceptions=True)
        assert (await SessionService(context, principal).create()).last_seq == 1
