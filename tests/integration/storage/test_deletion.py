"""Deletion and retention over both databases: nothing is left, and what went is told in numbers.

Plan: after a deletion no table has a row of the session and no file or object a word of it; the report and the audit
log have the counts; every table that names a session goes with it; while the store is away nobody sees the session,
and the sweep removes the rest; sessions that are old are deleted where the settings say so, and no others.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import pytest
from sqlalchemy import Text, cast, or_, select, update
from tests.support.state import chunks_of, new_principal, open_state

from carrel_gateway import main as _main  # noqa: F401  # pyright: ignore[reportUnusedImport]  registers all tables
from carrel_gateway.artifacts.service import ArtifactService
from carrel_gateway.audit.service import AuditService, Filter
from carrel_gateway.context import Principal, ProcessContext
from carrel_gateway.errors import NotFound, Unavailable
from carrel_gateway.history.service import HistoryService
from carrel_gateway.mcp_servers.service import McpServerService, NewServer
from carrel_gateway.runs.service import RunService
from carrel_gateway.sessions import repository
from carrel_gateway.sessions.service import Session, SessionService
from carrel_gateway.sessions.tables import sessions
from carrel_gateway.settings import Settings
from carrel_gateway.storage.database import Transaction
from carrel_gateway.storage.ids import new_id
from carrel_gateway.storage.schema import metadata
from carrel_wire.log import CellFinished, CellOutputs, UserMessage

MARKER = "xyzzy-marker"


async def fill(context: ProcessContext, principal: Principal, session_id: UUID) -> None:
    """Put a word everywhere that a session has room for one."""
    run = await RunService(context, principal).start(session_id, kind="chat", first=[], model=MARKER)
    execution_id = new_id()
    outputs = [{"output_type": "stream", "name": "stdout", "text": f"{MARKER} {place} " * 2000} for place in range(20)]
    await HistoryService(context, principal).append(
        session_id,
        [
            UserMessage(message_id=new_id(), content=f"{MARKER} " * 1000, run_id=run.id),
            CellOutputs(execution_id=execution_id, last_n=1, outputs=outputs),
            CellFinished(execution_id=execution_id, status="ok", code=MARKER, message=MARKER),
        ],
        actor="user",
    )
    server = NewServer(MARKER, [MARKER], {"TOKEN": MARKER}, "ask", enabled=True)
    await McpServerService(context, principal).add(session_id, server)
    for _ in range(2):
        await ArtifactService(context, principal).store(
            session_id, name=f"{MARKER}.txt", category="data", content_type=None, chunks=chunks_of(MARKER.encode())
        )


async def left_in_tables(context: ProcessContext, principal: Principal, *words: str) -> dict[str, int]:
    """Return how many rows of each table have one of the words in any of their columns."""
    found: dict[str, int] = {}
    async with context.database.transaction(principal.tenant_id, write=False) as tx:
        for table in metadata.sorted_tables:
            if table.name == "accounts":  # of no tenant; it has no column for a session
                continue
            has = or_(*(cast(column, Text).contains(word) for column in table.columns for word in words))
            rows = (
                await tx.connection.execute(select(table.c.tenant_id).where(table.c.tenant_id == tx.tenant_id, has))
            ).all()
            if rows:
                found[table.name] = len(rows)
    return found


def left_in_files(folder: Path) -> list[str]:
    """Return the files below a folder that hold the word, or are named by it."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return [str(path) for path in files if MARKER.encode() in path.read_bytes() or MARKER in path.name]


