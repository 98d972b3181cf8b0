"""Stored agents: kept by their owners, seen and changed by the teams that they are shared with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from carrel_gateway.audit.service import Action, AuditService
from carrel_gateway.context import Principal, ProcessContext
from carrel_gateway.errors import Conflict, NotFound, PermissionDenied
from carrel_gateway.identity.rights import Right
from carrel_gateway.sharing.service import AGENTS, Access, ExpectedShare, Level, TeamShare, no_share, require_team
from carrel_gateway.storage.database import Transaction
from carrel_gateway.storage.ids import new_id
from carrel_gateway.storage.paging import Cursors, Page
from carrel_gateway.stored_agents import repository
from carrel_gateway.stored_agents.repository import Agent

_CURSORS: Final = Cursors[UUID]("agents", UUID)


@dataclass(frozen=True, slots=True)
class SharedAgent:
    """An agent, and the teams that it is shared with."""

    agent: Agent
    shares: list[TeamShare]


class AgentService:
    """Stored agents of one tenant, as one caller may see and change them."""

    def __init__(self, context: ProcessContext, principal: Principal) -> None:
        self._database = context.database
        self._principal = principal
        self._audit = AuditService(context, principal)

    async def store(self, *, name: str, description: str, model: str, config: dict[str, Any]) -> SharedAgent:
        """Store a new agent of the caller's."""
        self._principal.require(Right.AGENTS_WRITE)
        now = datetime.now(UTC)
        agent = Agent(new_id(), self._principal.user_id, name, description, model, config, 1, now, now)
        async with self._database.transaction(self._principal.tenant_id) as tx:
            await repository.add(tx, agent)
            await self._audit.record(tx, Action.AGENT_STORED, agent.id, name=name, model=model)
            return await self._shared(tx, agent.id)

    async def list(self, *, limit: int = 50, cursor: str | None = None) -> Page[SharedAgent]:
        """Return the caller's agents and those of the caller's teams, newest first.

        Raises
        ------
        InvalidInput
            The cursor is not one that a page had.
        """
        self._principal.require(Right.AGENTS_READ)
        before = _CURSORS.read(cursor) if cursor else None
        async with self._database.transaction(self._principal.tenant_id, write=False) as tx:
            everybodys = self._principal.may(Right.TENANT_READ)
            found = await repository.page(
                tx, self._principal.user_id, everybodys=everybodys, before=before, limit=limit + 1
            )
            shares = await AGENTS.of(tx, [agent.id for agent in found])
        shared = [SharedAgent(agent, shares[agent.id]) for agent in found]
        return _CURSORS.page(shared, limit, lambda item: item.agent.id)

    async def get(self, agent_id: UUID) -> SharedAgent:
        """Return an agent.

        Raises
        ------
        NotFound
            There is no such agent.
        PermissionDenied
            It is another person's, and shared with no team of the caller's.
        """
        self._principal.require(Right.AGENTS_READ)
        async with self._database.transaction(self._principal.tenant_id, write=False) as tx:
            await self._require(tx, agent_id, Level.READ)
            return await self._shared(tx, agent_id)

    async def change(
        self,
        agent_id: UUID,
        changes: dict[str, Any],
        *,
        version: int | None = None,
        expected: Callable[[SharedAgent], None] | None = None,
    ) -> SharedAgent:
        """Change columns; sessions that began with the agent keep what they began with.

        Parameters
        ----------
        version
            That which the caller has seen; none changes any.
        expected
            Raises when the agent is not as the caller has seen it.

        Raises
        ------
        Conflict
            Somebody changed it since.
        """
        self._principal.require(Right.AGENTS_WRITE)
        async with self._database.transaction(self._principal.tenant_id) as tx:
            await repository.lock(tx, agent_id)
            await self._require(tx, agent_id, Level.WRITE)
            if expected:
                expected(await self._shared(tx, agent_id))
            if not changes:
                return await self._shared(tx, agent_id)
            if not await repository.change(tx, agent_id, version, changes):
                raise Conflict("somebody changed the agent since you read it; read it again", code="agent_changed")
            await self._audit.record(tx, Action.AGENT_CHANGED, agent_id, changed=sorted(changes))
            return await self._shared(tx, agent_id)

    async def delete(self, agent_id: UUID, expected: Callable[[SharedAgent], None] | None = None) -> None:
        """Delete an agent; its owner may, and administrators of the tenant.

        Parameters
        ----------
        expected
            Raises when the agent is not as the caller has seen it.
        """
        self._principal.require(Right.AGENTS_WRITE)
        async with self._database.transaction(self._principal.tenant_id) as tx:
            await repository.lock(tx, agent_id)
            agent = await self._require_own(tx, agent_id)
            if expected:
                expected(await self._shared(tx, agent_id))
            await repository.remove(tx, agent_id)
            await self._audit.record(tx, Action.AGENT_DELETED, agent_id, name=agent.name, owner=agent.owner_id)

    async def team(self, agent_id: UUID, team_id: UUID) -> TeamShare:
        """Return how an agent is shared with a team.

        Raises
        ------
        NotFound
            There is no such agent, or it is not shared with the team.
        """
        found = next((share for share in (await self.get(agent_id)).shares if share.team_id == team_id), None)
        if found is None:
            raise no_share()
        return found

    async def share(self, agent_id: UUID, team_id: UUID, access: Access, expected: ExpectedShare = None) -> SharedAgent:
        """Share an agent with a team, or share it otherwise.

        Parameters
        ----------
        expected
            Raises when the share, or that there is none, is not what the caller has seen.

        Raises
        ------
        NotFound
            There is no such agent or team.
        PermissionDenied
            It is another person's agent, or a team that the caller does not belong to.
        """
        self._principal.require(Right.AGENTS_WRITE)
        async with self._database.transaction(self._principal.tenant_id) as tx:
            await self._require_own(tx, agent_id)
            any_team = self._principal.may(Right.TENANT_ADMIN)
            await require_team(tx, team_id, self._principal.user_id, any_team=any_team)
            if expected:
                expected(await AGENTS.one(tx, agent_id, team_id, lock=True))
            await AGENTS.put(tx, agent_id, team_id, access)
            await self._audit.record(tx, Action.AGENT_SHARED, agent_id, team=team_id, access=access)
            return await self._shared(tx, agent_id)

    async def unshare(self, agent_id: UUID, team_id: UUID, expected: ExpectedShare = None) -> None:
        """Share an agent with a team no longer.

        Parameters
        ----------
        expected
            Raises when the share is not as the caller has seen it.

        Raises
        ------
        NotFound
            It is not shared with it.
        """
        self._principal.require(Right.AGENTS_WRITE)
        async with self._database.transaction(self._principal.tenant_id) as tx:
            await self._require_own(tx, agent_id)
            found = await AGENTS.one(tx, agent_id, team_id, lock=True)
            if found is None:
                raise no_share()
            if expected:
                expected(found)
            await AGENTS.remove(tx, agent_id, team_id)
            await self._audit.record(tx, Action.AGENT_UNSHARED, agent_id, team=team_id)

    async def _require(self, tx: Transaction, agent_id: UUID, wanted: Level) -> Agent:
        found = await repository.find(tx, agent_id, self._principal.user_id)
        if found is None:
            raise NotFound("there is no such agent", code="agent_not_found")
        agent, level = found
        whole = Right.TENANT_READ if wanted is Level.READ else Right.TENANT_ADMIN
        if agent.owner_id != self._principal.user_id and level < wanted and not self._principal.may(whole):
            raise PermissionDenied("that agent is another person's; ask its owner to share it with a team of yours")
        return agent

    async def _require_own(self, tx: Transaction, agent_id: UUID) -> Agent:
        agent = await self._require(tx, agent_id, Level.READ)
        if agent.owner_id != self._principal.user_id and not self._principal.may(Right.TENANT_ADMIN):
            raise PermissionDenied("only the owner of an agent, or an administrator of the tenant, can do that")
        return agent

    async def _shared(self, tx: Transaction, agent_id: UUID) -> SharedAgent:
        found = await repository.find(tx, agent_id, self._principal.user_id)
        assert found is not None  # noqa: S101  it was there in this transaction; this tells the type checker
        return SharedAgent(found[0], (await AGENTS.of(tx, [agent_id]))[agent_id])
