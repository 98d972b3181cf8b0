"""Bodies of the routes of quotas."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from pydantic import Field

from carrel_gateway.quotas.service import Resource, Scope
from carrel_gateway.web.fields import ReplyBody, RequestBody

MAX_LIMIT = 2**53 - 1


class QuotaIn(RequestBody):
    """A limit; null takes it away."""

    scope: Scope
    scope_id: UUID | None = None
    """A team or a user; without one the limit is the tenant's, or holds for each user who has none of their own."""
    resource: Resource
    """`sessions` that are not archived, or `executions` in a day of UTC."""
    limit: Annotated[int, Field(ge=0, le=MAX_LIMIT)] | None


class QuotaOut(ReplyBody):
    """A limit, and how much of it is used."""

    scope: Scope
    scope_id: UUID | None
    resource: Resource
    limit: int
    used: int | None
    """Null of a limit of each user's, which each uses for themselves."""


class QuotaList(ReplyBody):
    """The limits that hold, or that there are."""

    items: list[QuotaOut]
