"""Whose sessions a principal may read: the one place that says it, for lists and searches over many sessions.

Everybody their own; whoever may read all of the tenant, all of them. Single sessions are `SessionService.get`'s.
"""

from __future__ import annotations

from uuid import UUID

from carrel_gateway.context import Principal
from carrel_gateway.identity.rights import Right


def only_owner(principal: Principal) -> UUID | None:
    """Return the owner to whose sessions a search is bound; none where all of the tenant's may be read."""
    return None if principal.may(Right.TENANT_READ) else principal.user_id
