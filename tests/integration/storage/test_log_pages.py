"""Pages of the log, and read models made anew from it, over both databases.

Plan: a page is read in the order of an index, from one partition; it ends at its bytes and has one event at least;
pages in turn are the whole log; followers get past short pages; the text of a payload is what decoding and encoding
it gives; rows made anew are the rows that appends made, whichever events came together.
"""

from __future__ import annotations

import asyncio
import random
import re
import sys
from collections.abc import Sequence
from contextlib import aclosing
from typing import Any
from uuid import UUID

import orjson
import pytest
from sqlalchemy import Table, select
from sqlalchemy.dialects import postgresql
from tests.support.state import chunks_of

from carrel_gateway.artifacts.service import ArtifactService
from carrel_gateway.artifacts.tables import artifacts
from carrel_gateway.context import Principal, ProcessContext
from carrel_gateway.errors import NotFound
from carrel_gateway.history import service as history_module
from carrel_gateway.history.rebuild import main, rebuild
from carrel_gateway.history.repository import tail
from carrel_gateway.history.schemas import event_document, text_document
from carrel_gateway.history.service import HistoryService, StoredEvent
from carrel_gateway.history.tables import cells, messages
from carrel_gateway.identity.service import DEFAULT_TENANT_ID
from carrel_gateway.settings import Settings
from carrel_gateway.storage.ids import new_id
from carrel_wire.log import (
    ArtifactStored,
    AssistantMessage,
    CellEdited,
    CellFinished,
    CellIntended,
    CellOutputs,
    CellStatus,
    FileDeleted,
    LogPayload,
    UserMessage,
)


@pytest.fixture
def history(context: ProcessContext, principal: Principal) -> HistoryService:
    return HistoryService(context, principal)


def message(text: str) -> UserMessage:
    return UserMessage(message_id=new_id(), content=text)


async def pages_of(history: HistoryService, session_id: UUID, *, limit: int = 500) -> list[list[int]]:
    pages: list[list[int]] = []
    after = 0
    while page := await history.events(session_id, after=after, limit=limit):
        pages.append([event.seq for event in page])
        after = page[-1].seq
    return pages


