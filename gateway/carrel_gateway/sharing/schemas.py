"""Bodies that say what is shared."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import Field

from carrel_gateway.web.conditional import tag_of
from carrel_gateway.web.fields import ReplyBody, RequestBody


class ShareIn(RequestBody):
    """What the members of a team may do with something."""

    access: Literal["read", "write"] = "read"


class TeamShareOut(ReplyBody):
    """Something is shared with a team."""

    team_id: UUID
    team_name: str
    access: Literal["read", "write"]
    created_at: datetime


class LinkIn(RequestBody):
    """For how long a link shows a session."""

    expires_in_seconds: Annotated[int, Field(ge=60, le=90 * 86_400)] = 7 * 86_400


class LinkOut(ReplyBody):
    """A link that shows a session to whoever has it."""

    id: UUID
    session_id: UUID
    user_id: UUID
    """Who made it; it shows nothing while that account is disabled."""
    created_at: datetime
    expires_at: datetime
    revoked_at: datetime | None


class LinkMade(LinkOut):
    """A new link, with its token."""

    token: str
    """Shown this once. Whoever has it reads the session below `/api/shared/{token}`."""


class LinkList(ReplyBody):
    """All links of a session, newest first."""

    items: list[LinkOut]


class SharedSession(ReplyBody):
    """What a link shows."""

    title: str
    created_at: datetime
    updated_at: datetime
    expires_at: datetime


class TeamShareList(ReplyBody):
    """All teams that something is shared with."""

    items: list[TeamShareOut]


def tag_of_share(shares: list[TeamShareOut], team_id: UUID) -> str:
    """Return the tag of the share with one team, among those of one thing."""
    return next(tag_of(share) for share in shares if share.team_id == team_id)
