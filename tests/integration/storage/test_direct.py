"""Steps by the driver itself: the same wall between tenants, the same all or nothing, the same words when it is away.

Plan: over both databases a transaction of steps is committed whole or not at all, whatever ends it, and those that are
committed together do not share each other's failures. On Postgres such a transaction works as the application's role
for its tenant and can neither read nor write another's, and a connection keeps nothing of it. Connections that were
cut, a server that was restarted or is gone or hangs, and a pool without a free place are `DatabaseAway`, and the next
one who comes is served. What is compiled is what SQLAlchemy would have sent.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from sqlalchemy import bindparam, select, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.types import Uuid
from tests.integration.storage.conftest import MakeSettings
from tests.support.people import new_user
from tests.support.servers import Postgres
from tests.support.state import new_principal

from carrel_gateway.context import Principal, ProcessContext
from carrel_gateway.execution import repository as executions
from carrel_gateway.history.service import HistoryService
from carrel_gateway.history.tables import events
from carrel_gateway.identity.rights import Role
from carrel_gateway.identity.service import DEFAULT_TENANT_ID
from carrel_gateway.sessions import repository as sessions
from carrel_gateway.storage import direct_postgres, engine
from carrel_gateway.storage.compiled import compiled
from carrel_gateway.storage.database import Database, DatabaseAway
from carrel_gateway.storage.ids import new_id
from carrel_gateway.storage.steps import Steps, scalar
from carrel_wire.log import UserMessage

TENANT = bindparam("tenant_id", type_=Uuid())
COUNT = text("SELECT count(*) FROM sessions WHERE tenant_id = :tenant_id").bindparams(TENANT)
PEOPLE = text("SELECT count(*) FROM users WHERE tenant_id = :tenant_id").bindparams(TENANT)
ALL_SESSIONS = text("SELECT count(*) FROM sessions WHERE :tenant_id IS NOT NULL").bindparams(TENANT)
WHO = text("SELECT current_user, current_setting('app.tenant'), :tenant_id").bindparams(TENANT)
SLEEP = text("SELECT pg_sleep(60) WHERE :tenant_id IS NOT NULL").bindparams(TENANT)
END_OTHERS = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
    " WHERE application_name = 'carrel-gateway' AND datname = '{}'"
)


class GivenUpError(Exception):
    """What a caller's own steps raise."""


def of(tenant_id: UUID) -> dict[str, Any]:
    return {"tenant_id": tenant_id}


def begun(
    context: ProcessContext, principal: Principal, session_id: UUID, execution_id: UUID, *, give_up: bool = False
) -> Callable[[], Steps[bool]]:
    """Return what begins the record of an execution, and then thinks better of it."""

    def begin() -> Steps[bool]:
        taken = yield from executions.intend(
            context.database.dialect.name, principal.tenant_id, execution_id, session_id=session_id, code="1"
        )
        if give_up:
            raise GivenUpError
        return taken

    return begin


async def is_there(context: ProcessContext, principal: Principal, execution_id: UUID) -> bool:
    find = context.database.run(
        principal.tenant_id, lambda: executions.find(principal.tenant_id, execution_id), write=False
    )
    return await find is not None


# ---------------------------------------------------------------------- over both databases


async def test_what_a_transaction_of_steps_did_is_there_for_every_other_way(
    context: ProcessContext, principal: Principal, session_id: UUID
) -> None:
    execution_id = new_id()
    assert await context.database.run(principal.tenant_id, begun(context, principal, session_id, execution_id))
    async with context.database.transaction(principal.tenant_id, write=False) as tx:
        row = await tx.run(executions.find(principal.tenant_id, execution_id))
    assert row == await context.database.run(
        principal.tenant_id, lambda: executions.find(principal.tenant_id, execution_id), write=False
    )
    assert row is not None
    assert row.created_at.tzinfo is not None
    assert type(row.id).__mro__[-2] is UUID


async def test_steps_that_raise_leave_nothing_and_take_no_other_with_them(
    context: ProcessContext, principal: Principal, session_id: UUID
) -> None:
    ids = [new_id() for _ in range(12)]
    works = [
        context.database.run(principal.tenant_id, begun(context, principal, session_id, one, give_up=n % 3 == 0))
        for n, one in enumerate(ids)
    ]
    found = await asyncio.gather(*works, return_exceptions=True)
    assert [isinstance(one, GivenUpError) for one in found] == [n % 3 == 0 for n in range(12)]
    there = [await is_there(context, principal, one) for one in ids]
    assert there == [n % 3 != 0 for n in range(12)]


