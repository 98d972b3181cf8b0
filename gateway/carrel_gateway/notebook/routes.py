"""`…/notebook`: the session as a notebook, and back."""

from __future__ import annotations

from uuid import UUID

from fastapi import APIRouter

from carrel_gateway.dependencies import Notebooks
from carrel_gateway.idempotency.routes import IdempotentRoute
from carrel_gateway.notebook.schemas import NotebookIn, SyncOut
from carrel_gateway.web.downloads import content_disposition
from carrel_gateway.web.replies import JsonReply

router = APIRouter(route_class=IdempotentRoute, prefix="/api/sessions/{session_id}/notebook", tags=["notebook"])


@router.get("")
async def export_notebook(session_id: UUID, notebooks: Notebooks) -> JsonReply:
    """Return the session as a notebook (nbformat 4.5) that runs from top to bottom beside the folder `data`."""
    title, notebook = await notebooks.export(session_id)
    reply = JsonReply(notebook, media_type="application/x-ipynb+json")
    reply.headers["Content-Disposition"] = content_disposition(f"{title[:80]}.ipynb", inline=False)
    return reply


@router.post("/sync")
async def sync_notebook(session_id: UUID, body: NotebookIn, notebooks: Notebooks) -> SyncOut:
    """Take a notebook that was edited elsewhere: changed and new code cells become events of the log."""
    return SyncOut(edited=[item.execution_id for item in await notebooks.sync(session_id, body.notebook)])
