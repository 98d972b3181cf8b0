"""`/api/sessions`: conversations, each with its own kernel, files and history."""

from __future__ import annotations

from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Query, Response, status

from carrel_gateway.dependencies import Agents, Config, Cursor, EffectOf, Offset, Seen, Sessions
from carrel_gateway.idempotency.routes import IdempotentRoute
from carrel_gateway.sessions.schemas import DeletionOut, SessionCreate, SessionList, SessionOut, SessionUpdate
from carrel_gateway.web.conditional import tagged

router = APIRouter(route_class=IdempotentRoute, prefix="/api/sessions", tags=["sessions"])


@router.post("", status_code=status.HTTP_201_CREATED)
async def create_session(
    sessions: Sessions, agents: Agents, config: Config, effect: EffectOf, body: SessionCreate | None = None
) -> SessionOut:
    """Open a conversation. Its kernel starts when it is first needed."""
    wanted = body or SessionCreate()
    if effect.again and (made := await sessions.recorded(effect.id)):
        return SessionOut.model_validate(made)
    model, chosen = wanted.model, wanted.config.model_dump(exclude_none=True) if wanted.config else {}
    agent = None
    if wanted.agent_id is not None:
        agent = (await agents.get(wanted.agent_id)).agent
        model, chosen = model or agent.model, {**agent.config, **chosen}
    if model is not None:
        await config.require_model(model)
    session = await sessions.create(
        title=wanted.title,
        model=model,
        config=chosen,
        agent=(agent.id, agent.version) if agent else None,
        session_id=effect.id,
    )
    return SessionOut.model_validate(session)


@router.get("")
async def list_sessions(
    sessions: Sessions,
    status: Literal["active", "archived"] | None = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    offset: Offset = 0,
    cursor: Cursor = None,
) -> SessionList:
    """List conversations, newest first."""
    return SessionList.model_validate(await sessions.list(status=status, limit=limit, offset=offset, cursor=cursor))


@router.get("/{session_id}")
async def get_session(session_id: UUID, sessions: Sessions, response: Response) -> SessionOut:
    """Return one conversation."""
    return tagged(response, SessionOut.model_validate(await sessions.get(session_id)))


@router.put("/{session_id}")
async def update_session(
    session_id: UUID, body: SessionUpdate, sessions: Sessions, config: Config, seen: Seen, response: Response
) -> SessionOut:
    """Change title, model or limits."""
    if body.model is not None:
        await config.require_model(body.model)
    changes: dict[str, Any] = {}
    if body.title is not None:
        changes["title"] = body.title
    if body.model is not None:
        changes["model"] = body.model
    if body.config is not None:
        changes["config"] = body.config.model_dump(exclude_none=True)
    expected = seen.on(SessionOut.model_validate)
    return tagged(response, SessionOut.model_validate(await sessions.update(session_id, expected=expected, **changes)))


@router.delete("/{session_id}")
async def delete_session(session_id: UUID, sessions: Sessions, seen: Seen) -> DeletionOut:
    """Delete a conversation with its kernel, files, artifacts and history, and say what went. There is no way back."""
    return DeletionOut.model_validate(await sessions.delete(session_id, seen.on(SessionOut.model_validate)))


@router.post("/{session_id}/archive")
async def archive_session(session_id: UUID, sessions: Sessions) -> SessionOut:
    """Put a conversation away: it can be read, and takes no more messages; its kernel is given back."""
    await sessions.archive(session_id)
    return SessionOut.model_validate(await sessions.get(session_id))
