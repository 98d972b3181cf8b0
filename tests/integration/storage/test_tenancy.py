"""The wall between tenants.

Plan: on Postgres every table has row-level security, forced, with a policy by tenant, and a table without one is
found; the gateway's login can neither go around it nor become somebody who can; a forgotten tenant shows nothing; the
worker sees expired runs and live jobs and nothing else, and takes a job without changing what it is. In the tables
themselves the tenant is first in every unique key and part of every foreign key. Every statement of every repository is
bound to a tenant: the other modules look at that all the time, and here one that is not is found.
"""

from __future__ import annotations

from uuid import UUID

import asyncpg
import pytest
from sqlalchemy import ForeignKeyConstraint, UniqueConstraint, select, text, update
from sqlalchemy.exc import DBAPIError, ProgrammingError
from tests.support.servers import Postgres
from tests.support.state import new_principal
from tests.support.tenancy import statements_without_tenant

from carrel_gateway.artifacts.tables import artifacts
from carrel_gateway.context import Principal, ProcessContext
from carrel_gateway.execution.tables import executions
from carrel_gateway.history.service import Fence
from carrel_gateway.jobs.service import JobService
from carrel_gateway.runs.service import RunService
from carrel_gateway.sessions.service import SessionService
from carrel_gateway.sessions.tables import sessions
from carrel_gateway.settings import Settings
from carrel_gateway.storage.database import Transaction
from carrel_gateway.storage.ids import new_id
from carrel_gateway.storage.schema import metadata
from carrel_wire.log import UserMessage

UNPROTECTED = """
    SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')
    AND relname NOT IN ('alembic_version', 'accounts') AND NOT (relrowsecurity AND relforcerowsecurity AND EXISTS (
        SELECT 1 FROM pg_policies WHERE schemaname = 'public' AND tablename = relname AND cmd = 'ALL'
        AND roles = '{carrel_app}' AND qual = with_check
        AND qual = '(tenant_id = (NULLIF(current_setting(''app.tenant''::text, true), ''''::text))::uuid)'))
    ORDER BY relname
"""


@pytest.fixture
def settings(make_settings: object, postgres_url: str) -> Settings:
    return make_settings(database_url=postgres_url)  # pyright: ignore[reportCallIssue]


async def a_session(context: ProcessContext, principal: Principal) -> UUID:
    return (await SessionService(context, principal).create()).id


# ---------------------------------------------------------------------- the catalogue


def test_every_table_has_a_forced_policy(postgres: Postgres, postgres_database: str) -> None:
    assert postgres.sql(UNPROTECTED, database=postgres_database) == ""
    tables = "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')"
    assert int(postgres.sql(tables, database=postgres_database)) > len(metadata.tables)


@pytest.mark.parametrize(
    "weakened",
    [
        "CREATE TABLE added (tenant_id uuid PRIMARY KEY)",
        "ALTER TABLE messages NO FORCE ROW LEVEL SECURITY",
        "ALTER TABLE messages DISABLE ROW LEVEL SECURITY",
        "DROP POLICY tenant ON events_p03",
        "DROP POLICY tenant ON cells; CREATE POLICY tenant ON cells TO carrel_app USING (true) WITH CHECK (true)",
    ],
)
def test_a_table_that_is_not_protected_is_found(postgres: Postgres, weakened: str) -> None:
    name = postgres.clone()
    postgres.sql(*weakened.split("; "), database=name)
    found = postgres.sql(UNPROTECTED, database=name)
    postgres.sql(f"DROP DATABASE {name}")
    assert found in weakened
    assert found


def test_only_known_policies_go_beyond_the_tenant(postgres: Postgres, postgres_database: str) -> None:
    query = "SELECT tablename, policyname, roles, cmd FROM pg_policies WHERE policyname <> 'tenant'"
    assert postgres.sql(f"{query} ORDER BY 1", database=postgres_database).splitlines() == [
        "accounts|lookup|{carrel_login}|ALL",
        "jobs|work|{carrel_worker}|ALL",
        "runs|expired|{carrel_worker}|SELECT",
    ]
    rights = """
        SELECT grantee, table_name, privilege_type FROM information_schema.role_table_grants
        WHERE table_schema = 'public' AND (grantee IN ('carrel_login', 'carrel_worker', 'gateway', 'PUBLIC')
            OR grantee = 'carrel_app' AND (table_name LIKE 'events_p%' OR table_name = 'accounts'
                OR privilege_type NOT IN ('SELECT', 'INSERT', 'UPDATE', 'DELETE')))
        ORDER BY 1, 2, 3
    """
    assert postgres.sql(rights, database=postgres_database).splitlines() == [
        "carrel_login|accounts|INSERT",
        "carrel_login|accounts|SELECT",
        "carrel_login|accounts|UPDATE",
        "carrel_worker|jobs|SELECT",
        "carrel_worker|runs|SELECT",
    ]
    columns = """
        SELECT grantee, table_name, string_agg(column_name, ',' ORDER BY column_name)
        FROM information_schema.column_privileges WHERE table_schema = 'public' AND privilege_type = 'UPDATE'
            AND grantee IN ('carrel_worker', 'gateway', 'PUBLIC') GROUP BY 1, 2
    """
    assert postgres.sql(columns, database=postgres_database).splitlines() == [
        "carrel_worker|jobs|attempts,due_at,generation,owner,started_at,status"
    ]
    fewer = """
        SELECT table_name, string_agg(privilege_type, ',' ORDER BY privilege_type)
        FROM information_schema.role_table_grants WHERE table_schema = 'public' AND grantee = 'carrel_app'
        GROUP BY table_name HAVING count(*) < 4 ORDER BY 1
    """
    assert postgres.sql(fewer, database=postgres_database).splitlines() == [
        "alembic_version|SELECT",
        "audit|INSERT,SELECT",
        "audit_heads|INSERT,SELECT,UPDATE",
        "usage|INSERT,SELECT",
    ]