async def test_a_constraint_that_is_violated_comes_out_as_it_is_and_leaves_nothing(
    context: ProcessContext, principal: Principal, session_id: UUID
) -> None:
    first, second = new_id(), new_id()

    def begin() -> Steps[bool]:
        yield from begun(context, principal, session_id, first)()
        return (yield from begun(context, principal, new_id(), second)())  # there is no such session

    beside = context.database.run(principal.tenant_id, begun(context, principal, session_id, third := new_id()))
    broken, fine = await asyncio.gather(
        context.database.run(principal.tenant_id, begin), beside, return_exceptions=True
    )
    assert isinstance(broken, IntegrityError)
    assert fine is True
    assert [await is_there(context, principal, one) for one in (first, second, third)] == [False, False, True]


async def test_a_caller_that_goes_away_disturbs_nobody(
    context: ProcessContext, principal: Principal, session_id: UUID
) -> None:
    ids = [new_id() for _ in range(30)]
    tasks = [
        asyncio.create_task(context.database.run(principal.tenant_id, begun(context, principal, session_id, one)))
        for one in ids
    ]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    found = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(one is True for one in found[1::2])
    assert all([await is_there(context, principal, one) for one in ids[1::2]])


async def test_numbers_are_gapless_however_many_append_by_whatever_way(
    context: ProcessContext, principal: Principal, session_id: UUID
) -> None:
    history = HistoryService(context, principal)

    async def append(n: int) -> None:
        said = [UserMessage(message_id=new_id(), content=str(n))]
        if n % 2:
            await history.append(session_id, said, actor="user")
        else:
            async with context.database.transaction(principal.tenant_id) as tx:
                await history.append(session_id, said, actor="user", tx=tx)

    await asyncio.gather(*(append(n) for n in range(40)))
    found = await history.events(session_id)
    assert [event.seq for event in found] == list(range(1, len(found) + 1))
    assert sorted(int(event.payload.content) for event in found if isinstance(event.payload, UserMessage)) == list(
        range(40)
    )
    assert len(await history.messages(session_id)) == 40


async def test_steps_do_not_nest_in_an_open_transaction_of_sqlite(
    context: ProcessContext, principal: Principal, session_id: UUID
) -> None:
    if context.database.dialect.shared:
        pytest.skip("Postgres has many writers")
    async with context.database.transaction(principal.tenant_id):
        with pytest.raises(RuntimeError, match="do not nest"):
            await context.database.run(principal.tenant_id, begun(context, principal, session_id, new_id()))


# ---------------------------------------------------------------------- the wall, on Postgres


@pytest.fixture
def on_postgres(make_settings: MakeSettings, postgres_url: str) -> Callable[..., Any]:
    """Return what opens a database of few connections."""

    def connect(**named: Any) -> Any:
        return Database.connect(make_settings(database_url=postgres_url, db_pool_size=1, db_max_overflow=1, **named))

    return connect


async def test_steps_work_as_the_applications_role_for_one_tenant_only(on_postgres: Callable[..., Any]) -> None:
    database: Database = await on_postgres()
    try:
        mine, stranger = await new_principal(database), await new_principal(database)
        assert await database.run(mine.tenant_id, lambda: _first_row(WHO, of(mine.tenant_id))) == [
            "carrel_app",
            mine.tenant_id.hex,
            str(mine.tenant_id),
        ]
        for write in (True, False):  # a filter by another tenant, or by none, does not help
            for statement, tenant in ((COUNT, mine), (ALL_SESSIONS, mine), (ALL_SESSIONS, stranger)):
                counted = await database.run(
                    stranger.tenant_id, lambda s=statement, t=tenant: scalar(s, of(t.tenant_id)), write=write
                )
                assert counted == 0
    finally:
        await database.aclose()


