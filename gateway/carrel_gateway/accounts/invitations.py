"""Invitations into a tenant: an administrator names an address and a role, and whoever reads the mail is in.

Whoever has an account joins with it; whoever has none makes one. Nobody gets a login by a mail alone. An invitation is
a row of the tenant's, good once and for a week; its link holds no more than which one it is.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

import structlog
from sqlalchemy import insert, select, update
from sqlalchemy.exc import IntegrityError

from carrel_gateway.accounts import repository, texts
from carrel_gateway.accounts.links import INVITE_DAYS, Invite, Links, used_up
from carrel_gateway.accounts.parts import MAIL_TO, Parts
from carrel_gateway.accounts.passwords import require_form
from carrel_gateway.accounts.repository import Account
from carrel_gateway.audit.service import Action, AuditService
from carrel_gateway.context import Principal
from carrel_gateway.errors import Conflict, InvalidInput, PermissionDenied
from carrel_gateway.identity.rights import Right, Role
from carrel_gateway.identity.tables import one_time_tokens
from carrel_gateway.people.service import require_covering, require_now
from carrel_gateway.storage.database import Transaction
from carrel_gateway.storage.ids import new_id

PURPOSE: Final = "invite"
_SECONDS: Final = INVITE_DAYS * 86_400.0

_log = structlog.get_logger(__name__)


class InvitationService:
    """Invitations of one installation."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._database = parts.context.database
        self._links = Links(parts.context.secrets, parts.context.settings)

    async def invite(self, principal: Principal, email: str, role: Role) -> None:
        """Send an invitation into the principal's tenant; what comes of it does not tell who has an account.

        Raises
        ------
        PermissionDenied
            They may not invite, or not give that role.
        TooMany
            The address got too many mails.
        """
        principal.require(Right.PEOPLE_ADMIN)
        await self._parts.limit(MAIL_TO, email)
        invite = Invite(principal.tenant_id, new_id())
        link = self._links.invite(invite)
        async with self._database.transaction(principal.tenant_id) as tx:
            require_covering(await require_now(tx, principal, Right.PEOPLE_ADMIN), role)
            await tx.connection.execute(
                insert(one_time_tokens).values(
                    tenant_id=tx.tenant_id,
                    id=invite.id,
                    user_id=principal.user_id,
                    purpose=PURPOSE,
                    digest=hashlib.sha256(link.encode()).hexdigest(),
                    detail={"email": email, "role": role.value},
                    created_at=tx.dialect.now(),
                    expires_at=tx.dialect.later(_SECONDS),
                )
            )
            await AuditService(self._parts.context, principal).record(
                tx, Action.USER_INVITED, invite.id, role=role.value
            )
        self._parts.mailer.post(texts.invite(email, link, INVITE_DAYS))

    async def accept(self, token: str, *, name: str | None, password: str | None) -> UUID:
        """Let whoever got the mail into the tenant, and return its id.

        Raises
        ------
        InvalidInput
            The link or the password cannot be used; or there is no account for the address yet, and name and password
            are missing (`name_and_password_needed`).
        Conflict
            An account was made in this moment.
        """
        invite = self._links.read_invite(token)
        async with self._database.transaction(invite.tenant, write=False) as tx:
            detail = await _open(tx, invite.id)
        email, role = detail["email"], Role(detail["role"])
        async with self._database.login_transaction() as connection:
            account = await repository.by_email(connection, email)
        if account:
            await self._join(invite, account, role)
        elif name is None or password is None:
            raise InvalidInput(
                "there is no account for this address yet; send a name and a password to make one",
                code="name_and_password_needed",
            )
        else:
            require_form(password)
            await self._make(invite, email, role, name=name, hashed=await self._parts.passwords.hash(password))
        return invite.tenant

    async def _join(self, invite: Invite, account: Account, role: Role) -> None:
        if account.disabled_at is not None:
            raise used_up()
        async with self._database.login_transaction() as connection:
            await repository.join(connection, account.id, invite.tenant)
        async with self._database.transaction(invite.tenant) as tx:
            await _use(tx, invite.id, role)
            if await repository.member(tx, account.id) is None:  # who is disabled here stays so
                name = (account.email or "").partition("@")[0]
                await repository.add_member(tx, account.id, name=name, email=account.email, role=role)
        _log.info("invitation accepted", tenant=str(invite.tenant), user=str(account.id))

    async def _make(self, invite: Invite, email: str, role: Role, *, name: str, hashed: str) -> None:
        now = datetime.now(UTC)
        account = Account(new_id(), email, hashed, None, None, (invite.tenant,), now, None, now)
        async with self._database.transaction(invite.tenant) as tx:
            await _use(tx, invite.id, role)
            await repository.add_member(tx, account.id, name=name, email=email, role=role)
        try:
            async with self._database.login_transaction() as connection:
                await repository.add(connection, account)
        except IntegrityError as error:
            async with self._database.transaction(invite.tenant) as tx:
                await repository.remove_member(tx, account.id)
                await _mark(tx, invite.id, used=False)
            raise Conflict("an account was made for this address in this moment; open the link again") from error
        _log.info("invitation accepted", tenant=str(invite.tenant), user=str(account.id))


async def _open(tx: Transaction, invitation_id: UUID) -> dict[str, Any]:
    query = select(one_time_tokens.c.detail).where(
        one_time_tokens.c.tenant_id == tx.tenant_id,
        one_time_tokens.c.id == invitation_id,
        one_time_tokens.c.purpose == PURPOSE,
        one_time_tokens.c.used_at.is_(None),
        one_time_tokens.c.expires_at > tx.dialect.now(),
    )
    detail = await tx.connection.scalar(query)
    if detail is None:
        raise used_up()
    return detail


async def _use(tx: Transaction, invitation_id: UUID, role: Role) -> None:
    """Note that an invitation was accepted: once, and only as long as whoever sent it could send it again.

    Otherwise an administrator could invite an address of their own, to come back by it after they have been demoted.
    """
    inviter = Principal(tx.tenant_id, await _mark(tx, invitation_id, used=True))
    try:
        require_covering(await require_now(tx, inviter, Right.PEOPLE_ADMIN), role)
    except PermissionDenied as error:
        raise used_up() from error


async def _mark(tx: Transaction, invitation_id: UUID, *, used: bool) -> UUID:
    """Change whether an invitation was accepted, and return who sent it; of two at the same time one is refused."""
    is_open = one_time_tokens.c.used_at.is_(None) if used else one_time_tokens.c.used_at.is_not(None)
    statement = (
        update(one_time_tokens)
        .where(
            one_time_tokens.c.tenant_id == tx.tenant_id,
            one_time_tokens.c.id == invitation_id,
            one_time_tokens.c.purpose == PURPOSE,
            is_open,
        )
        .values(used_at=tx.dialect.now() if used else None)
        .returning(one_time_tokens.c.user_id)
    )
    sender: UUID | None = await tx.connection.scalar(statement)
    if sender is None:
        raise used_up()
    return sender
