"""A gateway's insides without its HTTP surface: real SQLite, real object store on disk, real kernel hosts."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from tests.support.desk import PRINCIPAL, Desk
from tests.support.local import LEFT_ALIVE, settings_for

from carrel_gateway.opening import open_context
from carrel_gateway.sessions.service import SessionService

LEASE_SECONDS = 1.5


@pytest.fixture(autouse=True)
def reaped() -> Iterator[None]:
    """Reap the hosts that were left to another gateway, which has ended them."""
    yield
    for host in LEFT_ALIVE:
        host.wait(60)
    LEFT_ALIVE.clear()


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    context = await open_context(settings_for(tmp_path / "data"))
    try:
        session = await SessionService(context, PRINCIPAL).create(title="test", model=None, config=None)
        yield Desk(context, session.id)
    finally:
        await context.aclose()


@pytest.fixture
async def desks(tmp_path: Path, postgres_url: str, redis_url: str) -> AsyncIterator[tuple[Desk, Desk]]:
    """One session at two gateways, over one Postgres and one Redis, and one kernel host that both can reach."""
    settings = settings_for(
        tmp_path / "data", database_url=postgres_url, redis_url=redis_url, run_lease_seconds=LEASE_SECONDS
    )
    async with AsyncExitStack() as stack:
        contexts = [await open_context(settings) for _ in range(2)]
        for context in contexts:
            stack.push_async_callback(context.aclose)
        session = await SessionService(contexts[0], PRINCIPAL).create(title="test")
        first, second = (Desk(context, session.id) for context in contexts)
        await first.run("None")
        yield first, second
