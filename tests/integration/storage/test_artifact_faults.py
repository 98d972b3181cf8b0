"""Row and object agree wherever a gateway dies.

Plan: the process "dies" (an exception that nothing catches) after the pending row, after the object, before the
commit of `ready`, and in the middle of a deletion. At each point nothing half-written shows, the sweep removes row
and object, and the name can be used as if nothing had been. Young pending rows are left alone; an upload that
outlived the sweep is refused.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select
from tests.support.state import chunks_of, collected

from carrel_gateway.artifacts import service as service_module
from carrel_gateway.artifacts.service import ArtifactService
from carrel_gateway.artifacts.tables import artifacts as table
from carrel_gateway.context import Principal, ProcessContext
from carrel_gateway.errors import Conflict, NotFound
from carrel_gateway.history.service import HistoryService
from carrel_gateway.storage.database import DatabaseAway


class Death(BaseException):
    """The process ends here."""


async def store(artifacts: ArtifactService, session_id: UUID) -> Any:
    return await artifacts.store(session_id, name="a", category="data", content_type=None, chunks=chunks_of(b"data"))


async def states(context: ProcessContext, principal: Principal) -> list[str]:
    async with context.database.transaction(principal.tenant_id) as tx:
        query = select(table.c.state).where(table.c.tenant_id == principal.tenant_id).order_by(table.c.created_at)
        return list(await tx.connection.scalars(query))


def dying_before(call: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    async def die(*_arguments: Any, **_named: Any) -> None:
        raise Death

    del call
    return die


def dying_after(call: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    async def die(*arguments: Any, **named: Any) -> None:
        await call(*arguments, **named)
        raise Death

    return die


@pytest.mark.parametrize(
    ("place", "death"),
    [("objects.put", dying_before), ("objects.put", dying_after), ("service._make_ready", dying_before)],
    ids=["after the row", "after the object", "before ready"],
)
async def test_an_upload_that_was_cut_off(
    artifacts: ArtifactService,
    session_id: UUID,
    context: ProcessContext,
    principal: Principal,
    monkeypatch: pytest.MonkeyPatch,
    place: str,
    death: Callable[..., Any],
) -> None:
    owner, name = (context.objects, "put") if place == "objects.put" else (artifacts, "_make_ready")
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, death(getattr(owner, name)))
        with pytest.raises(Death):
            await store(artifacts, session_id)
    assert await artifacts.list(session_id) == []
    with pytest.raises(NotFound):
        await artifacts.open(session_id, "a", "data")
    assert await states(context, principal) == ["pending"]
    assert await artifacts.sweep() == 0  # it might be an upload that is going on
    monkeypatch.setattr(service_module, "PENDING_AGE", timedelta(0))
    assert await artifacts.sweep() == 1
    assert await states(context, principal) == []
    assert await context.objects.delete_prefix(str(principal.tenant_id)) == 0
    assert len(await HistoryService(context, principal).events(session_id)) == 1
    assert (await store(artifacts, session_id)).version == 1


async def test_a_ready_file_is_whole_even_when_its_process_dies_at_once(
    artifacts: ArtifactService, session_id: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(artifacts, "_make_ready", dying_after(artifacts._make_ready))
        with pytest.raises(Death):
            await store(artifacts, session_id)
    monkeypatch.setattr(service_module, "PENDING_AGE", timedelta(0))
    assert await artifacts.sweep() == 0
    _, chunks = await artifacts.open(session_id, "a", "data")
    assert await collected(chunks) == b"data"


async def test_a_deletion_that_was_cut_off(
    artifacts: ArtifactService,
    session_id: UUID,
    context: ProcessContext,
    principal: Principal,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await store(artifacts, session_id)
    with monkeypatch.context() as patch:
        patch.setattr(context.objects, "delete", dying_before(context.objects.delete))
        with pytest.raises(Death):
            await artifacts.delete(session_id, "a", "data")
    assert await artifacts.list(session_id) == []
    assert await states(context, principal) == ["deleted"]
    assert await artifacts.sweep() == 1
    assert await states(context, principal) == ["removed"]
    assert await context.objects.delete_prefix(str(principal.tenant_id)) == 0
    assert await artifacts.sweep() == 0


async def test_an_upload_that_outlived_the_sweep_is_refused(
    artifacts: ArtifactService,
    session_id: UUID,
    context: ProcessContext,
    principal: Principal,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(service_module, "PENDING_AGE", timedelta(0))
    put = context.objects.put

    async def swept_meanwhile(*arguments: Any, **named: Any) -> None:
        await put(*arguments, **named)
        await artifacts.sweep()

    monkeypatch.setattr(context.objects, "put", swept_meanwhile)
    with pytest.raises(Conflict, match="again"):
        await store(artifacts, session_id)
    assert await states(context, principal) == []
    assert await context.objects.delete_prefix(str(principal.tenant_id)) == 0


async def test_a_commit_whose_reply_is_lost_keeps_the_file(
    artifacts: ArtifactService, session_id: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_ready = artifacts._make_ready

    async def unheard(*arguments: Any) -> None:
        await make_ready(*arguments)
        raise DatabaseAway("the commit was applied, and its reply was lost")

    monkeypatch.setattr(artifacts, "_make_ready", unheard)
    with pytest.raises(DatabaseAway):
        await store(artifacts, session_id)
    _, chunks = await artifacts.open(session_id, "a", "data")
    assert await collected(chunks) == b"data"
