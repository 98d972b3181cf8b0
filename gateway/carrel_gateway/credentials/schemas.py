"""Bodies of the routes of keys and tickets."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from pydantic import AwareDatetime, Field

from carrel_gateway.identity.rights import Right
from carrel_gateway.web.fields import ReplyBody, RequestBody, Title


class KeyCreate(RequestBody):
    """A new key."""

    name: Title
    scopes: list[Right] | None = Field(default=None, max_length=len(Right))
    """What it may at most; all that its owner may where nothing is named."""
    expires_at: AwareDatetime | None = None
    user_id: UUID | None = None
    """A service account that it is for; one's own where nothing is named."""


class KeyOut(ReplyBody):
    """A key, without what it is."""

    id: UUID
    user_id: UUID
    maker_id: UUID | None
    """The person who made it. A service account's key may no more than they may now, and no more than a `user` where
    that is not known, as of some old ones."""
    name: str
    hint: str
    """Its last characters."""
    scopes: list[str] | None
    created_at: datetime
    expires_at: datetime | None
    used_at: datetime | None
    """When it was used last, to the minute."""
    revoked_at: datetime | None


class KeyMade(KeyOut):
    """A key that was just made."""

    key: str
    """What to present. It is shown now and never again."""


class KeyList(ReplyBody):
    """A page, newest first; `next_cursor` is absent on the last one."""

    items: list[KeyOut]
    next_cursor: str | None = None


class KeysRevoked(ReplyBody):
    """What was revoked."""

    revoked: int
    """How many keys."""


class TicketOut(ReplyBody):
    """What lets one WebSocket in."""

    ticket: str
    """Offer it as the subprotocol `carrel.ticket.<ticket>`, once, before it expires."""
    expires_at: datetime
