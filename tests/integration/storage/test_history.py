"""The log over both databases.

Plan: numbers are gapless whoever appends at the same time; an append is whole or nothing, read models included; a stale
fence writes nothing; pages of events and messages; followers see every committed event once and in order while appends
go on, whatever the bus loses; live events come between and are not stored; another tenant sees nothing.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing, suppress
from uuid import UUID

import orjson
import pytest
from tests.support.state import new_principal

from carrel_gateway.context import Principal, ProcessContext
from carrel_gateway.errors import NotFound, StaleRun
from carrel_gateway.history import service as history_module
from carrel_gateway.history.service import Fence, HistoryService, LiveEvent, LiveText, StoredEvent
from carrel_gateway.runs.service import RunService
from carrel_gateway.sessions.service import SessionService
from carrel_gateway.storage.ids import new_id
from carrel_wire.log import (
    ArtifactStored,
    AssistantMessage,
    CellEdited,
    CellFinished,
    CellIntended,
    CellOutputs,
    LogPayload,
    PlanMade,
    RunStarted,
    SessionCreated,
    UserMessage,
)


@pytest.fixture
def history(context: ProcessContext, principal: Principal) -> HistoryService:
    return HistoryService(context, principal)


@pytest.fixture
async def session_id(context: ProcessContext, principal: Principal) -> UUID:
    return (await SessionService(context, principal).create(title="a")).id


def message(text: str, **named: UUID) -> UserMessage:
    return UserMessage(message_id=new_id(), content=text, **named)


def texts(events: list[StoredEvent]) -> list[str]:
    return [event.payload.content for event in events if isinstance(event.payload, UserMessage)]


async def test_append_gives_numbers_ids_and_parents(history: HistoryService, session_id: UUID) -> None:
    run_id, execution_id = new_id(), new_id()
    question = message("q", run_id=run_id)
    payloads: list[LogPayload] = [
        question,
        RunStarted(run_id=run_id, kind="chat"),
        CellIntended(execution_id=execution_id, code="1", run_id=run_id),
        CellFinished(execution_id=execution_id, status="ok", run_id=run_id),
    ]
    stored = await history.append(session_id, payloads, actor="user")
    assert [event.seq for event in stored] == [2, 3, 4, 5]
    assert [event.id for event in stored[:3]] == [question.message_id, run_id, execution_id]
    assert [event.parent_id for event in stored] == [run_id, None, run_id, execution_id]
    assert await history.events(session_id, after=1) == stored
    assert isinstance((await history.events(session_id))[0].payload, SessionCreated)


async def test_numbers_are_gapless_under_twenty_appenders(history: HistoryService, session_id: UUID) -> None:
    async def append(appender: int) -> None:
        for place in range(5):
            await history.append(session_id, [message(f"{appender}.{place}"), message("second")], actor="user")

    await asyncio.gather(*(append(appender) for appender in range(20)))
    events = await history.events(session_id)
    assert [event.seq for event in events] == list(range(1, 202))
    written = texts(events)
    for first, second in zip(written[::2], written[1::2], strict=True):
        assert (first.count("."), second) == (1, "second")  # appends are not mixed with each other
    for appender in range(20):
        assert [text for text in written if text.startswith(f"{appender}.")] == [f"{appender}.{i}" for i in range(5)]


async def _append_and_fail(context: ProcessContext, principal: Principal, session_id: UUID) -> None:
    with suppress(KeyError):
        async with context.database.transaction(principal.tenant_id) as tx:
            await HistoryService(context, principal).append(session_id, [message("lost")], actor="user", tx=tx)
            raise KeyError


async def test_a_failed_transaction_leaves_neither_events_nor_a_gap(
    context: ProcessContext, history: HistoryService, session_id: UUID, principal: Principal
) -> None:
    await _append_and_fail(context, principal, session_id)
    stored = await history.append(session_id, [message("kept")], actor="user")
    assert stored[0].seq == 2
    assert [item.content for item in await history.messages(session_id)] == ["kept"]


async def test_nothing_is_told_of_what_is_rolled_back(
    context: ProcessContext, history: HistoryService, session_id: UUID, principal: Principal
) -> None:
    async with aclosing(history.follow(session_id, after=1)) as stream:
        upcoming = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0)
        await _append_and_fail(context, principal, session_id)
        await history.append(session_id, [message("kept")], actor="user")
        event = await upcoming
    assert isinstance(event, StoredEvent)
    assert texts([event]) == ["kept"]


async def test_append_to_nothing(history: HistoryService, session_id: UUID) -> None:
    with pytest.raises(NotFound):
        await history.append(new_id(), [message("x")], actor="user")
    assert await history.append(session_id, [], actor="user") == []


async def test_a_stale_fence_writes_nothing(
    context: ProcessContext, history: HistoryService, session_id: UUID, principal: Principal
) -> None:
    run = await RunService(context, principal).start(session_id, kind="chat", first=[message("q")], model=None)
    await history.append(session_id, [PlanMade(run_id=run.id, steps=[])], actor="agent", fence=Fence(run.id, 1))
    for stale in (Fence(run.id, 0), Fence(run.id, 2), Fence(new_id(), 1)):
        with pytest.raises(StaleRun):
            await history.append(session_id, [message("late")], actor="agent", fence=stale)
    assert [event.type for event in await history.events(session_id)] == ["session.created", "message.user", "plan"]
    with pytest.raises(NotFound):
        await history.append(new_id(), [message("late")], actor="agent", fence=Fence(run.id, 1))


async def test_pages_of_events_and_messages(history: HistoryService, session_id: UUID) -> None:
    asked = [message(str(place)) for place in range(7)]
    await history.append(session_id, asked, actor="user")
    answer = AssistantMessage(message_id=new_id(), content="answer", artifact_ids=[new_id()])
    await history.append(session_id, [answer], actor="agent")
    assert [event.seq for event in await history.events(session_id, after=2, limit=3)] == [3, 4, 5]
    assert await history.events(session_id, after=9) == []
    last = await history.messages(session_id, limit=3)
    assert [item.content for item in last] == ["5", "6", "answer"]
    assert (last[-1].role, last[-1].artifact_ids, last[-1].id) == ("assistant", answer.artifact_ids, answer.message_id)
    before = await history.messages(session_id, limit=3, before_id=last[0].id)
    assert [item.content for item in before] == ["2", "3", "4"]
    assert await history.messages(session_id, before_id=new_id()) == []


async def test_cells_are_filled_from_events(history: HistoryService, session_id: UUID) -> None:
    assert not await history.has_cells(session_id)
    intended, plain, edited = new_id(), new_id(), new_id()
    text = {"output_type": "stream", "name": "stdout", "text": "nul \0 and \ud7ff\U0001f600"}
    await history.append(
        session_id,
        [
            CellIntended(execution_id=intended, code="a = 1\0"),
            CellOutputs(execution_id=intended, last_n=2, outputs=[text]),
            CellOutputs(execution_id=plain, last_n=2, outputs=[text]),
            CellOutputs(execution_id=intended, last_n=3, outputs=[text, text]),
            CellFinished(execution_id=intended, status="ok", execution_count=3, wall_seconds=0.5, bytes_out=9),
            CellFinished(execution_id=plain, status="error", code="b", message="m"),
            CellFinished(execution_id=edited, status="ok", code="c", execution_count=4),
        ],
        actor="kernel",
    )
    first, second, third = await history.cells(session_id)
    assert (first.execution_id, first.code, first.status) == (intended, "a = 1\ufffd", "ok")
    assert (first.execution_count, first.wall_seconds, first.bytes_out) == (3, 0.5, 9)
    assert first.outputs == [text, text, text]
    assert (second.execution_id, second.code, second.status, second.message) == (plain, "b", "error", "m")
    assert second.outputs == [text]
    assert second.finished_at is not None
    assert (third.code, third.outputs) == ("c", [])
    assert await history.has_cells(session_id)
    await history.append(session_id, [CellEdited(execution_id=intended, code="new")], actor="user")
    (changed,) = await history.cells(session_id, execution_id=intended)
    assert (changed.code, changed.status, changed.outputs, changed.execution_count) == ("new", "edited", [], None)


async def test_another_tenant_finds_nothing(context: ProcessContext, history: HistoryService, session_id: UUID) -> None:
    await history.append(session_id, [message("secret"), CellIntended(execution_id=new_id(), code="x")], actor="user")
    stranger = HistoryService(context, await new_principal(context.database))
    assert await stranger.events(session_id) == []
    assert await stranger.messages(session_id) == []
    assert await stranger.cells(session_id) == []
    assert not await stranger.has_cells(session_id)
    with pytest.raises(NotFound):
        await stranger.append(session_id, [message("x")], actor="user")
    with pytest.raises(NotFound):
        await _first(stranger, session_id, after=0)
    with pytest.raises(NotFound):
        await stranger.wait(session_id, after=0, seconds=1)


async def _first(history: HistoryService, session_id: UUID, *, after: int) -> StoredEvent | LiveText:
    async with asyncio.timeout(30), aclosing(history.follow(session_id, after=after)) as stream:
        return await anext(stream)


async def _follow_to(history: HistoryService, session_id: UUID, last: int) -> list[StoredEvent]:
    seen: list[StoredEvent] = []
    async with asyncio.timeout(30), aclosing(history.follow(session_id, after=0)) as stream:
        async for event in stream:
            if isinstance(event, StoredEvent):
                seen.append(event)
                if event.seq == last:
                    break
    return seen


async def test_followers_miss_and_repeat_nothing_while_appends_go_on(history: HistoryService, session_id: UUID) -> None:
    async def append(appender: int) -> None:
        for place in range(10):
            await history.append(session_id, [message(f"{appender}.{place}")], actor="user")
            await history.publish_live(session_id, LiveEvent("output", f"{appender}.{place}", {}))

    early = [asyncio.create_task(_follow_to(history, session_id, 61)) for _ in range(3)]
    appends = [asyncio.create_task(append(appender)) for appender in range(6)]
    await appends[0]
    late = asyncio.create_task(_follow_to(history, session_id, 61))
    await asyncio.gather(*appends)
    for seen in await asyncio.gather(*early, late):
        assert [event.seq for event in seen] == list(range(1, 62))
    assert await late == await history.events(session_id)


async def test_followers_read_the_log_where_the_bus_left_a_gap(
    context: ProcessContext, history: HistoryService, session_id: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    following = asyncio.create_task(_follow_to(history, session_id, 4))
    live = asyncio.create_task(_first(history, session_id, after=1))
    publish = context.bus.publish
    await history.append(session_id, [message("told")], actor="user")
    await live  # both have subscribed

    async def lose(_channel: str, _data: bytes) -> None:
        pass

    monkeypatch.setattr(context.bus, "publish", lose)
    await history.append(session_id, [message("not told")], actor="user")
    monkeypatch.setattr(context.bus, "publish", publish)
    monkeypatch.setattr(history_module, "NEWS_BYTES", 0)  # too large for the bus: only its number is told
    await history.append(session_id, [message("large")], actor="user")
    assert texts(await following) == ["told", "not told", "large"]


async def test_followers_of_a_deleted_session_end_also_when_the_news_is_lost(
    context: ProcessContext,
    principal: Principal,
    history: HistoryService,
    session_id: UUID,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def lose(_channel: str, _data: bytes) -> None:
        pass

    monkeypatch.setattr(history_module, "LOOK_SECONDS", 0.05)
    async with asyncio.timeout(30), aclosing(history.follow(session_id, after=0)) as stream:
        assert isinstance(await anext(stream), StoredEvent)
        monkeypatch.setattr(context.bus, "publish", lose)
        await SessionService(context, principal).delete(session_id)
        assert [event async for event in stream] == []


async def test_followers_look_into_the_log_when_the_bus_is_silent(
    context: ProcessContext, history: HistoryService, session_id: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def lose(_channel: str, _data: bytes) -> None:
        pass

    monkeypatch.setattr(history_module, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(context.bus, "publish", lose)
    following = asyncio.create_task(_follow_to(history, session_id, 2))
    await history.append(session_id, [message("untold")], actor="user")
    assert texts(await following) == ["untold"]


async def test_live_events_are_shown_and_not_stored(history: HistoryService, session_id: UUID) -> None:
    live = LiveEvent("text.delta", "1.1", {"text": "hé", "run_id": str(new_id())})
    async with asyncio.timeout(30), aclosing(history.follow(session_id, after=0)) as stream:
        assert isinstance(await anext(stream), StoredEvent)
        upcoming = asyncio.ensure_future(anext(stream))
        while not upcoming.done():  # until the follower listens, what is live is lost
            await history.publish_live(session_id, live)
            await asyncio.sleep(0)
        shown = await upcoming
        assert isinstance(shown, LiveText)
        document = {"live": True, "id": live.id, "type": live.type, "payload": live.data}
        assert (shown.type, orjson.loads(shown.document)) == (live.type, document)
    assert len(await history.events(session_id)) == 1


async def test_wait_returns_with_the_first_news_or_with_none(history: HistoryService, session_id: UUID) -> None:
    assert await history.wait(session_id, after=0, seconds=30)
    assert not await history.wait(session_id, after=1, seconds=0.01)
    waiting = asyncio.create_task(history.wait(session_id, after=1, seconds=30))
    await history.append(session_id, [message("a"), message("b")], actor="user")
    assert await waiting


async def test_followers_end_with_the_session(
    context: ProcessContext, history: HistoryService, session_id: UUID, principal: Principal
) -> None:
    following = asyncio.create_task(_follow_to(history, session_id, 99))
    live = asyncio.create_task(_first(history, session_id, after=1))
    await history.append(session_id, [message("a")], actor="user")
    await live
    await SessionService(context, principal).delete(session_id)
    assert [event.seq for event in await following] == [1, 2]


async def test_every_payload_comes_back_as_it_was(history: HistoryService, session_id: UUID) -> None:
    artifact = ArtifactStored(
        artifact_id=new_id(),
        name="a",
        version=1,
        size=1,
        content_type="text/plain",
        sha256="0" * 64,
        category="data",
        execution_id=new_id(),
        run_id=new_id(),
    )
    (stored,) = await history.append(session_id, [artifact], actor="kernel")
    (read,) = await history.events(session_id, after=1)
    assert (read.payload, read) == (artifact, stored)
    assert (read.id, read.parent_id) == (artifact.artifact_id, artifact.execution_id)
