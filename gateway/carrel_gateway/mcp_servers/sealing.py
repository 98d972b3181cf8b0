"""How what MCP servers are given is encrypted: bound to tenant, session, server, and the command or address it is for.

A row of which somebody changed the command or the address cannot be opened any more. Pure.
"""

from __future__ import annotations

from typing import Final
from uuid import UUID

import msgspec

from carrel_gateway.identity.sealed import Row, Sealed
from carrel_gateway.identity.secrets import MasterKeys
from carrel_gateway.mcp_servers.repository import Target
from carrel_gateway.mcp_servers.tables import mcp_servers


def _bound_to(row: Row) -> str:
    place = [str(row["tenant_id"]), str(row["session_id"]), row["name"], row["target"]]
    return msgspec.json.encode(place).decode()


SEALED: Final = Sealed(
    mcp_servers,
    use="mcp-servers",
    bound_to=_bound_to,
    told=lambda row: f"MCP server {row['name']} of session {row['session_id']}",
)


def seal(
    secrets: MasterKeys, tenant_id: UUID, session_id: UUID, name: str, target: Target, values: dict[str, str]
) -> str | None:
    """Return the values of a server's secrets encrypted by the installation's newest key; none where there are none."""
    row = {"tenant_id": tenant_id, "session_id": session_id, "name": name, "target": target}
    return SEALED.seal(secrets, row, msgspec.json.encode(values)) if values else None
