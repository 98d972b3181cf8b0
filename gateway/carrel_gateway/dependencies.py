"""What routes ask for: the process's parts, the caller, and the services made for one request.

`Gateway` is made once by the lifespan in `main`; everything else is made per request from it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, TypeVar
from uuid import UUID

from fastapi import Depends, Header, Query
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from starlette.requests import HTTPConnection, Request

from carrel_gateway.accounts.parts import Parts as AccountParts
from carrel_gateway.agents.models.registry import ModelRegistry
from carrel_gateway.artifacts.service import ArtifactService
from carrel_gateway.audit.service import AuditService
from carrel_gateway.chat.service import ChatService
from carrel_gateway.chat.supervisor import RunSupervisor
from carrel_gateway.config.service import ConfigService
from carrel_gateway.context import Principal, ProcessContext
from carrel_gateway.credentials.service import CredentialService
from carrel_gateway.errors import CarrelError, Conflict, Unauthenticated, Unavailable
from carrel_gateway.execution.service import ExecutionService
from carrel_gateway.history.search import SearchService
from carrel_gateway.history.service import HistoryService
from carrel_gateway.idempotency.service import Effect
from carrel_gateway.identity import policy
from carrel_gateway.identity.authenticator import Authenticator
from carrel_gateway.identity.presented import bearer
from carrel_gateway.jobs.service import JobService
from carrel_gateway.jobs.worker import JobWorker
from carrel_gateway.mcp_servers.service import McpServerService
from carrel_gateway.notebook.service import NotebookService
from carrel_gateway.people.service import TeamService, UserService
from carrel_gateway.provider_keys.service import ProviderKeyService
from carrel_gateway.quotas.service import QuotaService
from carrel_gateway.rates.service import RateLimits
from carrel_gateway.sessions.access import SessionAccess
from carrel_gateway.sessions.service import SessionService
from carrel_gateway.sharing.sessions import SessionSharing
from carrel_gateway.storage.ids import new_id
from carrel_gateway.storage.paging import MAX_CURSOR
from carrel_gateway.stored_agents.service import AgentService
from carrel_gateway.suspension.keeping import SessionKeeper
from carrel_gateway.suspension.service import SuspensionService
from carrel_gateway.uploads.service import UploadService
from carrel_gateway.usage.service import UsageService
from carrel_gateway.web.address import client_address
from carrel_gateway.web.bearer import Bearer
from carrel_gateway.web.conditional import SeenBy

T = TypeVar("T")

_ASKING: Final[dict[Callable[..., Any], bool]] = {}
"""Functions of routes, and whether they ask who calls: that is looked up in their dependencies once."""


@dataclass(frozen=True, slots=True)
class Gateway:
    """What one process holds beside the context that services see."""

    context: ProcessContext
    supervisor: RunSupervisor
    models: ModelRegistry
    jobs: JobWorker
    keeper: SessionKeeper | None
    """Answers the platform's requests to save sessions; none where nobody makes any."""
    authenticator: Authenticator
    accounts: AccountParts
    rates: RateLimits
    access: SessionAccess
    started_at: float
    """By the monotonic clock."""
    closing: asyncio.Event
    """Set when the process shall end: streams end then, and their callers come back to another one."""


def _gateway(connection: HTTPConnection) -> Gateway:
    return connection.app.state.gateway


async def gateway_of(connection: HTTPConnection) -> Gateway:
    """Return the process's parts."""
    return _gateway(connection)


GatewayOf = Annotated[Gateway, Depends(gateway_of)]


