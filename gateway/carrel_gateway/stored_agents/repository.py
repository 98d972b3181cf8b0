"""Queries of stored agents."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import delete, insert, or_, select, update

from carrel_gateway.sharing.service import AGENTS, Level
from carrel_gateway.storage.database import Transaction
from carrel_gateway.stored_agents.tables import agents


@dataclass(frozen=True, slots=True)
class Agent:
    """A stored configuration."""

    id: UUID
    owner_id: UUID
    name: str
    description: str
    model: str
    config: dict[str, Any]
    version: int
    created_at: datetime
    updated_at: datetime


async def add(tx: Transaction, agent: Agent) -> None:
    """Insert an agent."""
    values = {name: getattr(agent, name) for name in Agent.__slots__}
    await tx.connection.execute(insert(agents).values(tenant_id=tx.tenant_id, **values))


async def lock(tx: Transaction, agent_id: UUID) -> None:
    """Have others who would change the agent wait until the transaction ends."""
    query = select(agents.c.id).where(agents.c.tenant_id == tx.tenant_id, agents.c.id == agent_id)
    await tx.connection.execute(query.with_for_update())


async def find(tx: Transaction, agent_id: UUID, viewer: UUID) -> tuple[Agent, Level] | None:
    """Return an agent, and what the viewer may do with it by teams."""
    levels = AGENTS.levels(tx.tenant_id, viewer)
    query = (
        select(agents, levels.c.level)
        .select_from(agents.outerjoin(levels, levels.c.thing == agents.c.id))
        .where(agents.c.tenant_id == tx.tenant_id, agents.c.id == agent_id)
    )
    row = (await tx.connection.execute(query)).mappings().first()
    return (_agent(row), Level(row["level"] or 0)) if row else None


async def page(tx: Transaction, viewer: UUID, *, everybodys: bool, before: UUID | None, limit: int) -> list[Agent]:
    """Return the agents that the viewer sees, newest first."""
    levels = AGENTS.levels(tx.tenant_id, viewer)
    query = (
        select(agents)
        .select_from(agents.outerjoin(levels, levels.c.thing == agents.c.id))
        .where(agents.c.tenant_id == tx.tenant_id)
    )
    if not everybodys:
        query = query.where(or_(agents.c.owner_id == viewer, levels.c.level.is_not(None)))
    if before is not None:
        query = query.where(agents.c.id < before)
    rows = (await tx.connection.execute(query.order_by(agents.c.id.desc()).limit(limit))).mappings()
    return [_agent(row) for row in rows]


async def change(tx: Transaction, agent_id: UUID, version: int | None, changes: dict[str, Any]) -> bool:
    """Change columns and count the version on; false when it is not of this version any more."""
    statement = (
        update(agents)
        .where(agents.c.tenant_id == tx.tenant_id, agents.c.id == agent_id)
        .values(**changes, version=agents.c.version + 1, updated_at=datetime.now(UTC))
        .returning(agents.c.id)
    )
    if version is not None:
        statement = statement.where(agents.c.version == version)
    return await tx.connection.scalar(statement) is not None


async def remove(tx: Transaction, agent_id: UUID) -> None:
    """Delete an agent, and with it its shares."""
    await tx.connection.execute(delete(agents).where(agents.c.tenant_id == tx.tenant_id, agents.c.id == agent_id))


def _agent(row: Any) -> Agent:
    return Agent(**{name: row[name] for name in Agent.__slots__})
