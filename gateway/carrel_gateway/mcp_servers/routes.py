"""`…/mcp`: the MCP servers of a session, and templates of well-known ones."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Path, Response, status

from carrel_gateway.dependencies import McpServers, Seen, require_caller
from carrel_gateway.idempotency.routes import IdempotentRoute
from carrel_gateway.mcp_servers.rules import NAME
from carrel_gateway.mcp_servers.schemas import ServerCreate, ServerList, ServerOut, ServerUpdate, TemplateList
from carrel_gateway.mcp_servers.templates import TEMPLATES
from carrel_gateway.web.bearer import Bearer
from carrel_gateway.web.conditional import tagged

router = APIRouter(route_class=IdempotentRoute, prefix="/api/sessions/{session_id}/mcp", tags=["configuration"])
templates = APIRouter(route_class=IdempotentRoute, prefix="/api/mcp/templates", tags=["configuration"])
Name = Annotated[str, Path(pattern=NAME, description="What the session calls the server.")]


@templates.get("", dependencies=[Depends(Bearer(require_caller))])
async def list_mcp_templates() -> TemplateList:
    """List well-known servers, with what each must be given."""
    return TemplateList.model_validate({"items": list(TEMPLATES.values())})


@router.get("")
async def list_mcp_servers(session_id: UUID, servers: McpServers) -> ServerList:
    """List the session's servers by name; what they are given is shown to nobody."""
    return ServerList.model_validate({"items": await servers.list(session_id)})


@router.post("", status_code=status.HTTP_201_CREATED)
async def add_mcp_server(session_id: UUID, body: ServerCreate, servers: McpServers, response: Response) -> ServerOut:
    """Add a server, of a template or with a command or an address; it is kept, and not used yet."""
    return tagged(response, ServerOut.model_validate(await servers.add(session_id, body.new())))


@router.get("/{name}")
async def get_mcp_server(session_id: UUID, name: Name, servers: McpServers, response: Response) -> ServerOut:
    """Return one server."""
    return tagged(response, ServerOut.model_validate(await servers.get(session_id, name)))


@router.put("/{name}")
async def update_mcp_server(
    session_id: UUID, name: Name, body: ServerUpdate, servers: McpServers, seen: Seen, response: Response
) -> ServerOut:
    """Change a server; its secrets stay as long as its command or address does, or are sent again."""
    expected = seen.on(ServerOut.model_validate)
    return tagged(response, ServerOut.model_validate(await servers.change(session_id, name, body.change(), expected)))


@router.delete("/{name}", status_code=status.HTTP_204_NO_CONTENT)
async def delete_mcp_server(session_id: UUID, name: Name, servers: McpServers, seen: Seen) -> Response:
    """Remove a server with its secrets."""
    await servers.remove(session_id, name, seen.on(ServerOut.model_validate))
    return Response(status_code=status.HTTP_204_NO_CONTENT)
