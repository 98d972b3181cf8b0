"""Sessions over both databases.

Plan: what is created can be read, changed, listed in pages, archived; deletion takes rows, objects and kernel, is
resumed by the sweep after a fault, and leaves other sessions alone; another tenant finds none of it; what was made with
kubectl is taken up once; one gateway at a time keeps a session, those at rest are found, and what is known of the state
of a session stays until it is replaced or forgotten.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any, cast
from uuid import UUID, uuid4

import pytest
from sqlalchemy import func, select
from tests.support.state import NoKernels, chunks_of, new_principal

from carrel_gateway.artifacts.service import ArtifactService
from carrel_gateway.context import Principal, ProcessContext
from carrel_gateway.errors import Conflict, InvalidInput, NotFound
from carrel_gateway.history.service import HistoryService
from carrel_gateway.history.tables import events
from carrel_gateway.identity.service import DEFAULT_TENANT_ID, DEFAULT_USER_ID
from carrel_gateway.sessions import repository
from carrel_gateway.sessions.service import UNTITLED, SessionService
from carrel_gateway.snapshots import repository as snapshot_rows
from carrel_gateway.snapshots.service import Snapshot, SnapshotService
from carrel_gateway.storage.ids import new_id
from carrel_gateway.storage.objects import ObjectsAway
from carrel_wire.log import SessionChanged, SessionCreated, UserMessage


@pytest.fixture
def sessions(context: ProcessContext, principal: Principal) -> SessionService:
    return SessionService(context, principal)


async def test_created_sessions_can_be_read(
    sessions: SessionService, context: ProcessContext, principal: Principal
) -> None:
    session = await sessions.create(title="Sales \0 \U0001f4c8", model="m", config={"max_steps": 3})
    assert session == await sessions.get(session.id)
    assert (session.title, session.model, session.config) == ("Sales \ufffd \U0001f4c8", "m", {"max_steps": 3})
    assert (session.status, session.last_seq, session.owner_id) == ("active", 1, principal.user_id)
    assert session.created_at.utcoffset() is not None
    plain = await sessions.create()
    assert (plain.title, plain.model, plain.config) == (UNTITLED, context.settings.llm_model, {})
    (first,) = await HistoryService(context, principal).events(plain.id)
    assert first.payload == SessionCreated(title=UNTITLED)


async def test_an_id_is_taken_once(sessions: SessionService) -> None:
    chosen = new_id()
    assert (await sessions.create(session_id=chosen)).id == chosen
    with pytest.raises(Conflict):
        await sessions.create(session_id=chosen)


async def test_changes_are_in_the_log(sessions: SessionService, context: ProcessContext, principal: Principal) -> None:
    session = await sessions.create(title="a", model="m", config={"x": 1})
    changed = await sessions.update(session.id, title="b", config={"y": 2})
    assert (changed.title, changed.model, changed.config, changed.last_seq) == ("b", "m", {"y": 2}, 2)
    assert changed.updated_at >= session.updated_at
    (event,) = await HistoryService(context, principal).events(session.id, after=1)
    assert event.payload == SessionChanged(changes={"title": "b", "config": {"y": 2}})
    assert await sessions.update(session.id) == changed
    with pytest.raises(NotFound):
        await sessions.update(new_id(), title="x")


async def test_lists_come_in_pages_newest_first(sessions: SessionService) -> None:
    made = [(await sessions.create(title=str(place))).id for place in range(5)]
    await sessions.archive(made[1])
    first = await sessions.list(limit=2)
    assert [item.id for item in first.items] == [made[4], made[3]]
    second = await sessions.list(limit=2, cursor=first.next_cursor)
    third = await sessions.list(limit=2, cursor=second.next_cursor)
    assert [item.id for item in [*second.items, *third.items]] == [made[2], made[1], made[0]]
    assert third.next_cursor is None
    assert [item.id for item in (await sessions.list(limit=2, offset=3)).items] == [made[1], made[0]]
    assert [item.id for item in (await sessions.list(status="archived")).items] == [made[1]]
    assert len((await sessions.list(status="active")).items) == 4
    for wrong in ("x", "ä", "!!!!", first.next_cursor or "" + "AAAA"):
        if wrong != first.next_cursor:
            with pytest.raises(InvalidInput):
                await sessions.list(cursor=wrong)


async def test_archiving_gives_the_kernel_back(sessions: SessionService, context: ProcessContext) -> None:
    session = await sessions.create()
    assert (await sessions.archive(session.id)).status == "archived"
    released = cast("NoKernels", cast("Any", context.kernels)).released
    assert [item.session_id for item in released] == [session.id]
    with pytest.raises(NotFound):
        await sessions.archive(new_id())


async def _count_events(context: ProcessContext, principal: Principal) -> int:
    async with context.database.transaction(principal.tenant_id) as tx:
        query = select(func.count()).select_from(events).where(events.c.tenant_id == principal.tenant_id)
        return await tx.connection.scalar(query) or 0


async def test_deletion_takes_everything_of_the_session_and_nothing_else(
    sessions: SessionService, context: ProcessContext, principal: Principal
) -> None:
    artifacts = ArtifactService(context, principal)
    kept, gone = await sessions.create(), await sessions.create()
    for session in (kept, gone):
        await artifacts.store(
            session.id, name="a.txt", category="data", content_type=None, chunks=chunks_of(b"x" * 100)
        )
    await sessions.delete(gone.id)
    with pytest.raises(NotFound):
        await sessions.get(gone.id)
    with pytest.raises(NotFound):
        await sessions.delete(gone.id)
    with pytest.raises(NotFound):
        await HistoryService(context, principal).append(
            gone.id, [UserMessage(message_id=new_id(), content="x")], actor="user"
        )
    assert [item.id for item in (await sessions.list()).items] == [kept.id]
    assert await _count_events(context, principal) == 2
    assert await context.objects.delete_prefix(f"{principal.tenant_id}/{gone.id}") == 0
    assert await context.objects.delete_prefix(f"{principal.tenant_id}/{kept.id}") == 1
    released = cast("NoKernels", cast("Any", context.kernels)).released
    assert [item.session_id for item in released] == [gone.id]


async def test_a_deletion_that_was_cut_off_is_finished_by_the_sweep(
    sessions: SessionService, context: ProcessContext, principal: Principal, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = await sessions.create()

    async def away(_prefix: str) -> int:
        raise ObjectsAway("away")

    with monkeypatch.context() as patch:
        patch.setattr(context.objects, "delete_prefix", away)
        await sessions.delete(session.id)
        with pytest.raises(NotFound):
            await sessions.get(session.id)
        assert (await sessions.list()).items == []
        assert await _count_events(context, principal) == 1
    assert await sessions.sweep() == 1
    assert await _count_events(context, principal) == 0
    assert await sessions.sweep() == 0


async def test_another_tenant_finds_no_session(sessions: SessionService, context: ProcessContext) -> None:
    session = await sessions.create(title="secret")
    stranger = SessionService(context, await new_principal(context.database))
    assert (await stranger.list()).items == []
    for call in (stranger.get, stranger.archive, stranger.delete):
        with pytest.raises(NotFound):
            await call(session.id)
    with pytest.raises(NotFound):
        await stranger.update(session.id, title="mine")
    assert await stranger.sweep() == 0
    assert (await sessions.get(session.id)).title == "secret"


async def test_many_at_once(sessions: SessionService) -> None:
    made = await asyncio.gather(*(sessions.create(title=str(place)) for place in range(30)))
    assert {item.id for item in (await sessions.list(limit=100)).items} == {item.id for item in made}


async def test_what_kubectl_made_is_taken_up_once_by_the_default_tenant_alone(
    sessions: SessionService, context: ProcessContext
) -> None:
    kernels = cast("NoKernels", context.executor)
    made = uuid4()
    kernels.made[made] = "by-hand"
    with pytest.raises(NotFound):
        await sessions.get(made)
    own = SessionService(context, Principal(tenant_id=DEFAULT_TENANT_ID, user_id=DEFAULT_USER_ID))
    found = await asyncio.gather(*(own.get(made) for _ in range(5)))
    assert {(session.id, session.title, session.last_seq) for session in found} == {(made, "by-hand", 1)}
    assert (await own.update(made, title="mine")).title == "mine"
    await own.delete(made)
    assert [session.session_id for session in kernels.released] == [made]
    del kernels.made[made]
    with pytest.raises(NotFound):
        await own.get(made)


async def test_a_deleted_session_does_not_come_back_while_its_object_is_still_there(
    context: ProcessContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernels = cast("NoKernels", context.executor)
    made = uuid4()
    kernels.made[made] = "by-hand"
    own = SessionService(context, Principal(tenant_id=DEFAULT_TENANT_ID, user_id=DEFAULT_USER_ID))
    await own.get(made)

    async def away(_self: NoKernels, _session: Any) -> None:
        raise ObjectsAway("away")

    monkeypatch.setattr(NoKernels, "release", away)
    await own.delete(made)
    for ask in (own.get, own.archive, own.delete):
        with pytest.raises(NotFound):
            await ask(made)
    monkeypatch.undo()
    await own.sweep()
    assert [session.session_id for session in kernels.released] == [made], "the sweep gives the kernel back too"


async def test_one_gateway_at_a_time_keeps_a_session(
    context: ProcessContext, principal: Principal, sessions: SessionService
) -> None:
    session, first, second = await sessions.create(), new_id(), new_id()

    async def lease(keeper: UUID, seconds: float) -> bool:
        async with context.database.transaction(principal.tenant_id) as tx:
            return await repository.lease(tx, session.id, keeper, seconds=seconds)

    assert await lease(first, 60)
    assert not await lease(second, 60)
    assert await lease(first, -1), "renewed, and over"
    assert await lease(second, 60)
    async with context.database.transaction(principal.tenant_id) as tx:
        await repository.end_lease(tx, session.id, first)
    assert not await lease(first, 60), "only its holder ends it"
    async with context.database.transaction(principal.tenant_id) as tx:
        await repository.end_lease(tx, session.id, second)
    assert await lease(first, 60)
    other = await new_principal(context.database)
    async with context.database.transaction(other.tenant_id) as tx:
        assert not await repository.lease(tx, session.id, second, seconds=60)
    assert await sessions.get(session.id) == session


async def test_sessions_at_rest_are_those_with_a_host_and_something_new(
    context: ProcessContext, principal: Principal, sessions: SessionService
) -> None:
    session = await sessions.create()

    async def at_rest(seconds: float = -60) -> list[UUID]:
        return [found.id for found in await sessions.at_rest(seconds=seconds, limit=10)]

    assert await at_rest() == [], "it never had a host"
    async with context.database.transaction(principal.tenant_id) as tx:
        await sessions.place_host(tx, session.id, "boot")
    assert (await sessions.get(session.id)).boot_id == "boot"
    assert await at_rest() == [session.id]
    assert await at_rest(60) == [], "it has just been used"
    await sessions.checked(session.id, 1)
    await sessions.checked(session.id, 0)
    assert await at_rest() == []
    await HistoryService(context, principal).append(
        session.id, [UserMessage(message_id=new_id(), content="more")], actor="user"
    )
    assert await at_rest() == [session.id]
    async with context.database.transaction(principal.tenant_id) as tx:
        await sessions.place_state(tx, session.id, new_id())
    assert await at_rest() == [], "its state lies in a snapshot"
    async with context.database.transaction(principal.tenant_id) as tx:
        await sessions.place_state(tx, session.id, None)
    assert await at_rest() == [session.id]
    assert await SessionService(context, await new_principal(context.database)).at_rest(seconds=-60, limit=10) == []
    await sessions.archive(session.id)
    assert await at_rest() == []


async def test_a_snapshot_stays_until_another_one_or_until_it_is_forgotten(
    context: ProcessContext, principal: Principal, sessions: SessionService
) -> None:
    session = await sessions.create()
    service = SnapshotService(context, principal)
    assert await service.latest(session.id) is None
    made = [
        Snapshot(
            id=new_id(),
            session_id=session.id,
            session_uid="uid",
            owner="owner",
            boot_id="boot",
            incarnation="1",
            digest="d" * 64,
            seq=seq,
            created_at=datetime.now(UTC),
        )
        for seq in (1, 2)
    ]
    for snapshot in made:
        async with context.database.transaction(principal.tenant_id) as tx:
            await snapshot_rows.add(tx, snapshot, "{}")
            await snapshot_rows.remove_others(tx, session.id, snapshot.id)
            blob = new_id()
            await snapshot_rows.add_pending(tx, session.id, {blob: (str(snapshot.seq) * 64, 1)})
            await snapshot_rows.make_ready(tx, [blob])
        assert await service.latest(session.id) == snapshot
    assert await SnapshotService(context, await new_principal(context.database)).latest(session.id) is None
    async with context.database.transaction(principal.tenant_id) as tx:
        await service.forget(tx, session.id)
    assert await service.latest(session.id) is None
    async with context.database.transaction(principal.tenant_id, write=False) as tx:
        assert await snapshot_rows.ready_blobs(tx, session.id) == {}
    assert await service.sweep() == 2