async def test_a_page_ends_at_its_bytes(
    history: HistoryService, session_id: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = ["ä" * 600, "b", "c" * 1200, "d" * 5000, "e", "f"]
    await history.append(session_id, [message(text) for text in texts], actor="user")
    monkeypatch.setattr(history_module, "PAGE_BYTES", 1000)
    assert await pages_of(history, session_id) == [[1, 2], [3, 4], [5], [6, 7]]
    assert await pages_of(history, session_id, limit=1) == [[seq] for seq in range(1, 8)]
    monkeypatch.setattr(history_module, "PAGE_BYTES", 1)
    assert await pages_of(history, session_id) == [[seq] for seq in range(1, 8)]
    assert [event.seq for event in await history.texts(session_id, after=3)] == [4]


async def test_followers_get_past_short_pages(
    history: HistoryService, session_id: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    await history.append(session_id, [message("x" * 1000) for _ in range(20)], actor="user")
    monkeypatch.setattr(history_module, "PAGE_BYTES", 2500)
    monkeypatch.setattr(history_module, "LOOK_SECONDS", 3600.0)  # nobody looks into the log again by itself
    seen: list[int] = []
    async with aclosing(history.follow(session_id, after=0)) as stream:
        async for event in stream:
            assert isinstance(event, StoredEvent)
            seen.append(event.seq)
            if event.seq == 21:
                break
    assert seen == list(range(1, 22))


async def test_a_page_is_read_from_one_partition_in_the_order_of_its_index(
    request: pytest.FixtureRequest, context: ProcessContext, principal: Principal, session_id: UUID
) -> None:
    """However long other sessions' histories are: nothing is sorted, and nothing of theirs is looked at."""
    dialect = context.database.dialect
    if not dialect.shared:
        pytest.skip("SQLite has no partitions")
    statement, values = next(tail(dialect, principal.tenant_id, session_id, after=0, limit=500, size=10**6))
    options: dict[str, Any] = {"dialect": postgresql.dialect(), "compile_kwargs": {"literal_binds": True}}
    # A table of a few rows would not be worth its index.
    ways = [f"SET enable_{way} = off" for way in ("seqscan", "bitmapscan", "sort")]
    bound = ["SET ROLE carrel_app", f"SET app.tenant = '{principal.tenant_id}'"]
    explain = f"EXPLAIN {statement.params(values).compile(**options)}"
    plan = request.getfixturevalue("postgres").sql(
        *ways, *bound, explain, database=request.getfixturevalue("postgres_database")
    )
    assert len(set(re.findall(r"on (events_p\d\d)", plan))) == 1, plan
    assert re.search(r"Index (Only )?Scan using events_p\d\d_pkey", plan), plan
    assert not re.search(r"Seq Scan on events|Sort  ", plan), plan


async def test_texts_are_what_encoding_gives(history: HistoryService, session_id: UUID) -> None:
    text = {"output_type": "stream", "name": "stdout", "text": '"}{\\ \0 \U0001f600'}
    payloads: Sequence[LogPayload] = [
        message('{"type":"x"}'),
        CellOutputs(execution_id=new_id(), last_n=1, outputs=[text]),
        CellFinished(execution_id=new_id(), status="ok"),
    ]
    await history.append(session_id, payloads, actor="user")
    events = await history.events(session_id)
    documents = [orjson.loads(orjson.dumps(text_document(event))) for event in await history.texts(session_id)]
    assert documents == [event_document(event) for event in events]


async def rows_of(context: ProcessContext, principal: Principal, session_id: UUID, table: Table) -> list[object]:
    query = select(table).where(table.c.tenant_id == principal.tenant_id, table.c.session_id == session_id)
    async with context.database.transaction(principal.tenant_id, write=False) as tx:
        rows = (await tx.connection.execute(query.order_by(table.c.seq))).all()
    return [tuple(row) for row in rows]


def a_cell(chance: random.Random) -> list[LogPayload]:
    """Return the events of a cell: intended or not, with outputs or without, with an end or without."""
    execution_id, intended = new_id(), chance.random() < 0.5
    outputs = [{"output_type": "stream", "name": "stdout", "text": "x"}]
    events: list[LogPayload] = [CellIntended(execution_id=execution_id, code="a\0")] if intended else []
    events += [CellOutputs(execution_id=execution_id, last_n=n, outputs=outputs) for n in range(chance.randrange(3))]
    if chance.random() < 0.8:
        code = None if intended else "b"
        status: CellStatus = chance.choice(("ok", "error", "outcome_unknown"))
        events.append(CellFinished(execution_id=execution_id, status=status, code=code, wall_seconds=0.5, message="m"))
    if chance.random() < 0.3:
        events.append(CellEdited(execution_id=execution_id, code="c"))
    return events


@pytest.mark.parametrize("seed", range(4))
async def test_read_models_made_anew_are_the_same(
    context: ProcessContext, history: HistoryService, principal: Principal, session_id: UUID, seed: int
) -> None:
    chance = random.Random(seed)
    waiting = [a_cell(chance) for _ in range(12)]
    waiting.append([message("q"), AssistantMessage(message_id=new_id(), content="a", artifact_ids=[new_id()])])
    log: list[LogPayload] = []
    while any(waiting):  # cells of several callers, mixed with each other
        log.append(chance.choice([events for events in waiting if events]).pop(0))
    while log:
        count = chance.randint(1, 6)
        await history.append(session_id, log[:count], actor="kernel")
        log = log[count:]
    made = [await rows_of(context, principal, session_id, table) for table in (messages, cells)]
    assert all(made)
    async with context.database.transaction(principal.tenant_id) as tx:  # damage that a rebuild mends
        await tx.connection.execute(cells.delete().where(cells.c.tenant_id == principal.tenant_id))
        await tx.connection.execute(
            messages.update().where(messages.c.tenant_id == principal.tenant_id).values(content="wrong")
        )
    await rebuild(context.database, principal.tenant_id, session_id)
    assert [await rows_of(context, principal, session_id, table) for table in (messages, cells)] == made


async def test_nothing_is_made_anew_of_another_tenants_session(context: ProcessContext, session_id: UUID) -> None:
    with pytest.raises(NotFound):
        await rebuild(context.database, DEFAULT_TENANT_ID, session_id)


async def test_the_registry_of_files_is_what_the_log_says(
    context: ProcessContext, history: HistoryService, principal: Principal, session_id: UUID
) -> None:
    files = ArtifactService(context, principal)

    async def store(name: str, content: bytes) -> None:
        await files.store(session_id, name=name, category="data", content_type="text/plain", chunks=chunks_of(content))

    for name, content in (("a.txt", b"1"), ("b.txt", b"22"), ("a.txt", b"333")):
        await store(name, content)
    await files.delete(session_id, "b.txt", "data")
    await store("b.txt", b"4444")
    told: dict[UUID, ArtifactStored] = {}
    for event in await history.events(session_id):
        if isinstance(event.payload, ArtifactStored):
            told[event.payload.artifact_id] = event.payload
        elif isinstance(event.payload, FileDeleted):
            gone = event.payload
            told = {own: item for own, item in told.items() if (item.name, item.category) != (gone.name, gone.category)}
    query = select(artifacts).where(artifacts.c.tenant_id == principal.tenant_id, artifacts.c.state == "ready")
    async with context.database.transaction(principal.tenant_id, write=False) as tx:
        rows = (await tx.connection.execute(query)).mappings().all()
    same = ("name", "version", "size", "content_type", "sha256", "category", "execution_id", "run_id")
    assert {row["id"]: [row[name] for name in same] for row in rows} == {
        own: [getattr(item, name) for name in same] for own, item in told.items()
    }
    assert sorted((item.name, item.version) for item in told.values()) == [("a.txt", 1), ("a.txt", 2), ("b.txt", 2)]


async def test_the_administrators_command(
    settings: Settings,
    context: ProcessContext,
    principal: Principal,
    history: HistoryService,
    session_id: UUID,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    await history.append(session_id, [message("kept")], actor="user")
    made = await rows_of(context, principal, session_id, messages)
    async with context.database.transaction(principal.tenant_id) as tx:
        await tx.connection.execute(messages.delete().where(messages.c.tenant_id == principal.tenant_id))
    monkeypatch.setenv("CARREL_DATA_DIR", str(settings.data_dir))
    monkeypatch.setenv("CARREL_DATABASE_URL", settings.database)
    monkeypatch.setattr(sys, "argv", ["rebuild", "--tenant", str(principal.tenant_id), str(session_id)])
    code = await asyncio.to_thread(main)
    said = capsys.readouterr()
    if not context.database.dialect.shared:
        assert (code, said.err.count("\n")) == (1, 1), "the embedded database is a gateway's just now"
        return
    assert (code, said.err) == (0, "")
    assert await rows_of(context, principal, session_id, messages) == made
    monkeypatch.setattr(sys, "argv", ["rebuild", str(session_id)])
    assert await asyncio.to_thread(main) == 1, "it is not the default tenant's"
