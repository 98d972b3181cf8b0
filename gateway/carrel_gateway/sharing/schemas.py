"""Bodies that say what is shared."""

from __future__ import annotations

from datetime import datetime
from typing import Literal
from uuid import UUID

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


class TeamShareList(ReplyBody):
    """All teams that something is shared with."""

    items: list[TeamShareOut]
