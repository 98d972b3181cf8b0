"""Reads the log for the notebook, and writes edited cells to it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from uuid import UUID

from carrel_gateway.context import Principal, ProcessContext
from carrel_gateway.errors import Conflict
from carrel_gateway.history.service import HistoryService
from carrel_gateway.notebook.export import notebook_of
from carrel_gateway.notebook.sync import edits
from carrel_gateway.sessions.service import SessionService
from carrel_gateway.storage.ids import new_id
from carrel_wire.log import CellEdited, LogPayload

_PAGE: Final = 500


class NotebookService:
    """The notebook of one caller's sessions."""

    def __init__(self, context: ProcessContext, principal: Principal) -> None:
        self._sessions = SessionService(context, principal)
        self._history = HistoryService(context, principal)

    async def export(self, session_id: UUID) -> tuple[str, dict[str, Any]]:
        """Return the session's title and its notebook as it stands."""
        session = await self._sessions.get(session_id)
        return session.title, notebook_of(session.title, session_id, await self._events(session_id))

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
        current = notebook_of(session.title, session_id, await self._events(session_id))
        known = {UUID(cell["id"]): cell["source"] for cell in current["cells"] if cell["cell_type"] == "code"}
        found = edits(notebook, known, new_id)
        if found:
            await self._history.append(session_id, found, actor="user")
        return found

    async def _events(self, session_id: UUID) -> list[LogPayload]:
        found: list[LogPayload] = []
        after = 0
        while page := await self._history.events(session_id, after=after, limit=_PAGE):
            found.extend(event.payload for event in page)
            after = page[-1].seq
        return found