async def test_another_tenants_session_cannot_be_read_or_appended_to(
    context: ProcessContext, principal: Principal, session_id: UUID
) -> None:
    stranger = await new_principal(context.database)
    tenant_id = principal.tenant_id
    # Steps that claim to be the owner's, in a transaction of the stranger's: on SQLite the repositories' filter is the
    # wall, and so they must claim to be the stranger's own.
    claimed = tenant_id if context.database.dialect.shared else stranger.tenant_id
    assert await context.database.run(tenant_id, lambda: sessions.find(tenant_id, session_id), write=False)
    assert not await context.database.run(stranger.tenant_id, lambda: sessions.find(claimed, session_id), write=False)
    history = HistoryService(context, stranger)
    assert await history.page(session_id, after=0, limit=10) is None
    assert await history.conversation(session_id, limit=10) is None
    with pytest.raises((IntegrityError, asyncpg.InsufficientPrivilegeError)):
        await context.database.run(
            stranger.tenant_id,
            lambda: executions.intend(
                context.database.dialect.name, claimed, new_id(), session_id=session_id, code="theirs"
            ),
        )


async def test_a_reading_transaction_cannot_write(on_postgres: Callable[..., Any]) -> None:
    database: Database = await on_postgres()
    delete = text("DELETE FROM sessions WHERE tenant_id = :tenant_id").bindparams(TENANT)
    try:
        with pytest.raises(DatabaseAway):
            await database.run(DEFAULT_TENANT_ID, lambda: scalar(delete, of(DEFAULT_TENANT_ID)), write=False)
    finally:
        await database.aclose()


async def test_nothing_of_a_transaction_stays_on_its_connection(
    on_postgres: Callable[..., Any], postgres: Postgres, postgres_database: str
) -> None:
    database: Database = await on_postgres()
    try:
        mine = await new_principal(database)
        await database.run(mine.tenant_id, lambda: scalar(COUNT, of(mine.tenant_id)))
        pool: Any = database._direct
        (connection,) = pool._free
        assert await connection.fetchrow("SELECT current_user, current_setting('app.tenant', true)") == ("gateway", "")
        assert not connection.is_in_transaction()
        with pytest.raises(GivenUpError):
            await database.run(mine.tenant_id, _giving_up)
        assert pool._free == [connection]
        assert not connection.is_in_transaction()
    finally:
        await database.aclose()
    idle = f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{postgres_database}' AND state LIKE 'idle in%'"
    assert postgres.sql(idle) == "0"


async def test_a_read_ends_with_the_next_transaction_on_its_connection_or_by_itself(
    on_postgres: Callable[..., Any],
) -> None:
    database: Database = await on_postgres()
    try:
        mine, stranger = await new_principal(database), await new_principal(database)
        pool: Any = database._direct
        for who, write in ((mine, False), (stranger, False), (mine, True), (stranger, False), (mine, False)):
            who_reads = await database.run(who.tenant_id, lambda w=who: _first_row(WHO, of(w.tenant_id)), write=write)
            assert who_reads == ["carrel_app", who.tenant_id.hex, str(who.tenant_id)]
            (connection,) = pool._free
            assert connection.is_in_transaction() != write
        async with asyncio.timeout(30):
            while connection.is_in_transaction() or not pool._free:  # noqa: ASYNC110  nobody tells of it
                await asyncio.sleep(0.01)
        assert pool._free == [connection]
        assert await connection.fetchrow("SELECT current_user, current_setting('app.tenant', true)") == ("gateway", "")
        await database.run(mine.tenant_id, lambda: scalar(COUNT, of(mine.tenant_id)), write=False)
        connection.terminate()  # while a read is open on it
        assert await database.run(mine.tenant_id, lambda: scalar(COUNT, of(mine.tenant_id)), write=False) == 0
    finally:
        await database.aclose()


