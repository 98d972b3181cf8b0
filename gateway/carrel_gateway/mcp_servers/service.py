"""The MCP servers of sessions: kept, checked, and their secrets encrypted. Starts none and speaks to none.

A command is for the session's pod: the gateway runs none, ever. What a server is given belongs to the command or the
address that it was given for: it is kept with that, or sent again, and a fork gets none of it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final, Literal, TypeAlias
from uuid import UUID

from carrel_gateway.audit.service import Action, AuditService
from carrel_gateway.context import Principal, ProcessContext
from carrel_gateway.errors import CarrelError, Conflict, NotFound
from carrel_gateway.history.service import HistoryService
from carrel_gateway.mcp_servers import repository, rules
from carrel_gateway.mcp_servers.repository import Permission, Server, Target, Transport
from carrel_gateway.mcp_servers.sealing import SEALED as SEALED_SERVERS
from carrel_gateway.mcp_servers.sealing import seal
from carrel_gateway.sessions.service import SessionService
from carrel_gateway.storage.database import Transaction
from carrel_wire.log import SessionChanged

__all__ = ["SEALED_SERVERS", "Change", "McpServerService", "NewServer", "Server"]

MAX_SERVERS: Final = 20
"""Of one session."""
Expected: TypeAlias = Callable[[Server], None] | None
"""Raises when a server is not as somebody has seen it."""


class ServerRefused(CarrelError):
    """What was sent is well-formed, and not to be had here."""

    status = 422
    code = "mcp_server_refused"


@dataclass(frozen=True, slots=True)
class NewServer:
    """A server that somebody adds."""

    name: str
    target: Target
    secrets: dict[str, str]
    permission: Permission
    enabled: bool


@dataclass(frozen=True, slots=True)
class Change:
    """What somebody changes of a server; none stays as it is."""

    transport: Transport | None = None
    """Of what is named; it can be no other than the server's."""
    target: Target | None = None
    secrets: dict[str, str] | None = None
    permission: Permission | None = None
    enabled: bool | None = None