class Standing:
    """Whoever is being let in, and again and again whether they still would be."""

    def __init__(self, connection: HTTPConnection, *, presented: str | None, ticket: str | None = None) -> None:
        self._connection = connection
        self._gateway = _gateway(connection)
        self._presented = presented
        self._ticket = ticket
        self._by_ticket: Principal | None = None

    async def known(self) -> Principal:
        """Return who calls, and count the call for them, or else for the address; once for a request.

        Raises
        ------
        Unauthenticated
            It is not known who calls.
        TooMany
            They call too often.
        """
        known: Principal | None = getattr(self._connection.state, "caller", None)
        if known:
            return known
        try:
            caller = await self._caller()
        except Unauthenticated:
            await _count_stranger(self._connection, self._gateway)
            raise
        await self._gateway.rates.count(caller)
        return caller

    async def enter(self) -> Principal:
        """Return the caller as `now` does, when they come in; the call is counted."""
        caller = await self.known()
        await _require_allowed(self._connection, self._gateway, caller)
        return caller

    async def now(self) -> Principal:
        """Return the caller, who may do what the route does with what its path names.

        Raises
        ------
        Unauthenticated
            It is not known who calls, or the credential is not in force any more.
        PermissionDenied
            A right is missing, or it is another person's session.
        NotFound
            There is no such session or artifact in the caller's tenant.
        """
        caller = await self._caller()
        await _require_allowed(self._connection, self._gateway, caller)
        return caller

    async def holds(self) -> bool:
        """Return whether the caller would still be let in; while that cannot be found out, it is as it was."""
        return await self.refusal() is None

    async def refusal(self) -> CarrelError | None:
        """Return why the caller would not be let in any more; none where they would, or while it is not known."""
        try:
            await self.now()
        except Unavailable:
            return None
        except CarrelError as error:
            return error
        return None

    async def _caller(self) -> Principal:
        authenticator = self._gateway.authenticator
        if self._by_ticket is not None:
            return await authenticator.again(self._by_ticket)
        if self._ticket is not None:
            self._by_ticket = await authenticator.admit_ticket(self._ticket)
            return self._by_ticket
        return await authenticator.authenticate(self._presented)


async def require_caller(connection: HTTPConnection) -> Principal:
    """Return the caller, or raise what `Standing.enter` does; once for a request."""
    entered: Principal | None = getattr(connection.state, "entered", None)
    if entered is None:
        standing = Standing(connection, presented=bearer(connection.headers.get("authorization")))
        connection.state.entered = entered = await standing.enter()
        connection.state.standing = standing
    return entered


async def _require_allowed(connection: HTTPConnection, gateway: Gateway, caller: Principal) -> None:
    rule = policy.rule_of(connection.scope.get("method", "WS"), connection.scope["route"].path)
    policy.require(caller, rule)
    session_id = _id(connection, "session_id")
    artifact_id = _id(connection, "artifact_id")
    if artifact_id and not session_id:
        session_id = (await ArtifactService(gateway.context, caller).get(artifact_id)).session_id
    if session_id:
        await gateway.access.require(caller, session_id, changes=rule.changes)


async def count_open_call(scope: MutableMapping[str, Any]) -> None:
    """Count a call for its address when the route asks nobody who they are; raises `TooMany`."""
    if not _asks_for_caller(scope["route"]):  # WebSockets see to it themselves
        connection = HTTPConnection(scope)
        await _count_stranger(connection, _gateway(connection))


async def _count_stranger(connection: HTTPConnection, gateway: Gateway) -> None:
    address = client_address(connection.scope, trusted_proxies=gateway.context.settings.trusted_proxies)
    await gateway.rates.count_stranger(address, getattr(connection.scope.get("route"), "path", ""))


def _asks_for_caller(route: APIRoute) -> bool:
    known = _ASKING.get(route.endpoint)
    if known is None:
        known = _ASKING[route.endpoint] = _needs_caller(route.dependant)
    return known


def _needs_caller(dependant: Dependant) -> bool:
    return isinstance(dependant.call, Bearer) or any(map(_needs_caller, dependant.dependencies))


def _id(connection: HTTPConnection, name: str) -> UUID | None:
    """Return an id of the path; none where there is none, or none that the route itself will take."""
    try:
        return UUID(connection.path_params[name])
    except (KeyError, ValueError):
        return None


