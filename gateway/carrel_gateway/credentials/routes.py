"""`/api/keys` and `/api/tickets`."""

from __future__ import annotations

from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Query, Response, status

from carrel_gateway.credentials.schemas import KeyCreate, KeyList, KeyMade, KeyOut, KeysRevoked, TicketOut
from carrel_gateway.dependencies import Credentials, Cursor, Seen
from carrel_gateway.idempotency.routes import IdempotentRoute
from carrel_gateway.web.conditional import tagged

router = APIRouter(route_class=IdempotentRoute, tags=["keys"])


@router.get("/api/keys")
async def list_keys(
    credentials: Credentials,
    user_id: Annotated[UUID | None, Query(description="Whose; an administrator's question.")] = None,
    kind: Annotated[
        Literal["service"] | None, Query(description="Those of all service accounts; an administrator's question, too.")
    ] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    cursor: Cursor = None,
) -> KeyList:
    """List keys, newest first, also those that were revoked or have expired."""
    if kind and user_id is None:
        return KeyList.model_validate(await credentials.service_keys(limit=limit, cursor=cursor))
    return KeyList.model_validate(await credentials.keys(user_id, limit=limit, cursor=cursor))


@router.post("/api/keys", status_code=status.HTTP_201_CREATED)
async def make_key(body: KeyCreate, credentials: Credentials) -> KeyMade:
    """Make a key, which is shown in this answer alone."""
    made = await credentials.make_key(body.name, scopes=body.scopes, expires_at=body.expires_at, user_id=body.user_id)
    return KeyMade(key=made.key, **KeyOut.model_validate(made.row).model_dump())


@router.delete("/api/keys")
async def revoke_keys(
    credentials: Credentials,
    user_id: Annotated[UUID | None, Query(description="Whose; for administrators.")] = None,
) -> KeysRevoked:
    """Revoke all keys of one's own in this tenant, or those of somebody else, but the one of this request."""
    return KeysRevoked(revoked=await credentials.revoke_all(user_id))


@router.get("/api/keys/{key_id}")
async def get_key(key_id: UUID, credentials: Credentials, response: Response) -> KeyOut:
    """Return a key of one's own or, for administrators, of somebody, without what it is."""
    return tagged(response, KeyOut.model_validate(await credentials.key(key_id)))


@router.delete("/api/keys/{key_id}", status_code=status.HTTP_204_NO_CONTENT)
async def revoke_key(key_id: UUID, credentials: Credentials, seen: Seen) -> Response:
    """Revoke a key: it is of no use at once, and what it has open is closed."""
    await credentials.revoke_key(key_id, seen.on(KeyOut.model_validate))
    return Response(status_code=status.HTTP_204_NO_CONTENT)


@router.post("/api/tickets", status_code=status.HTTP_201_CREATED)
async def make_ticket(credentials: Credentials) -> TicketOut:
    """Make a ticket for one WebSocket, for browsers: they cannot send a header with it. It lives 30 seconds."""
    return TicketOut.model_validate(await credentials.make_ticket())
