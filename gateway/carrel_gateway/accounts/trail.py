"""What the audit logs of tenants are told of logins, passwords and who joins.

An account is above all tenants, an audit log is one tenant's: each is told of what concerns its own user. There are no
addresses in it, neither of mail nor of machines, for nothing in it is ever deleted; of whoever is unknown here nothing
is told, because it concerns no tenant.
"""

from __future__ import annotations

from typing import Any, Final
from uuid import UUID

from carrel_gateway.accounts import repository
from carrel_gateway.accounts.parts import Limit, Parts
from carrel_gateway.accounts.repository import Account
from carrel_gateway.audit.service import Action, AuditService
from carrel_gateway.context import Principal, ProcessContext
from carrel_gateway.errors import TooMany
from carrel_gateway.identity.rights import Role
from carrel_gateway.storage.database import Transaction

REFUSALS: Final = Limit("refusals", 10, 300)
"""So many of one account are told one by one: whoever guesses must not fill a log that is kept for ever."""


async def record(
    context: ProcessContext,
    tx: Transaction,
    user_id: UUID,
    action: Action,
    target: UUID,
    /,
    *,
    credential: UUID | None = None,
    **detail: Any,
) -> None:
    """Tell the transaction's tenant what one of its users did; the last thing in the transaction."""
    by = Principal(tx.tenant_id, user_id, credential_id=credential)
    await AuditService(context, by).record(tx, action, target, **detail)


async def join(context: ProcessContext, tx: Transaction, account: Account, *, name: str, role: Role, by: str) -> None:
    """Make a person a user of the transaction's tenant."""
    await repository.add_member(tx, account.id, name=name, email=account.email, role=role)
    await record(context, tx, account.id, Action.USER_JOINED, account.id, role=role.value, by=by)


async def undo_join(context: ProcessContext, tx: Transaction, user_id: UUID) -> None:
    """Take out of the tenant who joined it a moment ago, and has no account after all."""
    await repository.remove_member(tx, user_id)
    await record(context, tx, user_id, Action.USER_REMOVED, user_id)


def tell_refused(parts: Parts, account: Account, *, method: str, reason: str, tenant_id: UUID | None = None) -> None:
    """Tell that somebody was not let in as this account, in the tenant that was asked for or else its home.

    After the answer: how long that takes must not say whether there is such an account.
    """
    concerned = tenant_id if tenant_id in account.tenants else next(iter(account.tenants), None)
    if concerned is not None:
        parts.spawn(_record_refused(parts, account.id, concerned, method, reason))


async def _record_refused(parts: Parts, account_id: UUID, tenant_id: UUID, method: str, reason: str) -> None:
    try:
        await parts.limit(REFUSALS, str(account_id))
    except TooMany:
        return
    async with parts.context.database.transaction(tenant_id) as tx:
        await record(parts.context, tx, account_id, Action.LOGIN_REFUSED, account_id, method=method, reason=reason)