async def test_nothing_is_left(
    context: ProcessContext, principal: Principal, session_id: UUID, settings: Settings
) -> None:
    await SessionService(context, principal).update(session_id, title=MARKER, config={"note": MARKER})
    await fill(context, principal, session_id)
    spelled = (MARKER, str(session_id), session_id.hex)
    assert {"events", "messages", "cells", "runs", "artifacts", "mcp_servers", "sessions"} <= set(
        await left_in_tables(context, principal, *spelled)
    )
    assert left_in_files(settings.data_dir)
    removal = await SessionService(context, principal).delete(session_id)
    assert await left_in_tables(context, principal, *spelled) == {"audit": 3}
    assert await left_in_tables(context, principal, MARKER) == {}
    assert left_in_files(settings.data_dir) == [], "not in the files of the database either"
    assert removal.complete
    counted = {name: number for name, number in removal.rows.items() if number}
    assert counted == {"events": 8, "messages": 1, "cells": 1, "runs": 1, "artifacts": 2, "mcp_servers": 1}
    assert removal.objects == 2
    assert await context.objects.delete_prefix(str(principal.tenant_id)) == 0
    (told,) = (await AuditService(context, principal).list(Filter(action="session.removed"))).items
    detail = msgspec.json.decode(told.detail)
    assert (told.target, detail) == (str(session_id), {"rows": removal.rows, "objects": 2})


def test_every_table_that_names_a_session_goes_with_it() -> None:
    named = {table.name: table for table in metadata.sorted_tables if "session_id" in table.c}
    kept = {
        name
        for name, table in named.items()
        if not any(key.column.table is sessions and key.ondelete == "CASCADE" for key in table.foreign_keys)
    }
    assert {"events", "messages", "cells", "runs", "artifacts", "snapshots", "snapshot_blobs", "executions"} <= set(
        named
    )
    known = {"usage"}  # what was spent, which is asked for by months
    assert kept == known, "a row that outlives its session needs a reason here"


async def test_what_cannot_be_removed_now_is_removed_later(
    context: ProcessContext, principal: Principal, session_id: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(context, principal, session_id)
    service = SessionService(context, principal)

    async def away(prefix: str) -> int:
        raise Unavailable("the store is away")

    with monkeypatch.context() as patched:
        patched.setattr(context.objects, "delete_prefix", away)
        removal = await service.delete(session_id)
    assert (removal.complete, removal.rows, removal.objects) == (False, {}, 0)
    with pytest.raises(NotFound):
        await service.get(session_id)
    assert await service.sweep() == 1
    assert await left_in_tables(context, principal, MARKER) == {}


async def aged(context: ProcessContext, principal: Principal, session_id: UUID, days: float) -> None:
    """Let a session's last event be so old."""
    then = datetime.now(UTC) - timedelta(days=days)
    async with context.database.transaction(principal.tenant_id) as tx:
        mine = (sessions.c.tenant_id == tx.tenant_id, sessions.c.id == session_id)
        await tx.connection.execute(update(sessions).where(*mine).values(updated_at=then))


@pytest.mark.parametrize(("days", "kept"), [(0, {"old", "archived", "busy", "new"}), (30, {"busy", "new"})])
async def test_retention(settings: Settings, days: int, kept: set[str]) -> None:
    async with open_state(settings.model_copy(update={"retention_days": days})) as context:
        principal = await new_principal(context.database)
        service = SessionService(context, principal)
        made = {name: (await service.create(title=name)).id for name in ("old", "archived", "busy", "new")}
        await service.archive(made["archived"])
        await RunService(context, principal).start(made["busy"], kind="chat", first=[], model=None)
        for name in ("old", "archived", "busy"):
            await aged(context, principal, made[name], 30.1)
        await aged(context, principal, made["new"], 29.9)
        assert await service.expire() == 4 - len(kept)
        assert {session.title for session in (await service.list()).items} == kept
        told = (await AuditService(context, principal).list(Filter(action="session.deleted"))).items
        assert {msgspec.json.decode(entry.detail)["reason"] for entry in told} == ({"retention"} if days else set())


async def test_a_session_that_is_used_at_the_last_moment_is_kept(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_state(settings.model_copy(update={"retention_days": 1})) as context:
        principal = await new_principal(context.database)
        service = SessionService(context, principal)
        session_id = (await service.create()).id
        await aged(context, principal, session_id, 2)
        look = repository.quiet

        async def used_after_the_look(tx: Transaction, **named: Any) -> list[Session]:
            found = await look(tx, **named)
            asked = UserMessage(message_id=new_id(), content="still here")
            await HistoryService(context, principal).append(session_id, [asked], actor="user")
            return found

        monkeypatch.setattr(repository, "quiet", used_after_the_look)
        assert await service.expire() == 0
        assert (await service.get(session_id)).status == "active"
