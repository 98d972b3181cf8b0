"""Transactions over a database that hangs, and beside one who hangs: callers are told, and the next one is served."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest
from sqlalchemy import text
from tests.integration.storage.conftest import MakeSettings

from carrel_gateway.identity.service import DEFAULT_TENANT_ID
from carrel_gateway.storage import engine
from carrel_gateway.storage.database import Database, DatabaseAway, converted
from carrel_gateway.storage.steps import scalar

LOCK = text("SELECT pg_advisory_xact_lock(7)")
SETTINGS = text(
    "SELECT string_agg(name || ' ' || setting, ',' ORDER BY name COLLATE \"C\") FROM pg_settings"
    " WHERE name ~ '^(tcp|client_connection|idle_in_transaction)'"
)


async def test_a_statement_without_an_end_means_that_the_database_is_away(
    make_settings: MakeSettings, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "COMMAND_SECONDS", 1)
    database = await Database.connect(make_settings(database_url=postgres_url, db_pool_size=1, db_max_overflow=0))
    try:
        with pytest.raises(DatabaseAway):
            async with database.transaction(DEFAULT_TENANT_ID) as tx:
                await tx.connection.execute(text("SELECT pg_sleep(60)"))
        async with database.transaction(DEFAULT_TENANT_ID) as tx:
            assert await tx.connection.scalar(text("SELECT 1")) == 1
    finally:
        await database.aclose()


async def test_whoever_stands_still_in_a_transaction_keeps_others_from_its_rows_for_a_moment_only(
    make_settings: MakeSettings, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a gateway does whose node has lost power: Postgres hears neither a word nor the end of its connections."""
    monkeypatch.setattr(engine, "IDLE_SECONDS", 0.5)
    database = await Database.connect(make_settings(database_url=postgres_url, db_pool_size=2))
    taken, goes_on = asyncio.Event(), asyncio.Event()

    async def stand_still() -> None:
        async with database.transaction(DEFAULT_TENANT_ID) as tx:
            await tx.connection.execute(LOCK)
            taken.set()
            await goes_on.wait()
            await tx.connection.execute(text("SELECT 1"))

    try:
        silent = asyncio.create_task(stand_still())
        await taken.wait()
        async with database.transaction(DEFAULT_TENANT_ID) as tx:
            await tx.connection.execute(LOCK)
        goes_on.set()
        with pytest.raises(DatabaseAway):
            await silent
    finally:
        await database.aclose()


async def test_postgres_looks_after_both_kinds_of_connections(make_settings: MakeSettings, postgres_url: str) -> None:
    database = await Database.connect(make_settings(database_url=postgres_url))
    try:
        async with database.transaction(DEFAULT_TENANT_ID) as tx:
            found = await tx.connection.scalar(SETTINGS)
        assert found == await database.run(DEFAULT_TENANT_ID, lambda: scalar(SETTINGS, {}))
        assert found == (
            "client_connection_check_interval 5000,idle_in_transaction_session_timeout 10000,"
            "tcp_keepalives_count 3,tcp_keepalives_idle 15,tcp_keepalives_interval 5,tcp_user_timeout 30000"
        )
    finally:
        await database.aclose()


def test_a_connection_of_which_the_end_has_not_come_yet_means_away() -> None:
    with pytest.raises(DatabaseAway), converted():
        raise asyncpg.InternalClientError("cannot switch to state 12; another operation (2) is in progress")
    with pytest.raises(RuntimeError), converted():
        raise RuntimeError
