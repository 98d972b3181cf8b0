"""The people and objects of the matrix of access: a gateway in this process, two tenants, and one object of each kind
for every owner.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import insert, select
from tests.support.inside import Inside, Refused, inside
from tests.support.operations import Operation
from tests.support.people import change_user, new_key, new_team, new_user
from tests.support.state import chunks_of, new_principal
from tests.support.tenancy import statements_without_tenant

from carrel_gateway.accounts import invites
from carrel_gateway.accounts.invites import Sender
from carrel_gateway.artifacts.service import ArtifactService
from carrel_gateway.context import Principal, ProcessContext
from carrel_gateway.history.events import UserMessage
from carrel_gateway.history.service import HistoryService
from carrel_gateway.identity.presented import Kind
from carrel_gateway.identity.revocations import announce
from carrel_gateway.identity.rights import Right, Role
from carrel_gateway.identity.tables import logins
from carrel_gateway.jobs.service import JobService
from carrel_gateway.mcp_servers.service import McpServerService, NewServer
from carrel_gateway.provider_keys.service import ProviderKeyService
from carrel_gateway.sessions.service import SessionService
from carrel_gateway.sessions.tables import sessions
from carrel_gateway.settings import Settings
from carrel_gateway.sharing.sessions import SessionSharing
from carrel_gateway.storage.ids import new_id
from carrel_gateway.stored_agents.service import AgentService
from carrel_gateway.uploads.service import UploadService


@dataclass(frozen=True, slots=True)
class Objects:
    """One of each kind, of one owner."""

    session: UUID
    archived: UUID
    message: UUID
    """In the archived session."""
    artifact: UUID


@dataclass
class World:
    """Everybody, and what is theirs."""

    gateway: Inside
    people: dict[Role, Principal] = field(default_factory=dict)
    colleague: Principal = field(init=False)
    stranger: Principal = field(init=False)
    objects: dict[UUID, Objects] = field(default_factory=dict)
    _made: dict[tuple[str, UUID, str], Any] = field(default_factory=dict)

    @property
    def context(self) -> ProcessContext:
        return self.gateway.context

    def key(self, owner: Principal, scopes: set[Right] | None = None) -> str:
        """Return a new key of somebody."""
        names = None if scopes is None else sorted(scopes)
        return self.gateway.call(new_key, self.context.database, owner, scopes=names)[0]

    def token(self, owner: Principal) -> str:
        """Return an access token of somebody who has logged in."""
        return self.gateway.call(_log_in, self.context, owner)

    def ticket(self, credential: str) -> str:
        """Return a ticket of whoever has this key or token."""
        return self.gateway.request("POST", "/api/tickets", credential=credential).json()["ticket"]

    def disable(self, user: Principal, *, disabled: bool) -> None:
        """Disable somebody, or enable them again, and tell everybody."""
        at = datetime.now(UTC) if disabled else None
        self.gateway.call(change_user, self.context.database, user, disabled_at=at)
        self.gateway.call(announce, self.context.bus, user.tenant_id, user.user_id)

    def path(self, operation: Operation, owner: Principal) -> str:
        """Return the path of an operation on an owner's objects."""
        mine = self.objects[owner.user_id]
        session = mine.session if not operation.changes else mine.archived
        if operation.consumes:
            session = self.gateway.call(_new_session, self.context, owner)
        filled = operation.path.format(
            provider="openai",
            server="notes",
            message_id=mine.message,
            session_id=session,
            artifact_id=mine.artifact,
            user_id=owner.user_id,
            name="table.csv",
            model="demo/analyst",
            token="x",
            **self._named(operation, owner, session),
        )
        assert "{" not in filled
        return filled

    def _named(self, operation: Operation, owner: Principal, session: UUID) -> dict[str, Any]:
        """Return the ids of what a path names beside the session."""
        named: dict[str, Any] = {}
        if "{team_id}" in operation.path:
            named["team_id"], named["mate_id"] = self._known(operation, owner, "team", _new_team)
            if "{session_id}" in operation.path:
                self._known(operation, owner, "share", _share_session, session, named["team_id"])
        if "{agent_id}" in operation.path:
            named["agent_id"] = self._known(operation, owner, "agent", _new_agent, named.get("team_id"))
        makers: tuple[tuple[Any, ...], ...] = (
            ("link", _new_link, session),
            ("upload", _new_upload, session),
            ("login", _new_login),
            ("key", _new_key),
            ("invitation", _new_invitation),
            ("job", _new_job),
        )
        for name, make, *arguments in makers:
            if f"{{{name}_id}}" in operation.path:
                named[f"{name}_id"] = self._known(operation, owner, name, make, *arguments)
        if "{provider}" in operation.path:
            for caller in (*self.people.values(), self.colleague):
                self._known(operation, caller, "provider", _store_key)
        if "{server}" in operation.path and operation.changes:  # there from the beginning, and perhaps deleted since
            self.gateway.call(_add_server, self.context, owner, session)
        return named

    def _known(
        self, operation: Operation, owner: Principal, name: str, make: Callable[..., Any], *arguments: Any
    ) -> Any:
        """Return what an operation is about, made when it is first asked for; for one that ends it, each time."""
        place = (operation.name, owner.user_id, name)
        if operation.method == "DELETE" or place not in self._made:
            self._made[place] = self.gateway.call(make, self.context, owner, *arguments)
        return self._made[place]

    def ask(self, operation: Operation, owner: Principal, credential: str | None) -> tuple[int, str]:
        """Return status and code of a call."""
        path = self.path(operation, owner)
        if operation.method == "WS":
            return self._ask_socket(path, credential)
        body = operation.json
        if operation.cheap is not None and owner.tenant_id != self.stranger.tenant_id:
            body = operation.cheap
        answer = self.gateway.request(operation.method, path, credential=credential, json=body)
        is_problem = answer.headers.get("content-type", "").startswith("application/problem+json")
        return answer.status_code, answer.json()["code"] if is_problem else ""

    def _ask_socket(self, path: str, credential: str | None) -> tuple[int, str]:
        try:
            is_ticket = credential is not None and credential.startswith(Kind.TICKET.value)
            offer = {"Sec-WebSocket-Protocol": f"carrel.ticket.{credential}"} if is_ticket else {}
            with self.gateway.socket(path, credential=None if is_ticket else credential, **offer) as socket:
                socket.send({"type": "nothing"})
                answer = socket.receive()
        except Refused as refused:
            return refused.code - 4000, refused.reason
        return (200, "") if answer["code"] == "unknown_frame" else (answer["status"], answer["code"])

    def rows(self) -> list[Any]:
        """Return the sessions that nobody here may change, as they are."""
        return [self.gateway.call(_row, self.context, owner) for owner in (self.colleague, self.stranger)]


