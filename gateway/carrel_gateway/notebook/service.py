"""Reads the log for the notebook and for exports, some of it at a time, and writes edited cells to it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any, Final
from uuid import UUID

import orjson

from carrel_gateway.context import Principal, ProcessContext
from carrel_gateway.errors import Conflict
from carrel_gateway.history.schemas import text_document
from carrel_gateway.history.service import HistoryService
from carrel_gateway.notebook.export import SHOWN, Outline, head_of, with_outputs
from carrel_gateway.notebook.sync import edits
from carrel_gateway.sessions.service import Session, SessionService
from carrel_gateway.storage.cache import MAX_VALUE_BYTES, notebook_key
from carrel_gateway.storage.ids import new_id
from carrel_wire import __version__
from carrel_wire.log import CellEdited

_CHUNK_BYTES: Final = 64 * 1024
"""Small events are sent together, so that each does not cost a chunk of its own."""


class NotebookService:
    """Notebooks and exports of one caller's sessions."""

    def __init__(self, context: ProcessContext, principal: Principal) -> None:
        self._sessions = SessionService(context, principal)
        self._history = HistoryService(context, principal)
        self._cache = context.cache

    async def export(self, session_id: UUID) -> tuple[Session, AsyncIterator[bytes]]:
        """Return the session and its notebook as it stands, in parts: one cell's outputs are in memory at a time.

        Raises
        ------
        NotFound
            There is no such session.
        """
        session = await self._sessions.get(session_id)
        return session, self._kept(session)

    async def lines(self, session_id: UUID) -> tuple[Session, AsyncIterator[bytes]]:
        """Return the session and its log up to now, each event as a line of JSON, in parts.

        Raises
        ------
        NotFound
            There is no such session.
        """
        session = await self._sessions.get(session_id)
        return session, self._lines(session)

    async def sync(self, session_id: UUID, notebook: Mapping[str, Any]) -> list[CellEdited]:
        """Append an event for every cell that was edited or added elsewhere, and return them. Nothing is run.

        Raises
        ------
        InvalidInput
            The document is no notebook.
        Conflict
            The session is archived.
        """
        session = await self._sessions.get(session_id)
        if session.status == "archived":
            raise Conflict("the session is archived; it can be read and not changed", code="archived")
        found = edits(notebook, (await self._outline(session)).sources(), new_id)
        if found:
            await self._history.append(session_id, found, actor="user")
        return found

    async def _outline(self, session: Session) -> Outline:
        outline, after = Outline(), 0
        while page := await self._history.outline(session.id, SHOWN, after=after):
            for event in page:
                after = event.seq
                if event.seq > session.last_seq:
                    return outline
                if event.type == "cell.outputs":
                    if event.parent_id is not None:
                        outline.saw_outputs(event.seq, event.parent_id)
                else:
                    outline.take(event.seq, event.decoded(session.id).payload)
        return outline

    async def _kept(self, session: Session) -> AsyncIterator[bytes]:
        """Yield the notebook that was made of this state of the log before, or make it; a large one is not kept."""
        made_of = f"{__version__} {session.last_seq}\n".encode()
        key = notebook_key(session.tenant_id, session.id)
        kept = await self._cache.get(key)
        if kept is not None and kept.startswith(made_of):
            yield kept[len(made_of) :]
            return
        whole = bytearray(made_of)
        async for part in self._notebook(session):
            if whole and len(whole) + len(part) <= MAX_VALUE_BYTES:
                whole += part
            else:
                whole.clear()
            yield part
        if whole:
            await self._cache.set(key, bytes(whole))

    async def _notebook(self, session: Session) -> AsyncIterator[bytes]:
        outline = await self._outline(session)
        yield orjson.dumps(head_of(session.title, session.id))[:-1] + b',"cells":['
        for place, (cell, where) in enumerate(outline.cells()):
            parts = (
                await self._history.outputs(session.id, where.execution_id, first=where.first, last=where.last)
                if where
                else []
            )
            yield (b"," if place else b"") + orjson.dumps(with_outputs(cell, parts))
        yield b"]}"

    async def _lines(self, session: Session) -> AsyncIterator[bytes]:
        after, chunk = 0, bytearray()
        while page := await self._history.texts(session.id, after=after):
            for event in page:
                after = event.seq
                if event.seq <= session.last_seq:
                    chunk += orjson.dumps(text_document(event), option=orjson.OPT_APPEND_NEWLINE)
                if len(chunk) >= _CHUNK_BYTES:
                    yield bytes(chunk)
                    chunk.clear()
            if after >= session.last_seq:
                break
        if chunk:
            yield bytes(chunk)