class McpServerService:
    """Servers of the sessions that one caller may use."""

    def __init__(self, context: ProcessContext, principal: Principal) -> None:
        self._database = context.database
        self._secrets = context.secrets
        self._is_local = context.settings.executor_type == "local"
        self._principal = principal
        self._sessions = SessionService(context, principal)
        self._history = HistoryService(context, principal)
        self._audit = AuditService(context, principal)

    async def list(self, session_id: UUID) -> list[Server]:
        """Return the servers of a session by name.

        Raises
        ------
        NotFound
            There is no such session.
        """
        await self._sessions.get(session_id)
        async with self._database.transaction(self._principal.tenant_id, write=False) as tx:
            return await repository.of_session(tx, session_id)

    async def get(self, session_id: UUID, name: str) -> Server:
        """Return a server.

        Raises
        ------
        NotFound
            There is no such session or server.
        """
        return _named(await self.list(session_id), name)

    async def add(self, session_id: UUID, new: NewServer) -> Server:
        """Add a server.

        Raises
        ------
        Conflict
            The session has one of this name.
        ServerRefused
            It has as many as it may have, or this one cannot be reached from here.
        """
        self._require_allowed(new.target)
        now = datetime.now(UTC)
        server = Server(
            session_id=session_id,
            name=new.name,
            transport="stdio" if isinstance(new.target, list) else "http",
            target=new.target,
            secrets=sorted(new.secrets),
            sealed=self._sealed(session_id, new.name, new.target, new.secrets),
            permission=new.permission,
            enabled=new.enabled,
            created_at=now,
            updated_at=now,
        )
        async with self._changing(session_id) as (tx, servers):
            if any(server.name == new.name for server in servers):
                raise Conflict("the session has a server of this name; change it with PUT", code="mcp_server_exists")
            if len(servers) >= MAX_SERVERS:
                raise ServerRefused(f"a session has at most {MAX_SERVERS} servers; delete one first")
            await repository.add(tx, server)
            await self._tell(tx, server, "added")
        return server

    async def change(self, session_id: UUID, name: str, change: Change, expected: Expected = None) -> Server:
        """Change what is named.

        Parameters
        ----------
        expected
            Raises when the server is not as whoever changes it has seen it.

        Raises
        ------
        NotFound
            There is no such session or server.
        ServerRefused
            It cannot be reached from here; or its secrets were given for another command or address.
        """
        if change.target is not None:
            self._require_allowed(change.target)
        async with self._changing(session_id) as (tx, servers):
            before = _named(servers, name)
            if expected:
                expected(before)
            if change == Change():
                return before
            after = self._changed(before, change)
            await repository.replace(tx, after)
            await self._tell(tx, after, "changed")
        return after

    async def remove(self, session_id: UUID, name: str, expected: Expected = None) -> None:
        """Remove a server with its secrets.

        Parameters
        ----------
        expected
            Raises when the server is not as whoever removes it has seen it.

        Raises
        ------
        NotFound
            There is no such session or server.
        """
        async with self._changing(session_id) as (tx, servers):
            server = _named(servers, name)
            if expected:
                expected(server)
            await repository.remove(tx, session_id, name)
            await self._tell(tx, server, "removed")

    @asynccontextmanager
    async def _changing(self, session_id: UUID) -> AsyncGenerator[tuple[Transaction, list[Server]]]:
        """Give a transaction in which nobody else changes the session, and the servers that it has."""
        await self._sessions.get(session_id)
        async with self._database.transaction(self._principal.tenant_id) as tx:
            await self._history.hold(tx, session_id)
            await self._sessions.require(tx, session_id)
            yield tx, await repository.of_session(tx, session_id)

    def _changed(self, before: Server, change: Change) -> Server:
        if change.transport not in {None, before.transport}:
            raise ServerRefused("a server keeps its transport; delete it, and add another one of this name")
        target = before.target if change.target is None else change.target
        if change.secrets is None and before.secrets and target != before.target:
            field = "env" if before.transport == "stdio" else "headers"
            raise ServerRefused(
                f"its secrets ({', '.join(before.secrets)}) were given for the command or address that it had; send "
                f"them again in `{field}` with the new one, or `{{}}` for none"
            )
        after = replace(
            before,
            target=target,
            permission=change.permission or before.permission,
            enabled=before.enabled if change.enabled is None else change.enabled,
            updated_at=datetime.now(UTC),
        )
        if change.secrets is None:
            return after
        sealed = self._sealed(before.session_id, before.name, target, change.secrets)
        return replace(after, secrets=sorted(change.secrets), sealed=sealed)

    def _require_allowed(self, target: Target) -> None:
        if isinstance(target, str) and not rules.is_secure(target) and not self._is_local:
            raise ServerRefused(
                "sessions run in a cluster here, where `localhost` is no machine of yours; use https://"
            )

    def _sealed(self, session_id: UUID, name: str, target: Target, secrets: dict[str, str]) -> str | None:
        return seal(self._secrets, self._principal.tenant_id, session_id, name, target, secrets)

    async def _tell(self, tx: Transaction, server: Server, what: Literal["added", "changed", "removed"]) -> None:
        changes = {"mcp_servers": {server.name: what}}
        await self._history.append(server.session_id, [SessionChanged(changes=changes)], actor="user", tx=tx)
        action = Action.MCP_SERVER_REMOVED if what == "removed" else Action.MCP_SERVER_STORED
        await self._audit.record(tx, action, server.session_id, change=what, transport=server.transport)


def _named(servers: list[Server], name: str) -> Server:
    found = next((server for server in servers if server.name == name), None)
    if found is None:
        raise NotFound("the session has no MCP server of this name", code="mcp_server_not_found")
    return found
