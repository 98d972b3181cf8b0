"""Bodies of the routes of users and teams."""

from __future__ import annotations

from datetime import datetime
from typing import Literal
from uuid import UUID

from carrel_gateway.identity.rights import Role
from carrel_gateway.web.fields import ReplyBody, RequestBody, Title


class UserOut(ReplyBody):
    """Somebody in the tenant, or a service account of it."""

    id: UUID
    name: str
    email: str | None
    kind: Literal["person", "service"]
    role: Role
    disabled_at: datetime | None
    created_at: datetime


class UserList(ReplyBody):
    """A page; `next_cursor` is absent on the last one."""

    items: list[UserOut]
    next_cursor: str | None = None


class ServiceCreate(RequestBody):
    """A new service account; people come by invitation."""

    kind: Literal["service"]
    name: Title
    role: Role = Role.USER


class UserUpdate(RequestBody):
    """What is named is changed, what is left out stays."""

    name: Title | None = None
    role: Role | None = None
    disabled: bool | None = None


class TeamIn(RequestBody):
    """A team's name, which no other one in the tenant has."""

    name: Title


class TeamOut(ReplyBody):
    """A team."""

    id: UUID
    name: str
    role: Role | None
    """What whoever asks is in it; none for an administrator of the tenant who is no member."""
    created_at: datetime


class TeamList(ReplyBody):
    """A page; `next_cursor` is absent on the last one."""

    items: list[TeamOut]
    next_cursor: str | None = None


class MemberOut(ReplyBody):
    """Somebody in a team."""

    user_id: UUID
    name: str
    email: str | None
    role: Role
    disabled_at: datetime | None
    created_at: datetime


class TeamDetail(TeamOut):
    """A team with its members."""

    members: list[MemberOut]


class MemberIn(RequestBody):
    """What somebody shall be in a team."""

    role: Role = Role.USER