async def test_reads_of_one_tenant_go_on_in_one_transaction_and_see_what_is_committed_meanwhile(
    on_postgres: Callable[..., Any], postgres: Postgres, postgres_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(direct_postgres, "OPEN_SECONDS", 3600.0)
    monkeypatch.setattr(direct_postgres, "SHARED_SECONDS", 3600.0)
    database: Database = await on_postgres()
    begun = text("SELECT extract(epoch FROM now()) WHERE :tenant_id IS NOT NULL").bindparams(TENANT)

    async def ask(who: Principal, statement: Any) -> Any:
        return await database.run(who.tenant_id, lambda: scalar(statement, of(who.tenant_id)), write=False)

    try:
        mine, stranger = await new_principal(database), await new_principal(database)
        first = await ask(mine, begun)
        before = await ask(mine, PEOPLE)
        await new_user(database, mine.tenant_id, Role.USER)
        assert await ask(mine, PEOPLE) == before + 1, "by another connection, just now"
        assert await ask(mine, begun) == first
        assert await ask(stranger, ALL_SESSIONS) == 0
        assert await ask(stranger, begun) != first
        postgres.sql(END_OTHERS.format(postgres_database))
        assert await ask(stranger, COUNT) == 0, "a read is begun anew"
        second = await ask(stranger, begun)
        monkeypatch.setattr(direct_postgres, "SHARED_SECONDS", 0.0)
        assert await ask(stranger, begun) != second, "not for ever"
    finally:
        await database.aclose()


# ---------------------------------------------------------------------- away


async def test_cut_connections_are_replaced_unseen(
    on_postgres: Callable[..., Any], postgres: Postgres, postgres_database: str
) -> None:
    database: Database = await on_postgres()
    try:
        for _ in range(3):
            assert await database.run(DEFAULT_TENANT_ID, lambda: scalar(COUNT, of(DEFAULT_TENANT_ID))) == 0
            postgres.sql(END_OTHERS.format(postgres_database))
    finally:
        await database.aclose()


async def test_a_connection_that_is_cut_within_a_transaction_means_away_and_nothing_is_sent_twice(
    on_postgres: Callable[..., Any], postgres: Postgres, postgres_database: str
) -> None:
    database: Database = await on_postgres()
    begun_times = 0

    def begin() -> Steps[Any]:
        nonlocal begun_times
        begun_times += 1
        yield COUNT, of(DEFAULT_TENANT_ID)
        yield SLEEP, of(DEFAULT_TENANT_ID)

    try:
        sleeping = asyncio.create_task(database.run(DEFAULT_TENANT_ID, begin))
        asleep = (
            f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{postgres_database}' AND wait_event = 'PgSleep'"
        )
        await asyncio.to_thread(_wait_for, lambda: postgres.sql(asleep) != "0")
        postgres.sql(END_OTHERS.format(postgres_database))
        with pytest.raises(DatabaseAway):
            await sleeping
        assert begun_times == 1
        assert await database.run(DEFAULT_TENANT_ID, lambda: scalar(COUNT, of(DEFAULT_TENANT_ID))) == 0
    finally:
        await database.aclose()


async def test_a_connection_of_which_the_end_has_not_come_yet_means_away_and_is_not_kept(
    on_postgres: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server has said that it ends the connection, and the driver takes no further statement there."""
    database: Database = await on_postgres()

    async def refuse(*_: Any, **__: Any) -> Any:
        raise asyncpg.InternalClientError("cannot switch to state 12; another operation (2) is in progress")

    async def steps(*, write: bool) -> Any:
        return await database.run(DEFAULT_TENANT_ID, lambda: scalar(COUNT, of(DEFAULT_TENANT_ID)), write=write)

    try:
        for ask, name in (
            (lambda: steps(write=True), "fetch"),
            (lambda: steps(write=True), "execute"),
            (lambda: steps(write=False), "fetch"),
        ):
            assert await ask() == 0
            with monkeypatch.context() as broken:
                broken.setattr(asyncpg.Connection, name, refuse)
                with pytest.raises(DatabaseAway):
                    await ask()
            assert await ask() == 0
    finally:
        await database.aclose()


async def test_a_slow_server_and_a_full_pool_mean_away(
    on_postgres: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "COMMAND_SECONDS", 1.5)
    monkeypatch.setattr(engine, "CHECKOUT_SECONDS", 0.2)
    database: Database = await on_postgres()
    try:
        slow = asyncio.create_task(database.run(DEFAULT_TENANT_ID, lambda: scalar(SLEEP, of(DEFAULT_TENANT_ID))))
        await asyncio.sleep(0)
        with pytest.raises(DatabaseAway, match="in use"):
            await database.run(DEFAULT_TENANT_ID, lambda: scalar(COUNT, of(DEFAULT_TENANT_ID)))
        with pytest.raises(DatabaseAway, match="does not answer"):
            await slow
        assert await database.run(DEFAULT_TENANT_ID, lambda: scalar(COUNT, of(DEFAULT_TENANT_ID))) == 0
    finally:
        await database.aclose()


async def test_a_server_that_is_gone_means_away_until_it_is_back(
    on_postgres: Callable[..., Any], postgres: Postgres, postgres_database: str
) -> None:
    database: Database = await on_postgres()
    count = lambda: scalar(COUNT, of(DEFAULT_TENANT_ID))  # noqa: E731  short, and used three times
    try:
        assert await database.run(DEFAULT_TENANT_ID, count) == 0
        postgres.sql(
            f"ALTER DATABASE {postgres_database} ALLOW_CONNECTIONS false", END_OTHERS.format(postgres_database)
        )
        for write in (True, False):
            with pytest.raises(DatabaseAway):
                await database.run(DEFAULT_TENANT_ID, count, write=write)
        postgres.sql(f"ALTER DATABASE {postgres_database} ALLOW_CONNECTIONS true")
        assert await database.run(DEFAULT_TENANT_ID, count) == 0
    finally:
        postgres.sql(f"ALTER DATABASE {postgres_database} ALLOW_CONNECTIONS true")
        await database.aclose()


async def test_callers_who_go_away_cost_no_place_in_the_pool(on_postgres: Callable[..., Any]) -> None:
    database: Database = await on_postgres()
    try:
        for _ in range(20):
            task = asyncio.create_task(database.run(DEFAULT_TENANT_ID, lambda: scalar(SLEEP, of(DEFAULT_TENANT_ID))))
            await asyncio.sleep(0.005)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert await database.run(DEFAULT_TENANT_ID, lambda: scalar(COUNT, of(DEFAULT_TENANT_ID))) == 0
    finally:
        await database.aclose()


async def test_a_disk_that_is_full_means_away_and_takes_only_what_is_not_committed(
    make_settings: MakeSettings, tmp_path: Path
) -> None:
    database = await Database.connect(make_settings(data_dir=tmp_path / "full"))
    try:
        mine = await new_principal(database)
        direct: Any = database._direct
        limit = text("PRAGMA max_page_count = 1").bindparams()
        fill = text(
            "WITH RECURSIVE more(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM more WHERE n < 2000)"
            " INSERT INTO users (tenant_id, id, name, created_at)"
            " SELECT :tenant_id, hex(randomblob(16)), 'x', '2026-01-01' FROM more"
        ).bindparams(TENANT)
        await asyncio.get_running_loop().run_in_executor(
            direct._writer, lambda: direct._connection().execute(str(limit)).fetchall()
        )
        counted = text("SELECT count(*) FROM users WHERE tenant_id = :tenant_id").bindparams(TENANT)
        works = [database.run(mine.tenant_id, lambda: scalar(fill, of(mine.tenant_id))) for _ in range(3)]
        assert all(isinstance(one, DatabaseAway) for one in await asyncio.gather(*works, return_exceptions=True))
        assert await database.run(mine.tenant_id, lambda: scalar(counted, of(mine.tenant_id)), write=False) == 1
    finally:
        await database.aclose()


# ---------------------------------------------------------------------- compiled


def test_what_cannot_be_compiled_once_is_refused() -> None:
    many = select(events.c.seq).where(events.c.tenant_id == bindparam("tenant_id"), events.c.seq.in_([1, 2]))
    for dialect in ("postgresql", "sqlite"):
        with pytest.raises(ValueError, match="made anew"):
            compiled(many, frozenset({"tenant_id"}), dialect)
        with pytest.raises(ValueError, match="no value for tenant_id"):
            compiled(COUNT, frozenset(), dialect)


def test_a_statement_is_compiled_once() -> None:
    assert compiled(COUNT, frozenset({"tenant_id"}), "sqlite") is compiled(COUNT, frozenset({"tenant_id"}), "sqlite")


def _first_row(statement: Any, values: dict[str, Any]) -> Steps[list[str]]:
    rows = yield statement, values
    return [str(value) for value in rows[0]]


def _wait_for(happened: Callable[[], bool]) -> None:
    while not happened():
        time.sleep(0.01)


def _giving_up() -> Steps[None]:
    yield COUNT, of(DEFAULT_TENANT_ID)
    raise GivenUpError
