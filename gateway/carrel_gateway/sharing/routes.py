"""Sharing of sessions: `/api/sessions/{id}/teams` and `/share`; and `/api/shared/{token}`, what a link shows.

The token of a link is a part of the path, which is logged as its template; answers with it are not to be stored.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Path, Query, Response, status
from fastapi.responses import StreamingResponse

from carrel_gateway.artifacts.routes import download
from carrel_gateway.artifacts.schemas import ArtifactList
from carrel_gateway.artifacts.service import ArtifactService
from carrel_gateway.chat.schemas import MessageList
from carrel_gateway.context import Principal
from carrel_gateway.dependencies import Cursor, GatewayOf, Seen, SharingOf
from carrel_gateway.errors import NotFound
from carrel_gateway.history.service import HistoryService
from carrel_gateway.idempotency.routes import IdempotentRoute
from carrel_gateway.notebook.routes import NOTEBOOK
from carrel_gateway.notebook.routes import download as download_notebook
from carrel_gateway.notebook.service import NotebookService
from carrel_gateway.sessions.service import SessionService
from carrel_gateway.sharing.links import ShareLink
from carrel_gateway.sharing.schemas import (
    LinkIn,
    LinkList,
    LinkMade,
    LinkOut,
    SharedSession,
    ShareIn,
    TeamShareList,
    TeamShareOut,
    tag_of_share,
)
from carrel_gateway.sharing.sessions import opened
from carrel_gateway.web.conditional import if_any, tagged

router = APIRouter(route_class=IdempotentRoute, prefix="/api/sessions/{session_id}", tags=["sharing"])
shown = APIRouter(prefix="/api/shared/{token}", tags=["sharing"])
Limit = Annotated[int, Query(ge=1, le=500)]


@router.get("/teams")
async def list_teams_of_session(session_id: UUID, sharing: SharingOf) -> TeamShareList:
    """List the teams that a session is shared with."""
    return TeamShareList.model_validate({"items": await sharing.teams(session_id)})


@router.get("/teams/{team_id}")
async def get_team_of_session(session_id: UUID, team_id: UUID, sharing: SharingOf, response: Response) -> TeamShareOut:
    """Return how a session is shared with a team."""
    return tagged(response, TeamShareOut.model_validate(await sharing.team(session_id, team_id)))


@router.put("/teams/{team_id}")
async def share_session(
    session_id: UUID, team_id: UUID, body: ShareIn, sharing: SharingOf, seen: Seen, response: Response
) -> TeamShareList:
    """Share a session with a team: for reading, or for working in it."""
    shares = await sharing.share(session_id, team_id, body.access, seen.on(if_any(TeamShareOut.model_validate)))
    answer = TeamShareList.model_validate({"items": shares})
    response.headers["ETag"] = tag_of_share(answer.items, team_id)
    return answer


@router.delete("/teams/{team_id}", status_code=status.HTTP_204_NO_CONTENT)
async def unshare_session(session_id: UUID, team_id: UUID, sharing: SharingOf, seen: Seen) -> Response:
    """Share a session with a team no longer."""
    await sharing.unshare(session_id, team_id, seen.on(if_any(TeamShareOut.model_validate)))
    return Response(status_code=status.HTTP_204_NO_CONTENT)


@router.post("/share", status_code=status.HTTP_201_CREATED)
async def make_link(session_id: UUID, sharing: SharingOf, response: Response, body: LinkIn | None = None) -> LinkMade:
    """Make a link that shows the session, and nothing else, to whoever has it, for a time."""
    wanted = body or LinkIn()
    link, token = await sharing.make_link(session_id, timedelta(seconds=wanted.expires_in_seconds))
    response.headers["Cache-Control"] = "no-store"
    return LinkMade(**LinkOut.model_validate(link).model_dump(), token=token)


@router.get("/share")
async def list_links(session_id: UUID, sharing: SharingOf) -> LinkList:
    """List the links of a session, without their tokens."""
    return LinkList.model_validate({"items": await sharing.links(session_id)})


@router.get("/share/{link_id}")
async def get_link(session_id: UUID, link_id: UUID, sharing: SharingOf, response: Response) -> LinkOut:
    """Return a link without its token, also one that was revoked or has expired."""
    return tagged(response, LinkOut.model_validate(await sharing.link(session_id, link_id)))


@router.delete("/share/{link_id}", status_code=status.HTTP_204_NO_CONTENT)
async def revoke_link(session_id: UUID, link_id: UUID, sharing: SharingOf, seen: Seen) -> Response:
    """Have a link show nothing any more."""
    await sharing.revoke_link(session_id, link_id, seen.on(LinkOut.model_validate))
    return Response(status_code=status.HTTP_204_NO_CONTENT)


# ---------------------------------------------------------------------- what a link shows


async def _opened(token: Annotated[str, Path(max_length=200)], gateway: GatewayOf) -> tuple[Principal, ShareLink]:
    return await opened(gateway.context, token)


Opened = Annotated[tuple[Principal, ShareLink], Depends(_opened)]


@shown.get("")
async def show_session(found: Opened, gateway: GatewayOf) -> SharedSession:
    """Return what the link shows, and until when."""
    viewer, link = found
    session = await SessionService(gateway.context, viewer).get(link.session_id)
    return SharedSession(
        title=session.title,
        created_at=session.created_at,
        updated_at=session.updated_at,
        expires_at=link.expires_at,
    )


@shown.get("/messages")
async def show_messages(
    found: Opened, gateway: GatewayOf, limit: Limit = 100, before_id: UUID | None = None
) -> MessageList:
    """Return the last messages of the conversation, in order."""
    viewer, link = found
    history = HistoryService(gateway.context, viewer)
    items = await history.messages(link.session_id, limit=limit, before_id=before_id)
    return MessageList.model_validate({"items": items})


@shown.get("/notebook", response_class=StreamingResponse, responses={200: {"content": {NOTEBOOK: {}}}})
async def show_notebook(found: Opened, gateway: GatewayOf) -> StreamingResponse:
    """Return the session as a notebook (nbformat 4.5): messages, cells and what they put out."""
    viewer, link = found
    notebooks = NotebookService(gateway.context, viewer)
    return download_notebook(*await notebooks.export(link.session_id), "ipynb", NOTEBOOK)


@shown.get("/artifacts")
async def show_artifacts(found: Opened, gateway: GatewayOf, limit: Limit = 200, cursor: Cursor = None) -> ArtifactList:
    """List the files that code made, each in its newest version."""
    viewer, link = found
    artifacts = ArtifactService(gateway.context, viewer)
    page = await artifacts.page(link.session_id, category="artifacts", limit=limit, cursor=cursor)
    return ArtifactList.model_validate(page)


@shown.get("/artifacts/{artifact_id}", response_class=StreamingResponse)
async def show_artifact(artifact_id: UUID, found: Opened, gateway: GatewayOf) -> Response:
    """Download one of them."""
    viewer, link = found
    artifacts = ArtifactService(gateway.context, viewer)
    artifact = await artifacts.get(artifact_id)
    if artifact.session_id != link.session_id or artifact.category != "artifacts":
        raise NotFound("there is no such file", code="artifact_not_found")
    return download(artifact, await artifacts.read(artifact))
