"""Bodies of `/api/auth` and `/api/me`."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from pydantic import Field, StringConstraints

from carrel_gateway.accounts.addresses import Address
from carrel_gateway.accounts.links import MAX_LENGTH
from carrel_gateway.identity.rights import Right, Role
from carrel_gateway.web.fields import ReplyBody, RequestBody, Title

Password = Annotated[str, StringConstraints(max_length=4096)]
"""Its form is checked where one is chosen; one that is only compared is wrong or right."""
LinkToken = Annotated[str, StringConstraints(min_length=1, max_length=MAX_LENGTH)]


class AddressBody(RequestBody):
    email: Address


class SetUp(RequestBody):
    token: LinkToken
    """What is behind `#setup=` in the link of the mail."""
    name: Title
    password: Password
    cookie: bool = False
    """Whether the refresh token comes as a cookie, for browsers."""


class LogIn(RequestBody):
    email: Address
    password: Password
    tenant_id: UUID | None = None
    """One of the account's tenants; its home when left out."""
    cookie: bool = False
    """Whether the refresh token comes as a cookie, for browsers."""


class Refresh(RequestBody):
    refresh_token: Annotated[str, StringConstraints(max_length=512)] | None = None
    """Left out by browsers, which send it as a cookie."""


class Switch(RequestBody):
    tenant_id: UUID
    cookie: bool = False
    """Whether the refresh token comes as a cookie, for browsers."""


class Reset(RequestBody):
    token: LinkToken
    """What is behind `#reset=` in the link of the mail."""
    password: Password


class Invitation(RequestBody):
    email: Address
    role: Role = Role.USER


class InvitationOut(ReplyBody):
    """One that nobody has accepted yet."""

    id: UUID
    email: str
    role: Role
    invited_by: UUID
    """Id of the user; the invitation is good only while they could send it again."""
    created_at: datetime
    expires_at: datetime


class InvitationList(ReplyBody):
    """A page, newest first; `next_cursor` is absent on the last one."""

    items: list[InvitationOut]
    next_cursor: str | None = None


class Accept(RequestBody):
    token: LinkToken
    """What is behind `#invite=` in the link of the mail."""
    name: Title | None = None
    """With the password, where the address has no account yet."""
    password: Password | None = None


class AcceptedInvitation(ReplyBody):
    tenant_id: UUID


class ChangePassword(RequestBody):
    current: Password
    new: Password


class TokensOut(ReplyBody):
    """What a login gets."""

    access_token: str
    token_type: str = "Bearer"  # noqa: S105 - what RFC 6750 calls it
    expires_at: datetime
    """Of the access token."""
    refresh_token: str | None
    """None where it is a cookie."""
    login_id: UUID
    tenant_id: UUID
    user_id: UUID


class LoginOut(ReplyBody):
    id: UUID
    client: str
    created_at: datetime
    refreshed_at: datetime
    expires_at: datetime
    current: bool
    """Whether it is the one of this request."""


class LoginList(ReplyBody):
    items: list[LoginOut]


class Accepted(ReplyBody):
    """The same for everybody: whether there is such an account is nobody's business."""

    message: str = "if that is possible, a mail is on its way"


class TenantOut(ReplyBody):
    id: UUID
    name: str
    role: Role


class ProfileOut(ReplyBody):
    user_id: UUID
    name: str
    email: str | None
    kind: str
    role: Role
    rights: list[Right]
    """What this key or login may."""
    tenant_id: UUID
    tenants: list[TenantOut]
    created_at: datetime


class ProfileUpdate(RequestBody):
    name: Title


class Preferences(RequestBody):
    """What programs in front of Carrel keep for a person: any JSON of at most 16 KiB."""

    preferences: dict[Annotated[str, StringConstraints(max_length=100)], Any] = Field(max_length=200)