@contextmanager
def world(settings: Settings) -> Iterator[World]:
    """Start a gateway in this process, with everybody in it; every statement must be bound to a tenant."""
    with inside(settings) as gateway:
        made = World(gateway)
        with statements_without_tenant(made.context.database) as found:
            gateway.call(_people, made)
            yield made
        assert found == []


async def _people(made: World) -> None:
    database = made.context.database
    tenant_id = (await new_principal(database)).tenant_id
    for role in Role:
        made.people[role] = await new_user(database, tenant_id, role)
    made.colleague = await new_user(database, tenant_id)
    made.stranger = await new_principal(database)
    for owner in (*made.people.values(), made.colleague, made.stranger):
        made.objects[owner.user_id] = await _objects(made.context, owner)


async def _objects(context: ProcessContext, owner: Principal) -> Objects:
    own = Principal(owner.tenant_id, owner.user_id)
    sessions_of, artifacts = SessionService(context, own), ArtifactService(context, own)
    session, archived = await _new_session(context, owner), await _new_session(context, owner)
    for category in ("data", "artifacts"):
        stored = await artifacts.store(
            session, name="table.csv", category=category, content_type="text/csv", chunks=chunks_of(b"a\n1\n")
        )
    for one in (session, archived):
        await _add_server(context, owner, one)
    said = UserMessage(message_id=new_id(), content="hello")
    await HistoryService(context, own).append(archived, [said], actor="user")
    await sessions_of.archive(archived)
    return Objects(session, archived, said.message_id, stored.id)


