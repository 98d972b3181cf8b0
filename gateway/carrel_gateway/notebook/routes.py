"""`…/notebook`: the session as a notebook, and back; `…/export`: all of its history as a file."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from typing import Annotated, Final, Literal
from uuid import UUID

from fastapi import APIRouter, Query
from fastapi.responses import StreamingResponse

from carrel_gateway.dependencies import Notebooks
from carrel_gateway.idempotency.routes import IdempotentRoute
from carrel_gateway.notebook.schemas import NotebookIn, SyncOut
from carrel_gateway.sessions.service import Session
from carrel_gateway.web.downloads import content_disposition

router = APIRouter(route_class=IdempotentRoute, prefix="/api/sessions/{session_id}", tags=["notebook"])
NOTEBOOK: Final = "application/x-ipynb+json"
LINES: Final = "application/x-ndjson"


@router.get("/notebook", response_class=StreamingResponse, responses={200: {"content": {NOTEBOOK: {}}}})
async def export_notebook(session_id: UUID, notebooks: Notebooks) -> StreamingResponse:
    """Return the session as a notebook (nbformat 4.5) that runs from top to bottom beside the folder `data`."""
    return download(*await notebooks.export(session_id), "ipynb", NOTEBOOK)


@router.get("/export", response_class=StreamingResponse, responses={200: {"content": {NOTEBOOK: {}, LINES: {}}}})
async def export_history(
    session_id: UUID,
    notebooks: Notebooks,
    format: Annotated[  # noqa: A002  the name that callers see
        Literal["jsonl", "ipynb"],
        Query(description="The whole log, an event in a line; or the notebook."),
    ] = "jsonl",
) -> StreamingResponse:
    """Return the history of the session as a file, sent as it is read."""
    if format == "ipynb":
        return download(*await notebooks.export(session_id), "ipynb", NOTEBOOK)
    return download(*await notebooks.lines(session_id), "jsonl", LINES)


def download(session: Session, content: AsyncIterator[bytes], suffix: str, media_type: str) -> StreamingResponse:
    """Return a file of a session, sent as it is read and named after it."""
    disposition = content_disposition(f"{session.title[:80]}.{suffix}", inline=False)
    # What is appended while this is read may be in it: whoever comes back with this tag then gets it once more.
    tag = hashlib.sha256(f"{suffix} {session.last_seq} {session.title}".encode()).hexdigest()[:32]
    headers = {"Content-Disposition": disposition, "ETag": f'"{tag}"'}
    return StreamingResponse(content, media_type=media_type, headers=headers)


@router.post("/notebook/sync")
async def sync_notebook(session_id: UUID, body: NotebookIn, notebooks: Notebooks) -> SyncOut:
    """Take a notebook that was edited elsewhere: changed and new code cells become events of the log."""
    return SyncOut(edited=[item.execution_id for item in await notebooks.sync(session_id, body.notebook)])
