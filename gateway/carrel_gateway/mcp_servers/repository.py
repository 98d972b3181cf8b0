"""Queries of the MCP servers of sessions."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal, TypeAlias
from uuid import UUID

from sqlalchemy import delete, insert, select, update

from carrel_gateway.mcp_servers.tables import mcp_servers
from carrel_gateway.storage.database import Transaction

Transport: TypeAlias = Literal["stdio", "http"]
Permission: TypeAlias = Literal["allow", "ask", "deny"]
Target: TypeAlias = list[str] | str
"""A command (stdio) or an address (http)."""


@dataclass(frozen=True, slots=True)
class Server:
    """A server as it is stored."""

    session_id: UUID
    name: str
    transport: Transport
    target: Target
    secrets: list[str]
    """Names of the environment's variables (stdio) or the headers (http) that it is given."""
    sealed: str | None
    """Their values, encrypted."""
    permission: Permission
    enabled: bool
    created_at: datetime
    updated_at: datetime


async def of_session(tx: Transaction, session_id: UUID) -> list[Server]:
    """Return a session's servers by name."""
    query = select(mcp_servers).where(mcp_servers.c.tenant_id == tx.tenant_id, mcp_servers.c.session_id == session_id)
    rows = (await tx.connection.execute(query.order_by(mcp_servers.c.name))).mappings()
    return [Server(**{name: row[name] for name in Server.__slots__}) for row in rows]


async def add(tx: Transaction, server: Server) -> None:
    """Insert a server."""
    await tx.connection.execute(insert(mcp_servers).values(tenant_id=tx.tenant_id, **_values(server)))


async def replace(tx: Transaction, server: Server) -> None:
    """Store a server in the place of that of its name."""
    await tx.connection.execute(
        update(mcp_servers)
        .where(
            mcp_servers.c.tenant_id == tx.tenant_id,
            mcp_servers.c.session_id == server.session_id,
            mcp_servers.c.name == server.name,
        )
        .values(**_values(server))
    )


async def remove(tx: Transaction, session_id: UUID, name: str) -> None:
    """Delete a server."""
    await tx.connection.execute(
        delete(mcp_servers).where(
            mcp_servers.c.tenant_id == tx.tenant_id,
            mcp_servers.c.session_id == session_id,
            mcp_servers.c.name == name,
        )
    )


def _values(server: Server) -> dict[str, object]:
    return {name: getattr(server, name) for name in Server.__slots__}