async def _new_key(context: ProcessContext, owner: Principal) -> UUID:
    return (await new_key(context.database, owner))[1]


async def _new_session(context: ProcessContext, owner: Principal) -> UUID:
    return (await SessionService(context, Principal(owner.tenant_id, owner.user_id)).create()).id


async def _new_team(context: ProcessContext, owner: Principal) -> tuple[UUID, UUID]:
    """Make a team that the owner leads with somebody else."""
    mate = await new_user(context.database, owner.tenant_id)
    return await new_team(context.database, owner, mate, role=Role.ADMIN), mate.user_id


async def _new_invitation(context: ProcessContext, owner: Principal) -> UUID:
    made = new_id()
    async with context.database.transaction(owner.tenant_id) as tx:
        await invites.add(
            tx,
            made,
            Sender(owner.user_id, owner.user_id),
            email="ada@example.org",
            role=Role.USER,
            digest=made.hex,
            seconds=3600.0,
        )
    return made


async def _new_job(context: ProcessContext, owner: Principal) -> UUID:
    """Make a job that no gateway knows how to do."""
    made = await JobService(context, owner).enqueue("unknown")
    assert made is not None
    return made


async def _new_agent(context: ProcessContext, owner: Principal, team_id: UUID | None) -> UUID:
    """Make an agent, shared with a team where there is one."""
    agents = AgentService(context, Principal(owner.tenant_id, owner.user_id))
    agent_id = (await agents.store(name="x", description="", model="demo/analyst", config={})).agent.id
    if team_id is not None:
        await agents.share(agent_id, team_id, "read")
    return agent_id


async def _share_session(context: ProcessContext, owner: Principal, session_id: UUID, team_id: UUID) -> None:
    await SessionSharing(context, Principal(owner.tenant_id, owner.user_id)).share(session_id, team_id, "read")


async def _new_link(context: ProcessContext, owner: Principal, session_id: UUID) -> UUID:
    sharing = SessionSharing(context, Principal(owner.tenant_id, owner.user_id))
    return (await sharing.make_link(session_id, timedelta(hours=1)))[0].id


async def _new_upload(context: ProcessContext, owner: Principal, session_id: UUID) -> UUID:
    uploads = UploadService(context, Principal(owner.tenant_id, owner.user_id))
    return (await uploads.begin(session_id, name="x", content_type=None, length=1)).id


async def _add_server(context: ProcessContext, owner: Principal, session_id: UUID) -> None:
    """Add an MCP server to a session, unless it is there."""
    servers = McpServerService(context, Principal(owner.tenant_id, owner.user_id))
    if not await servers.list(session_id):
        await servers.add(session_id, NewServer("notes", ["notes"], {"TOKEN": "secret"}, "ask", enabled=True))


async def _store_key(context: ProcessContext, owner: Principal) -> None:
    own = Principal(owner.tenant_id, owner.user_id)
    await ProviderKeyService(context, own).put("openai", "sk-0123456789abcdefghij", tenant=False)


async def _row(context: ProcessContext, owner: Principal) -> Any:
    async with context.database.transaction(owner.tenant_id, write=False) as tx:
        query = (
            select(sessions)
            .where(sessions.c.tenant_id == owner.tenant_id, sessions.c.owner_id == owner.user_id)
            .order_by(sessions.c.id)
        )
        return [tuple(row) for row in await tx.connection.execute(query)]


async def _log_in(context: ProcessContext, owner: Principal) -> str:
    login_id = await _new_login(context, owner)
    issued = context.tokens.issue(tenant_id=owner.tenant_id, user_id=owner.user_id, login_id=login_id)
    return issued.token


async def _new_login(context: ProcessContext, owner: Principal) -> UUID:
    login_id, now = new_id(), datetime.now(UTC)
    row = {
        "tenant_id": owner.tenant_id,
        "id": login_id,
        "user_id": owner.user_id,
        "digest": login_id.hex,
        "generation": 1,
        "client": "test",
        "created_at": now,
        "refreshed_at": now,
        "expires_at": now + timedelta(days=1),
    }
    async with context.database.transaction(owner.tenant_id) as tx:
        await tx.connection.execute(insert(logins).values(**row))
    return login_id