def test_the_tenant_is_first_in_unique_keys_and_part_of_foreign_keys() -> None:
    for table in metadata.tables.values():
        if table.name == "accounts":  # the lookup before there is a tenant
            continue
        uniques = [*table.primary_key.columns][:1]
        uniques += [
            next(iter(constraint.columns))
            for constraint in table.constraints
            if isinstance(constraint, UniqueConstraint)
        ]
        uniques += [next(iter(index.columns)) for index in table.indexes if index.unique]
        assert {column.name for column in uniques} == {"tenant_id"}, table.name
        for constraint in table.constraints:
            if isinstance(constraint, ForeignKeyConstraint):
                assert constraint.column_keys[0] == "tenant_id", table.name
                assert constraint.elements[0].column.name == "tenant_id", table.name


# ---------------------------------------------------------------------- roles


async def test_a_forgotten_tenant_shows_nothing(
    context: ProcessContext, principal: Principal, postgres_url: str
) -> None:
    await a_session(context, principal)
    connection = await asyncpg.connect(postgres_url)
    try:
        for prepare in ("SELECT 1", "SET app.tenant = ''", "SET ROLE carrel_app"):
            await connection.execute(prepare)
            for table in metadata.tables.keys() - {"accounts"}:
                assert await connection.fetchval(f"SELECT count(*) FROM {table}") == 0
    finally:
        await connection.close()


async def test_the_tenant_does_not_stay_on_a_pooled_connection(context: ProcessContext, principal: Principal) -> None:
    await a_session(context, principal)
    async with context.database._engine.connect() as connection:
        await connection.execute(text("SELECT set_config('app.other', :tenant_id, false)"), {"tenant_id": "x"})
        count = text("SELECT count(*), cast(:tenant_id AS text) FROM sessions")
        assert (await connection.execute(count, {"tenant_id": "none"})).one()[0] == 0


async def test_the_gateways_login_cannot_go_around_the_wall(
    context: ProcessContext, principal: Principal, postgres_url: str
) -> None:
    stranger = await new_principal(context.database)
    session_id = await a_session(context, principal)
    connection = await asyncpg.connect(postgres_url)
    try:
        assert not await connection.fetchval(
            "SELECT bool_or(rolsuper OR rolbypassrls OR rolcreaterole) FROM pg_roles"
            " WHERE pg_has_role(current_user, oid, 'MEMBER')"
        )
        refused = (
            "SET ROLE carrel_migrator",
            "SET ROLE postgres",
            "ALTER TABLE sessions NO FORCE ROW LEVEL SECURITY",
            "ALTER TABLE sessions DISABLE ROW LEVEL SECURITY",
            "DROP POLICY tenant ON sessions",
            "CREATE POLICY mine ON sessions USING (true)",
            "TRUNCATE sessions CASCADE",
            "SELECT * FROM events_p00",
            "UPDATE alembic_version SET version_num = 'x'",
        )
        for statement in refused:
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(statement)
        await connection.execute("SET row_security = off")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute("SELECT * FROM sessions")
        await connection.execute("SET row_security = on")
        await connection.execute(f"SET app.tenant = '{stranger.tenant_id}'")
        assert await connection.fetchval("SELECT count(*) FROM sessions WHERE id = $1", session_id) == 0
        assert await connection.execute("UPDATE sessions SET title = 'x'") == "UPDATE 0"
        assert await connection.execute("DELETE FROM events") == "DELETE 0"
    finally:
        await connection.close()