async def admit_body(scope: MutableMapping[str, Any]) -> bool:
    """Look at who calls before anything of a body is read; return whether the route asks for it at all.

    FastAPI parses bodies before it calls dependencies. What the caller may do is still decided by `require_caller`.

    Raises
    ------
    Unauthenticated
        The route wants a caller, and it is not known who calls.
    TooMany
        There were too many calls.
    """
    route = scope.get("route")
    if not (isinstance(route, APIRoute) and _asks_for_caller(route)):
        return False
    connection = HTTPConnection(scope)
    presented = bearer(connection.headers.get("authorization"))
    connection.state.caller = await Standing(connection, presented=presented).known()
    return True


def made_for_caller(make: Callable[[Gateway, Principal], T]) -> Any:
    """Return the dependency on what is made of the process's parts for a caller who may call the route."""

    async def made(connection: HTTPConnection) -> T:
        caller = await require_caller(connection)
        return make(_gateway(connection), caller)

    return Depends(Bearer(made))


def service_of(service: Callable[[ProcessContext, Principal], T]) -> Any:
    """Return the dependency on a service that works for a caller."""
    return made_for_caller(lambda gateway, caller: service(gateway.context, caller))


async def _standing(connection: HTTPConnection) -> Standing:
    await require_caller(connection)
    return connection.state.standing


Caller = Annotated[Principal, Depends(Bearer(require_caller))]
StandingOf = Annotated[Standing, Depends(Bearer(_standing))]
Sessions = Annotated[SessionService, service_of(SessionService)]
Credentials = Annotated[CredentialService, service_of(CredentialService)]
History = Annotated[HistoryService, service_of(HistoryService)]
Search = Annotated[SearchService, service_of(SearchService)]
Artifacts = Annotated[ArtifactService, service_of(ArtifactService)]
Uploads = Annotated[UploadService, service_of(UploadService)]
Executions = Annotated[ExecutionService, service_of(ExecutionService)]
Notebooks = Annotated[NotebookService, service_of(NotebookService)]
Suspensions = Annotated[SuspensionService, service_of(SuspensionService)]
Audit = Annotated[AuditService, service_of(AuditService)]
Jobs = Annotated[JobService, service_of(JobService)]
Usage = Annotated[UsageService, service_of(UsageService)]
Quotas = Annotated[QuotaService, service_of(QuotaService)]
Users = Annotated[UserService, service_of(UserService)]
Teams = Annotated[TeamService, service_of(TeamService)]
SharingOf = Annotated[SessionSharing, service_of(SessionSharing)]
McpServers = Annotated[McpServerService, service_of(McpServerService)]
ProviderKeys = Annotated[ProviderKeyService, service_of(ProviderKeyService)]
Agents = Annotated[AgentService, service_of(AgentService)]
Chat = Annotated[
    ChatService, made_for_caller(lambda gateway, caller: ChatService(gateway.context, caller, gateway.supervisor))
]
Config = Annotated[
    ConfigService, made_for_caller(lambda gateway, caller: ConfigService(gateway.context, caller, gateway.models))
]

IdempotencyKey = Annotated[
    str | None,
    Header(
        min_length=1,
        max_length=200,
        pattern=r"^[\x20-\x7e]+$",
        description="Name of this request, made by the caller; sent again within a day it gets the same answer, and "
        "nothing is done twice.",
    ),
]


async def _seen(
    if_match: Annotated[
        str | None,
        Header(description="The `ETag` of what is changed; 412 when it is not as it was when that was answered."),
    ] = None,
) -> SeenBy:
    return SeenBy(if_match)


Seen = Annotated[SeenBy, Depends(_seen)]


async def _effect(request: Request) -> Effect:
    return getattr(request.state, "effect", None) or Effect(new_id())


EffectOf = Annotated[Effect, Depends(_effect)]

Cursor = Annotated[
    str | None, Query(max_length=MAX_CURSOR, description="The `next_cursor` of the page before; opaque.")
]
Offset = Annotated[
    int, Query(ge=0, le=1_000_000, description="Items to skip; a cursor does not slow down and misses nothing.")
]


async def require_active(sessions: SessionService, session_id: UUID) -> None:
    """Raise when the session is not there, or is archived and so takes nothing more."""
    if (await sessions.get(session_id)).status != "active":
        raise Conflict("the session is archived; it can be read and not changed", code="archived")
