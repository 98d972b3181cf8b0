"""Whether a credential is in force, and what its owner may by it: pure, but for the looks that begin with an id.

Behind a service account stands whoever made the key that it is used by: it may no more than that person. Where nobody
knows who that was, or it was a service account again, it may no more than a `user`, and so gives nobody any rights.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from carrel_gateway.context import Principal
from carrel_gateway.errors import Unauthenticated
from carrel_gateway.identity import lookups
from carrel_gateway.identity.lookups import Found, Maker
from carrel_gateway.identity.rights import Right, Role, rights_of
from carrel_gateway.storage.database import Transaction


@dataclass(frozen=True, slots=True)
class Now:
    """What a principal may at this moment."""

    rights: frozenset[Right]
    is_whole: bool
    """Whether that is all that its role has, so that it grows with the role."""
    ends_at: datetime | None
    """Of a key: when it expires."""
    maker_id: UUID | None
    """The person behind it: whoever made the key, or whose it is; none where that is not known."""


def require(found: Found | None) -> Found:
    """Return a credential that is in force.

    Raises
    ------
    Unauthenticated
        It is not; the message says why.
    """
    if found is None:
        raise not_known()
    if found.revoked_at is not None:
        raise Unauthenticated("that key or login was revoked; use another one", code="revoked")
    if found.expires_at is not None and found.expires_at <= found.now:
        raise Unauthenticated("that key or login has expired; make a new one", code="expired")
    if found.maker and (found.maker.role is None or found.maker.disabled_at is not None):
        raise Unauthenticated(
            "whoever made that key is disabled; ask an administrator of the tenant for a new one", code="disabled"
        )
    if found.disabled_at is not None:
        raise Unauthenticated("that account is disabled; ask an administrator of the tenant", code="disabled")
    return found


def principal_of(tenant_id: UUID, found: Found) -> Principal:
    """Return who the credential stands for."""
    role = Role(found.role)
    rights = _rights(found.role, found.kind, found.maker)
    if found.scopes is not None:
        rights &= {right for right in Right if right.value in found.scopes}
    return Principal(tenant_id, found.user_id, role, rights, found.credential_id, found.team_ids)


async def now(tx: Transaction, principal: Principal) -> Now:
    """Return what a principal may at this moment, which may be less than when it was verified.

    Raises
    ------
    Unauthenticated
        Its credential is not in force any more.
    """
    if principal.credential_id is None:
        return Now(principal.rights, is_whole=True, ends_at=None, maker_id=principal.user_id)
    found = require(await tx.run(lookups.find_credential(tx.dialect, tx.tenant_id, principal.credential_id)))
    rights = principal_of(tx.tenant_id, found).rights & principal.rights
    maker_id = found.maker.user_id if found.maker else found.user_id
    if _is_nobodys(found.kind, found.maker):
        maker_id = None
    return Now(rights, found.scopes is None, found.expires_at if found.is_key else None, maker_id)


async def in_person(tx: Transaction, user_id: UUID, maker_id: UUID | None) -> frozenset[Right]:
    """Return what a user may at this moment, whatever the credential.

    Parameters
    ----------
    maker_id
        The person who stood behind the user, as in `Now`, when they did what the question is about.
    """
    found = await lookups.find_users(tx, [user_id] if maker_id is None else [user_id, maker_id])
    user, maker = found.get(user_id), None
    if user is None or user.disabled_at is not None:
        return frozenset()
    if maker_id is not None and maker_id != user_id:
        by = found.get(maker_id)
        if by is None or by.disabled_at is not None:
            return frozenset()
        maker = Maker(maker_id, by.role, None, by.kind)
    return _rights(user.role, user.kind, maker)


def _rights(role: str, kind: str, maker: Maker | None) -> frozenset[Right]:
    rights = rights_of(Role(role))
    if maker and maker.role:
        rights &= rights_of(Role(maker.role))
    return rights & rights_of(Role.USER) if _is_nobodys(kind, maker) else rights


def _is_nobodys(kind: str, maker: Maker | None) -> bool:
    """Return whether it is a service account behind which no person is known."""
    return kind == "service" and (maker is None or maker.kind == "service")


def not_known() -> Unauthenticated:
    """Return the refusal of what nobody here has given out."""
    return Unauthenticated("that API key is not known here", code="wrong_key")
