"""Queries of messages that wait for the end of the run that is going on.

Whoever adds one holds the active run, so that the run cannot end in between; whoever begins or withdraws one locks it
first and appends to the log after it. It starts no run.
"""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import delete, exists, func, insert, select, update

from carrel_gateway.history.service import QueuedMessage
from carrel_gateway.runs.tables import QUEUED, runs
from carrel_gateway.runs.tables import queued_messages as queued
from carrel_gateway.storage.database import Transaction


async def hold_active(tx: Transaction, session_id: UUID) -> bool:
    """Keep the session's active run from ending until the transaction does; false when none is going on."""
    query = select(runs.c.id).where(
        runs.c.tenant_id == tx.tenant_id, runs.c.session_id == session_id, runs.c.status == "running"
    )
    return await tx.connection.scalar(query.with_for_update(key_share=True)) is not None


async def is_known(tx: Transaction, run_id: UUID) -> bool:
    """Return whether a run of this id was started, or a message waited or waits for it."""
    started = exists().where(runs.c.tenant_id == tx.tenant_id, runs.c.id == run_id)
    waited = exists().where(queued.c.tenant_id == tx.tenant_id, queued.c.run_id == run_id)
    return bool(await tx.connection.scalar(select(started | waited)))


async def count(tx: Transaction, session_id: UUID) -> int:
    """Return how many messages wait in a session."""
    query = select(func.count()).where(
        queued.c.tenant_id == tx.tenant_id, queued.c.session_id == session_id, queued.c.withdrawn.is_(False)
    )
    return await tx.connection.scalar(query) or 0


async def add(tx: Transaction, session_id: UUID, message: QueuedMessage) -> None:
    """Have a message wait."""
    values = {
        "tenant_id": tx.tenant_id,
        "session_id": session_id,
        "run_id": message.run_id,
        "seq": message.seq,
        "message_id": message.id,
        "user_id": message.user_id,
        "content": message.content,
        "model": message.model,
        "withdrawn": False,
        "created_at": message.created_at,
    }
    await tx.connection.execute(insert(queued).values(**values))


async def hold(tx: Transaction, session_id: UUID) -> list[QueuedMessage]:
    """Return the messages that wait, in the order of their turn, and keep them from being withdrawn."""
    query = (
        select(*QUEUED)
        .where(queued.c.tenant_id == tx.tenant_id, queued.c.session_id == session_id, queued.c.withdrawn.is_(False))
        .order_by(queued.c.seq)
        .with_for_update()
    )
    return [QueuedMessage(*row) for row in await tx.connection.execute(query)]


async def find(tx: Transaction, session_id: UUID, run_id: UUID) -> QueuedMessage | None:
    """Return the message that waits to begin a run, or was withdrawn before it did."""
    query = select(*QUEUED).where(
        queued.c.tenant_id == tx.tenant_id, queued.c.session_id == session_id, queued.c.run_id == run_id
    )
    row = (await tx.connection.execute(query)).first()
    return QueuedMessage(*row) if row else None


async def remove(tx: Transaction, run_id: UUID) -> None:
    """Forget a message whose run begins."""
    await tx.connection.execute(delete(queued).where(queued.c.tenant_id == tx.tenant_id, queued.c.run_id == run_id))


async def withdraw(tx: Transaction, session_id: UUID, message_id: UUID) -> UUID | None:
    """Have a message wait no longer, and return the run that it would have begun; none when it does not wait."""
    statement = (
        update(queued)
        .where(
            queued.c.tenant_id == tx.tenant_id,
            queued.c.session_id == session_id,
            queued.c.message_id == message_id,
            queued.c.withdrawn.is_(False),
        )
        .values(withdrawn=True)
        .returning(queued.c.run_id)
    )
    return await tx.connection.scalar(statement)
