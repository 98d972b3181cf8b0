"""The peer of an authenticated read: the same route as most would write it, with FastAPI and SQLAlchemy's ORM.

    python -m tests.load.orm_peer PORT DATABASE_URL

It reads the rows that Carrel has written, on asyncpg, in a transaction of the same role and tenant; so row-level
security holds here too. Like Carrel it remembers for half a minute who a key is. Unlike Carrel it counts no calls,
looks at nobody's rights, and writes no line for a request: what it leaves out is to its advantage.
"""

from __future__ import annotations

import sys
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated
from uuid import UUID

import uvicorn
from fastapi import Depends, FastAPI, Header, HTTPException, Query, Request
from pydantic import BaseModel, ConfigDict
from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase

from carrel_gateway.history.tables import messages
from carrel_gateway.identity.presented import Kind, digest_of, tenant_of
from carrel_gateway.identity.tables import api_keys, users
from carrel_gateway.sessions.tables import sessions

KEPT_SECONDS = 30.0
POOL = 5
BIND = text("SELECT set_config('role', 'carrel_app', true), set_config('app.tenant', :tenant_id, true)")


class Base(DeclarativeBase):
    """What the rows are mapped to."""


class ApiKey(Base):
    """A key."""

    __table__ = api_keys


class User(Base):
    """Whoever has it."""

    __table__ = users


class Session(Base):
    """What messages belong to."""

    __table__ = sessions


class Message(Base):
    """What is read."""

    __table__ = messages


class MessageOut(BaseModel):
    """A message, as Carrel shows it."""

    model_config = ConfigDict(from_attributes=True)

    id: UUID
    role: str
    content: str
    run_id: UUID | None
    artifact_ids: list[UUID]
    created_at: datetime


class MessageList(BaseModel):
    """A page."""

    items: list[MessageOut]
    next_cursor: str | None


@dataclass(frozen=True, slots=True)
class Caller:
    """Who a key is, and until when that is believed."""

    tenant_id: UUID
    user_id: UUID
    until: float


app = FastAPI()


@asynccontextmanager
async def transaction(request: Request, tenant_id: UUID) -> AsyncGenerator[AsyncSession]:
    """Work for one tenant."""
    async with request.app.state.sessions() as session, session.begin():
        await session.execute(BIND, {"tenant_id": str(tenant_id)})
        yield session


async def caller_of(request: Request, authorization: Annotated[str, Header()]) -> Caller:
    """Return who has the key."""
    presented = authorization.removeprefix("Bearer ")
    digest = digest_of(presented)
    known: dict[bytes, Caller] = request.app.state.known
    found = known.get(digest)
    if found is not None and found.until > time.monotonic():
        return found
    tenant_id = tenant_of(Kind.KEY, presented)
    if tenant_id is None:
        raise HTTPException(401)
    async with transaction(request, tenant_id) as session:
        query = (
            select(ApiKey, User)
            .join(User, (User.tenant_id == ApiKey.tenant_id) & (User.id == ApiKey.user_id))
            .where(ApiKey.tenant_id == tenant_id, ApiKey.digest == digest.hex())
        )
        row = (await session.execute(query)).one_or_none()
        if row is None or row.ApiKey.revoked_at or row.User.disabled_at or row.ApiKey.expires_at <= datetime.now(UTC):
            raise HTTPException(401)
        found = known[digest] = Caller(tenant_id, row.User.id, time.monotonic() + KEPT_SECONDS)
    return found


@app.get("/health")
async def health() -> dict[str, str]:
    """Say that it is there."""
    return {"status": "ok"}


@app.get("/api/sessions/{session_id}/messages")
async def read_messages(
    request: Request,
    session_id: UUID,
    caller: Annotated[Caller, Depends(caller_of)],
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
) -> MessageList:
    """Return the last messages, in order."""
    async with transaction(request, caller.tenant_id) as session:
        query = (
            select(Message)
            .where(
                Message.tenant_id == caller.tenant_id,
                Message.session_id == session_id,
                Message.superseded_seq.is_(None),
                select(Session.id)
                .where(Session.tenant_id == caller.tenant_id, Session.id == session_id, Session.status != "deleted")
                .exists(),
            )
            .order_by(Message.seq.desc())
            .limit(limit + 1)
        )
        found = (await session.scalars(query)).all()
    page = [MessageOut.model_validate(message) for message in reversed(found[:limit])]
    more = str(found[limit - 1].seq) if len(found) > limit else None
    return MessageList(items=page, next_cursor=more)


def main() -> None:
    """Serve on loopback."""
    port, url = sys.argv[1:]
    engine = create_async_engine(url.replace("postgresql://", "postgresql+asyncpg://"), pool_size=POOL, max_overflow=0)
    app.state.sessions = async_sessionmaker(engine, expire_on_commit=False)
    app.state.known = {}
    uvicorn.run(app, port=int(port), loop="uvloop", http="httptools", access_log=False, log_level="warning")


if __name__ == "__main__":
    main()
