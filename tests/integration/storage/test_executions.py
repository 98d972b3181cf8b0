"""The rows of executions over both databases: an id is taken once, a record only moves on, other tenants see none."""

from __future__ import annotations

import asyncio
from uuid import UUID

from tests.support.state import new_principal

from carrel_gateway.context import Principal, ProcessContext
from carrel_gateway.execution import repository
from carrel_gateway.storage.ids import new_id


async def intend(context: ProcessContext, principal: Principal, session_id: UUID, execution_id: UUID) -> bool:
    async with context.database.transaction(principal.tenant_id) as tx:
        steps = repository.intend(tx.dialect.name, tx.tenant_id, execution_id, session_id=session_id, code="1")
        return await tx.run(steps)


async def test_an_id_is_taken_once(context: ProcessContext, principal: Principal, session_id: UUID) -> None:
    execution_id = new_id()
    taken = await asyncio.gather(*(intend(context, principal, session_id, execution_id) for _ in range(5)))
    assert sorted(taken) == [False, False, False, False, True]
    async with context.database.transaction(principal.tenant_id, write=False) as tx:
        row = await tx.run(repository.find(tx.tenant_id, execution_id))
        assert row is not None
        assert (row.status, row.last_n, row.is_finished, row.code) == ("intended", 0, False, "1")
        assert await repository.open_of_session(tx, session_id) == [row]
        assert await tx.run(repository.find(tx.tenant_id, new_id())) is None


async def test_a_record_only_moves_on(context: ProcessContext, principal: Principal, session_id: UUID) -> None:
    execution_id = new_id()
    await intend(context, principal, session_id, execution_id)
    async with context.database.transaction(principal.tenant_id) as tx:
        assert await tx.run(repository.mark(tx.tenant_id, execution_id, status="running", last_n=4, seen_n=0))
        assert not await tx.run(repository.mark(tx.tenant_id, execution_id, status="running", last_n=5, seen_n=0))
        assert await tx.run(repository.mark(tx.tenant_id, execution_id, status="ok", last_n=9))
        assert not await tx.run(repository.mark(tx.tenant_id, execution_id, status="error", last_n=10))
        row = await tx.run(repository.find(tx.tenant_id, execution_id))
        assert row is not None
        assert (row.status, row.last_n, row.is_finished) == ("ok", 9, True)
        assert await repository.open_of_session(tx, session_id) == []


async def test_one_that_is_over_at_once(context: ProcessContext, principal: Principal, session_id: UUID) -> None:
    execution_id = new_id()
    async with context.database.transaction(principal.tenant_id) as tx:
        steps = repository.intend(
            tx.dialect.name, tx.tenant_id, execution_id, session_id=session_id, code="1", status="ok", last_n=3
        )
        assert await tx.run(steps)
        row = await tx.run(repository.find(tx.tenant_id, execution_id))
        assert row is not None
        assert row.is_finished


async def test_another_tenant_sees_none(context: ProcessContext, principal: Principal, session_id: UUID) -> None:
    execution_id = new_id()
    await intend(context, principal, session_id, execution_id)
    stranger = await new_principal(context.database)
    async with context.database.transaction(stranger.tenant_id) as tx:
        assert await tx.run(repository.find(tx.tenant_id, execution_id)) is None
        assert await repository.open_of_session(tx, session_id) == []
        assert not await tx.run(repository.mark(tx.tenant_id, execution_id, status="ok", last_n=1))