async def test_rows_of_another_tenant_can_be_neither_written_nor_taken(
    context: ProcessContext, principal: Principal
) -> None:
    session_id = await a_session(context, principal)
    stranger = await new_principal(context.database)

    async def steal(tx: Transaction) -> None:
        await tx.connection.execute(update(sessions).values(tenant_id=stranger.tenant_id))

    async def plant(tx: Transaction) -> None:
        row = {"tenant_id": stranger.tenant_id, "id": new_id(), "name": "x"}
        await tx.connection.execute(
            text("INSERT INTO users (tenant_id, id, name, created_at) VALUES (:tenant_id, :id, :name, now())"), row
        )

    for attempt in (steal, plant):
        with pytest.raises((ProgrammingError, DBAPIError), match="row-level security"):
            async with context.database.transaction(principal.tenant_id) as tx:
                await attempt(tx)
    assert (await SessionService(context, principal).get(session_id)).tenant_id == principal.tenant_id


async def test_foreign_keys_do_not_cross_tenants(context: ProcessContext, principal: Principal) -> None:
    session_id = await a_session(context, principal)
    stranger = await new_principal(context.database)
    for table in (executions, artifacts):
        key = next(key for key in table.foreign_key_constraints if key.referred_table is sessions)
        assert key.column_keys == ["tenant_id", "session_id"]
    with pytest.raises(DBAPIError, match="fk_executions_sessions"):
        async with context.database.transaction(stranger.tenant_id) as tx:
            await tx.connection.execute(
                text(
                    "INSERT INTO executions (tenant_id, id, session_id, code, status, last_n, created_at)"
                    " VALUES (:tenant_id, :tenant_id, :session_id, '', 'ok', 0, now())"
                ).bindparams(tenant_id=stranger.tenant_id, session_id=session_id)
            )


async def test_the_worker_sees_expired_runs_and_live_jobs_and_nothing_else(
    context: ProcessContext, principal: Principal, postgres_url: str
) -> None:
    session_id = await a_session(context, principal)
    first = [UserMessage(message_id=new_id(), content="q")]
    run = await RunService(context, principal).start(session_id, kind="chat", first=first, model=None)
    jobs = JobService(context, principal)
    live, over = await jobs.enqueue("a"), await jobs.enqueue("b")
    assert over is not None
    await jobs.cancel(over)
    connection = await asyncpg.connect(postgres_url)
    try:
        await connection.execute("SET ROLE carrel_worker")
        assert await connection.fetchval("SELECT count(*) FROM runs WHERE id = $1", run.id) == 0
        await RunService(context, principal).hand_over(Fence(run.id, 1))
        assert await connection.fetchval("SELECT count(*) FROM runs WHERE id = $1", run.id) == 1
        found = await connection.fetch("SELECT id FROM jobs WHERE tenant_id = $1", principal.tenant_id)
        assert [row["id"] for row in found] == [live]
        for statement in (
            *(f"SELECT * FROM {table}" for table in metadata.tables if table not in {"runs", "jobs"}),
            "UPDATE runs SET generation = 9",
            "DELETE FROM runs",
            "DELETE FROM jobs",
            "UPDATE jobs SET payload = '{}'",
            "UPDATE jobs SET tenant_id = id",
            "UPDATE jobs SET status = 'succeeded'",
        ):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(statement)
    finally:
        await connection.close()


async def test_the_lookup_sees_accounts_and_nothing_else(
    context: ProcessContext, principal: Principal, postgres_url: str
) -> None:
    await a_session(context, principal)
    async with context.database.login_transaction() as lookup:
        assert await lookup.scalar(text("SELECT count(*) FROM accounts")) == 0
    connection = await asyncpg.connect(postgres_url)
    try:
        await connection.execute("SET ROLE carrel_login")
        for statement in (*(f"SELECT * FROM {name}" for name in metadata.tables if name != "accounts"),
                          "DELETE FROM accounts"):  # fmt: skip
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(statement)
        await connection.execute("SET ROLE carrel_app")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute("SELECT * FROM accounts")
    finally:
        await connection.close()


# ---------------------------------------------------------------------- statements


async def test_a_statement_without_a_tenant_is_found(context: ProcessContext, principal: Principal) -> None:
    with statements_without_tenant(context.database) as found:
        async with context.database.transaction(principal.tenant_id) as tx:
            await tx.connection.execute(select(sessions).where(sessions.c.tenant_id == principal.tenant_id))
        assert found == []
    # Another listener, so that the module's own one does not see it: that one would fail this test.
    assert not _would_pass("SELECT sessions.id FROM sessions WHERE sessions.id = $1")
    assert not _would_pass("SELECT runs.tenant_id, runs.id FROM runs WHERE runs.status = $1")


def _would_pass(statement: str) -> bool:
    from tests.support.tenancy import WITHOUT_TENANT

    return WITHOUT_TENANT.match(statement) is not None
