"""Schemas over both databases.

Plan: migrating makes exactly the tables that the code knows, any number of times and at the same time, and keeps what
the version before stored; a gateway
refuses a schema that is not there, older or newer, a login without the gateway's roles, and a migrating role that
row-level security would blind; an embedded database belongs to one process; what cannot be opened says what to do and
holds no password.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncEngine
from tests.support.people import new_key
from tests.support.servers import Postgres
from tests.support.state import new_principal, open_state

from carrel_gateway.artifacts import tables as _artifacts  # noqa: F401  registers its tables
from carrel_gateway.context import Principal
from carrel_gateway.credentials.service import CredentialService
from carrel_gateway.errors import CarrelError
from carrel_gateway.execution import tables as _execution  # noqa: F401
from carrel_gateway.history import tables as _history  # noqa: F401
from carrel_gateway.idempotency import tables as _idempotency  # noqa: F401
from carrel_gateway.identity.rights import Role
from carrel_gateway.identity.service import DEFAULT_TENANT_ID, DEFAULT_USER_ID
from carrel_gateway.jobs import tables as _jobs  # noqa: F401
from carrel_gateway.mcp_servers import tables as _mcp_servers  # noqa: F401
from carrel_gateway.people.service import UserService
from carrel_gateway.provider_keys import tables as _provider_keys  # noqa: F401
from carrel_gateway.runs import tables as _runs  # noqa: F401
from carrel_gateway.sessions.service import SessionService
from carrel_gateway.settings import Settings
from carrel_gateway.sharing import tables as _sharing  # noqa: F401
from carrel_gateway.snapshots import tables as _snapshots  # noqa: F401
from carrel_gateway.storage.database import Database, DatabaseAway
from carrel_gateway.storage.engine import InvalidDatabaseUrl, database_url, make_engine
from carrel_gateway.storage.folder import DataFolderInUse, DataFolderUnusable
from carrel_gateway.storage.migrate import HEAD, KNOWN, MigrationFailed, SchemaMismatch, configuration, upgrade
from carrel_gateway.storage.schema import metadata
from carrel_gateway.stored_agents import tables as _stored_agents  # noqa: F401
from carrel_gateway.uploads import tables as _uploads  # noqa: F401

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def empty(postgres: Postgres) -> Iterator[str]:
    """The name of a Postgres database without a schema."""
    postgres.sql("CREATE DATABASE empty")
    yield "empty"
    postgres.sql("DROP DATABASE empty WITH (FORCE)")


@pytest.fixture(params=["sqlite", "postgres"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of a database without a schema, for a role that may migrate."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'empty.db'}"
    return request.getfixturevalue("postgres").url(request.getfixturevalue("empty"))


@pytest.fixture
async def engine(empty_url: str) -> AsyncIterator[AsyncEngine]:
    opened = make_engine(database_url(empty_url), pool_size=1, max_overflow=0)
    yield opened
    await opened.dispose()


def differences(connection: Connection) -> list[Any]:
    def known(_object: Any, name: str | None, kind: str, _reflected: bool, _compare: Any) -> bool:
        if kind == "index":
            return not (name or "").endswith("_words")  # on an expression that Postgres alone has
        return not (kind == "table" and (name or "").startswith("events_p"))

    options = {"include_object": known, "compare_type": False}
    return list(compare_metadata(MigrationContext.configure(connection, opts=options), metadata))


async def test_migrating_makes_what_the_code_knows(empty_url: str, engine: AsyncEngine) -> None:
    await upgrade(empty_url)
    await upgrade(empty_url)
    async with engine.connect() as connection:
        assert await connection.run_sync(differences) == []
        assert await connection.scalar(text("SELECT version_num FROM alembic_version")) == HEAD


def earlier_version(connection: Connection, version: str) -> None:
    """Make the schema of an earlier version, with a session and its history."""
    command.upgrade(configuration(connection), version)
    ids = {"tenant": DEFAULT_TENANT_ID.hex, "user": DEFAULT_USER_ID.hex, "session": uuid4().hex, "event": uuid4().hex}
    connection.execute(
        text(
            "INSERT INTO sessions"
            " (tenant_id, id, owner_id, title, status, model, config, last_seq, created_at, updated_at)"
            " VALUES (:tenant, :session, :user, 'old', 'active', 'm', '{}', 1, '2026-01-01', '2026-01-01')"
        ),
        ids,
    )
    connection.execute(
        text(
            "INSERT INTO events (tenant_id, session_id, seq, id, type, actor, payload, created_at)"
            " VALUES (:tenant, :session, 1, :event, 'session.created', 'user', '{}', '2026-01-01')"
        ),
        ids,
    )


@pytest.mark.parametrize("version", sorted(KNOWN - {HEAD}))
async def test_what_an_earlier_version_stored_is_kept(empty_url: str, engine: AsyncEngine, version: str) -> None:
    async with engine.begin() as connection:
        await connection.run_sync(earlier_version, version)
    await upgrade(empty_url)
    async with engine.connect() as connection:
        assert await connection.run_sync(differences) == []
        columns = "title, suspended_at, snapshot_id, boot_id, checked_seq, keeper, keeper_until"
        assert (await connection.execute(text(f"SELECT {columns} FROM sessions"))).all() == [
            ("old", None, None, None, 0, None, None)
        ]
        assert (await connection.execute(text("SELECT seq, type FROM events"))).all() == [(1, "session.created")]


async def test_who_made_a_key_is_taken_from_the_audit_log(request: pytest.FixtureRequest, settings: Settings) -> None:
    url = settings.database
    if not url.startswith("sqlite"):
        url = request.getfixturevalue("postgres").url(request.getfixturevalue("postgres_database"))
    async with open_state(settings) as context:
        maker = await new_principal(context.database)
        account = await UserService(context, maker).add_service("x", Role.USER)
        told = (await CredentialService(context, maker).make_key("x", user_id=account.id)).row
        _, untold = await new_key(context.database, Principal(maker.tenant_id, account.id))
    opened = make_engine(database_url(url), pool_size=1, max_overflow=0)
    async with opened.begin() as connection:
        for table in ("api_keys", "share_links"):
            await connection.execute(text(f"ALTER TABLE {table} DROP COLUMN maker_id"))
        for table in ("mcp_servers", "usage", "jobs", "quotas", "quota_counters", "uploads"):  # what came later
            await connection.execute(text(f"DROP TABLE {table}"))
        await connection.execute(text("DROP INDEX ix_sessions_open"))
        await connection.execute(text("UPDATE alembic_version SET version_num = '0012'"))
    await opened.dispose()
    await upgrade(url)
    async with open_state(settings) as context:
        found = {key.id: key for key in (await CredentialService(context, maker).keys(account.id)).items}
    assert (found[told.id], found[untold].maker_id) == (told, None)


async def test_a_table_that_no_migration_makes_is_found(empty_url: str, engine: AsyncEngine) -> None:
    await upgrade(empty_url)
    async with engine.connect() as connection:
        await connection.execute(text("DROP TABLE messages"))
        assert await connection.run_sync(differences) != []


async def test_many_may_migrate_at_once(postgres: Postgres, empty: str) -> None:
    await asyncio.gather(*(upgrade(postgres.url(empty)) for _ in range(4)))
    assert postgres.sql("SELECT version_num FROM alembic_version", database=empty) == HEAD


def test_the_head_is_the_last_step() -> None:
    scripts = ScriptDirectory(str(ROOT / "gateway/carrel_gateway/migrations"))
    assert scripts.get_heads() == [HEAD]
    assert {script.revision for script in scripts.walk_revisions()} == KNOWN


async def test_the_default_account_is_there(settings: Settings) -> None:
    async with open_state(settings) as context:
        session = await SessionService(context, Principal(DEFAULT_TENANT_ID, DEFAULT_USER_ID)).create()
        assert session.owner_id == DEFAULT_USER_ID


async def refusal(settings: Settings) -> str:
    with pytest.raises(SchemaMismatch) as caught:
        await Database.connect(settings)
    return caught.value.message


async def test_a_gateway_refuses_another_schema(postgres: Postgres, empty: str, make_settings: Any) -> None:
    settings = make_settings(database_url=postgres.url(empty, "gateway"))
    assert "carrel db upgrade" in await refusal(settings)
    await upgrade(postgres.url(empty))
    await (await Database.connect(settings)).aclose()
    postgres.sql("UPDATE alembic_version SET version_num = '9999'", database=empty)
    assert "9999" in await refusal(settings)
    with pytest.raises(SchemaMismatch, match="9999"):
        await upgrade(postgres.url(empty))


async def test_the_embedded_product_refuses_a_newer_schema(make_settings: Any) -> None:
    settings = make_settings()
    async with open_state(settings) as context, context.database._engine.begin() as connection:
        await connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    assert "9999" in await refusal(settings)
    assert "9999" in await refusal(settings)  # and has given the folder back


async def test_a_login_without_the_roles_is_told_what_to_grant(
    postgres: Postgres, postgres_database: str, make_settings: Any
) -> None:
    postgres.sql("CREATE ROLE nobody_yet LOGIN")
    try:
        settings = make_settings(database_url=postgres.url(postgres_database, "nobody_yet"))
        assert "GRANT carrel_app, carrel_login, carrel_worker TO" in await refusal(settings)
    finally:
        postgres.sql("DROP ROLE nobody_yet")


async def test_a_role_that_row_level_security_would_blind_does_not_migrate(postgres: Postgres, empty: str) -> None:
    postgres.sql("CREATE ROLE blind LOGIN")
    try:
        with pytest.raises(MigrationFailed, match="BYPASSRLS"):
            await upgrade(postgres.url(empty, "blind"))
    finally:
        postgres.sql("DROP ROLE blind")


def run(url: str, home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    folders = (ROOT / name for name in ("gateway", "operator", "kernel-image"))
    return subprocess.run(
        [sys.executable, "-m", *words],
        env={
            "PATH": "/usr/bin:/bin",
            "HOME": str(home),
            "PYTHONPATH": ":".join(map(str, folders)),
            "CARREL_DATABASE_URL": url,
        },
        cwd=home,
        capture_output=True,
        text=True,
        timeout=100,
    )


def test_the_program_that_migrates(postgres: Postgres, empty: str, tmp_path: Path) -> None:
    done = run(postgres.url(empty), tmp_path, "carrel_gateway.storage.migrate")
    assert (done.returncode, done.stderr) == (0, "")
    assert HEAD in done.stdout
    refused(run("postgresql://user:hush@127.0.0.1:1/none", tmp_path, "carrel_gateway.storage.migrate"))


def refused(failed: subprocess.CompletedProcess[str]) -> None:
    assert failed.returncode == 1
    assert failed.stderr
    assert "hush" not in failed.stderr
    assert "Traceback" not in failed.stderr


def test_the_commands_that_migrate(postgres: Postgres, empty: str, tmp_path: Path) -> None:
    def db(what: str, url: str = postgres.url(empty)) -> subprocess.CompletedProcess[str]:
        return run(url, tmp_path, "carrel_cli", "db", what)

    before = db("status")
    assert (before.returncode, "no schema yet" in before.stdout, "upgrade" in before.stdout) == (1, True, True)
    done = db("upgrade")
    assert (done.returncode, done.stderr, HEAD in done.stdout) == (0, "", True)
    after = db("status")
    assert (after.returncode, f"has the schema {HEAD}" in after.stdout) == (0, True)
    postgres.sql("UPDATE alembic_version SET version_num = '9999'", database=empty)
    newer = db("status")
    assert (newer.returncode, "9999" in newer.stdout, "the newer Carrel" in newer.stdout) == (1, True, True)
    for what in ("status", "upgrade"):
        refused(db(what, "postgresql://user:hush@127.0.0.1:1/none"))
    there = tmp_path / "none.db"
    assert "no schema yet" in db("status", f"sqlite:///{there}").stdout
    assert not there.exists()


# ---------------------------------------------------------------------- what cannot be opened


async def test_an_embedded_database_belongs_to_one_process(make_settings: Any) -> None:
    settings = make_settings()
    first = await Database.connect(settings)
    with pytest.raises(DataFolderInUse, match="stop that one"):
        await Database.connect(settings)
    await first.aclose()
    await (await Database.connect(settings)).aclose()


async def test_a_folder_that_cannot_be_used(make_settings: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataFolderUnusable, match="CARREL_DATA_DIR"):
        await Database.connect(make_settings(data_dir=tmp_path / "file" / "below"))


@pytest.mark.parametrize(
    "url", ["mysql://user:hush@host/db", "hush", "sqlite://", "sqlite:///:memory:", "postgresql://u:hush@host:port/db"]
)
async def test_an_address_that_is_none(make_settings: Any, url: str) -> None:
    with pytest.raises(InvalidDatabaseUrl) as caught:
        await Database.connect(make_settings(database_url=url))
    assert "hush" not in caught.value.message


async def test_a_server_that_is_away(make_settings: Callable[..., Settings], unused_tcp_port: int) -> None:
    url = f"postgresql://user:hush@127.0.0.1:{unused_tcp_port}/db"
    with pytest.raises(DatabaseAway) as caught:
        await Database.connect(make_settings(database_url=url))
    assert "hush" not in caught.value.message
    with pytest.raises(CarrelError) as failed:
        await upgrade(url)
    assert "hush" not in failed.value.message
