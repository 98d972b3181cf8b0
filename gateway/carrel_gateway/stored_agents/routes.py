"""`/api/agents`: stored configurations that sessions begin with, shared within teams."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query, Response, status

from carrel_gateway.dependencies import Agents, Config, Cursor, GatewayOf, Seen
from carrel_gateway.idempotency.routes import IdempotentRoute
from carrel_gateway.sharing.schemas import ShareIn, TeamShareOut, tag_of_share
from carrel_gateway.stored_agents.schemas import AgentCreate, AgentList, AgentOut, AgentUpdate
from carrel_gateway.web.conditional import if_any, tagged

router = APIRouter(route_class=IdempotentRoute, prefix="/api/agents", tags=["agents"])


@router.get("")
async def list_agents(
    agents: Agents, limit: Annotated[int, Query(ge=1, le=200)] = 50, cursor: Cursor = None
) -> AgentList:
    """List one's own agents and those of one's teams, newest first."""
    return AgentList.model_validate(await agents.list(limit=limit, cursor=cursor))


@router.post("", status_code=status.HTTP_201_CREATED)
async def store_agent(body: AgentCreate, agents: Agents, config: Config, gateway: GatewayOf) -> AgentOut:
    """Store an agent under a name."""
    model = body.model or gateway.context.settings.llm_model
    await config.require_model(model)
    stored = await agents.store(
        name=body.name, description=body.description, model=model, config=body.config.model_dump(exclude_none=True)
    )
    return AgentOut.model_validate(stored)


@router.get("/{agent_id}")
async def get_agent(agent_id: UUID, agents: Agents, response: Response) -> AgentOut:
    """Return one agent."""
    return tagged(response, AgentOut.model_validate(await agents.get(agent_id)))


@router.put("/{agent_id}")
async def update_agent(
    agent_id: UUID, body: AgentUpdate, agents: Agents, config: Config, seen: Seen, response: Response
) -> AgentOut:
    """Change an agent; sessions that began with it keep what they began with."""
    if body.model is not None:
        await config.require_model(body.model)
    changes: dict[str, Any] = body.model_dump(exclude_none=True, include={"name", "description", "model"})
    if body.config is not None:
        changes["config"] = body.config.model_dump(exclude_none=True)
    expected = seen.on(AgentOut.model_validate)
    changed = await agents.change(agent_id, changes, version=body.version, expected=expected)
    return tagged(response, AgentOut.model_validate(changed))


@router.delete("/{agent_id}", status_code=status.HTTP_204_NO_CONTENT)
async def delete_agent(agent_id: UUID, agents: Agents, seen: Seen) -> Response:
    """Delete an agent; sessions that began with it go on."""
    await agents.delete(agent_id, seen.on(AgentOut.model_validate))
    return Response(status_code=status.HTTP_204_NO_CONTENT)


@router.get("/{agent_id}/teams/{team_id}")
async def get_team_of_agent(agent_id: UUID, team_id: UUID, agents: Agents, response: Response) -> TeamShareOut:
    """Return how an agent is shared with a team."""
    return tagged(response, TeamShareOut.model_validate(await agents.team(agent_id, team_id)))


@router.put("/{agent_id}/teams/{team_id}")
async def share_agent(
    agent_id: UUID, team_id: UUID, body: ShareIn, agents: Agents, seen: Seen, response: Response
) -> AgentOut:
    """Share an agent with a team, for reading or for writing."""
    shared = await agents.share(agent_id, team_id, body.access, seen.on(if_any(TeamShareOut.model_validate)))
    answer = AgentOut.model_validate(shared)
    response.headers["ETag"] = tag_of_share(answer.shares, team_id)
    return answer


@router.delete("/{agent_id}/teams/{team_id}", status_code=status.HTTP_204_NO_CONTENT)
async def unshare_agent(agent_id: UUID, team_id: UUID, agents: Agents, seen: Seen) -> Response:
    """Share an agent with a team no longer."""
    await agents.unshare(agent_id, team_id, seen.on(if_any(TeamShareOut.model_validate)))
    return Response(status_code=status.HTTP_204_NO_CONTENT)
