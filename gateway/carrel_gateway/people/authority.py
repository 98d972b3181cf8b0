"""Who may decide over whom, as it is at this moment: within a transaction, after the lock that makes it stay so.

A principal may be half a minute old, and of a key with fewer rights than its owner has. So the caller's own row and
credential are read again, and what counts is what both allow. Nobody gives more than that: a role is given only by
whoever has all of its rights just now, in person and by the credential that is used.
"""

from __future__ import annotations

from uuid import UUID

from carrel_gateway.context import Principal
from carrel_gateway.errors import Conflict, PermissionDenied
from carrel_gateway.identity import standing
from carrel_gateway.identity.rights import Right, Role, rights_of
from carrel_gateway.people import repository
from carrel_gateway.people.repository import Team
from carrel_gateway.storage.database import Transaction


class LastAdministrator(Conflict):
    """Afterwards nobody could administer the tenant or the team."""

    code = "last_administrator"


async def rights_now(tx: Transaction, principal: Principal) -> frozenset[Right]:
    """Return what the caller may at this moment.

    Raises
    ------
    PermissionDenied
        The caller is disabled, or not there any more.
    Unauthenticated
        The credential that is used is not in force any more.
    """
    now = await standing.now(tx, principal)
    user = await repository.find_user(tx, principal.user_id)
    if user is None or user.disabled_at is not None:
        raise PermissionDenied("your account is disabled; ask an administrator of your tenant")
    return now.rights & rights_of(user.role)


async def require_now(tx: Transaction, principal: Principal, right: Right) -> frozenset[Right]:
    """Return the caller's rights, of which this is one.

    Raises
    ------
    PermissionDenied
        It is missing at this moment.
    """
    held = await rights_now(tx, principal)
    Principal(principal.tenant_id, principal.user_id, rights=held).require(right)
    return held


def require_covering(held: frozenset[Right], role: Role) -> None:
    """Check that somebody with these rights may give a role in the tenant.

    Raises
    ------
    PermissionDenied
        The role has rights that the caller, or the caller's key, does not have.
    """
    if not rights_of(role) <= held:
        raise PermissionDenied(
            f"you cannot give the role `{role.value}`: it has rights that you, or the key that you use, do not have",
            role=role.value,
        )


async def require_lead(tx: Transaction, principal: Principal, team: Team) -> None:
    """Check that the caller leads a team: as its administrator, or as one of the tenant.

    Raises
    ------
    PermissionDenied
        Neither.
    """
    held = await require_now(tx, principal, Right.TEAMS_WRITE)
    if team.role is not Role.ADMIN and Right.PEOPLE_ADMIN not in held:
        raise PermissionDenied("only administrators of the team, or of the tenant, can do that")


async def require_other_administrator(tx: Transaction, user_id: UUID) -> None:
    """Check that the tenant has an administrator beside this one.

    Raises
    ------
    LastAdministrator
        It has none.
    """
    if set(await repository.administrators(tx)) <= {user_id}:
        raise LastAdministrator("the tenant would have no administrator; make somebody else one first")


async def require_other_leader(tx: Transaction, team_id: UUID, user_id: UUID) -> None:
    """Check that the team has an administrator beside this one.

    Raises
    ------
    LastAdministrator
        It has none.
    """
    if not (await repository.other_leaders(tx, [team_id], user_id)).get(team_id):
        raise LastAdministrator("the team would have no administrator; make somebody else one first, or delete it")
