"""A gateway's insides without its HTTP surface: real SQLite, real object store on disk, real kernel hosts."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from tests.support.desk import PRINCIPAL, Desk
from tests.support.local import LEFT_ALIVE, settings_for

from carrel_gateway.opening import open_context
from carrel_gateway.sessions.service import SessionService


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
