"""Transactions over a database that hangs: the caller is told that it is away, and the next one is served."""

from __future__ import annotations

import asyncpg
import pytest
from sqlalchemy import text
from tests.integration.storage.conftest import MakeSettings

from carrel_gateway.identity.service import DEFAULT_TENANT_ID
from carrel_gateway.storage import engine
from carrel_gateway.storage.database import Database, DatabaseAway, converted


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


def test_a_connection_of_which_the_end_has_not_come_yet_means_away() -> None:
    with pytest.raises(DatabaseAway), converted():
        raise asyncpg.InternalClientError("cannot switch to state 12; another operation (2) is in progress")
    with pytest.raises(RuntimeError), converted():
        raise RuntimeError
