"""Invitations into a tenant: an administrator names an address and a role, and whoever reads the mail is in.

Whoever has an account joins with it; whoever has none makes one. Nobody gets a login by a mail alone. An invitation is
a row of the tenant's, good once and for a week unless it is taken back; its link holds no more than which one it is.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

import structlog
from sqlalchemy.exc import IntegrityError

from carrel_gateway.accounts import invites, repository, texts, trail
from carrel_gateway.accounts.invites import Pending, Sender
from carrel_gateway.accounts.links import INVITE_DAYS, Invite, Links, used_up
from carrel_gateway.accounts.parts import MAIL_TO, Parts
from carrel_gateway.accounts.passwords import require_form
from carrel_gateway.accounts.repository import Account
from carrel_gateway.audit.service import Action, AuditService
from carrel_gateway.context import Principal
from carrel_gateway.errors import Conflict, InvalidInput, NotFound, PermissionDenied
from carrel_gateway.identity import standing
from carrel_gateway.identity.rights import Right, Role
from carrel_gateway.people.service import require_covering, require_now
from carrel_gateway.storage.database import Transaction
from carrel_gateway.storage.ids import new_id
from carrel_gateway.storage.paging import Cursors, Page

_SECONDS: Final = INVITE_DAYS * 86_400.0
_CURSORS: Final = Cursors[UUID]("invitations", UUID)

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
            digest = hashlib.sha256(link.encode()).hexdigest()
            sender = Sender(principal.user_id, (await standing.now(tx, principal)).maker_id)
            await invites.add(tx, invite.id, sender, email=email, role=role, digest=digest, seconds=_SECONDS)
            await AuditService(self._parts.context, principal).record(
                tx, Action.USER_INVITED, invite.id, role=role.value
            )
        self._parts.mailer.post(texts.invite(email, link, INVITE_DAYS))

    async def list(self, principal: Principal, *, limit: int = 50, cursor: str | None = None) -> Page[Pending]:
        """Return the invitations into the principal's tenant that nobody has accepted yet, newest first.

        Raises
        ------
        PermissionDenied
            They may not invite.
        InvalidInput
            The cursor is not one that a page had.
        """
        principal.require(Right.PEOPLE_ADMIN)
        before = _CURSORS.read(cursor) if cursor else None
        async with self._database.transaction(principal.tenant_id, write=False) as tx:
            found = await invites.page(tx, before=before, limit=limit + 1)
        return _CURSORS.page(found, limit, lambda one: one.id)

    async def take_back(self, principal: Principal, invitation_id: UUID) -> None:
        """Have the link of an invitation do nothing any more.

        Raises
        ------
        PermissionDenied
            They may not invite.
        NotFound
            There is none of this id that could be accepted.
        """
        async with self._database.transaction(principal.tenant_id) as tx:
            await require_now(tx, principal, Right.PEOPLE_ADMIN)
            role = await invites.remove(tx, invitation_id)
            if role is None:
                raise NotFound(
                    "there is no such invitation that could be accepted; whoever has accepted it is one of the users",
                    code="invitation_not_found",
                )
            await AuditService(self._parts.context, principal).record(
                tx, Action.USER_UNINVITED, invitation_id, role=role.value
            )

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
            invitation = await invites.find(tx, invite.id)
        if invitation is None:
            raise used_up()
        email, role = invitation.email, invitation.role
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
                await trail.join(self._parts.context, tx, account, name=name, role=role, by="invitation")
        _log.info("invitation accepted", tenant=str(invite.tenant), user=str(account.id))

    async def _make(self, invite: Invite, email: str, role: Role, *, name: str, hashed: str) -> None:
        now = datetime.now(UTC)
        account = Account(new_id(), email, hashed, None, None, (invite.tenant,), now, None, now)
        async with self._database.transaction(invite.tenant) as tx:
            await _use(tx, invite.id, role)
            await trail.join(self._parts.context, tx, account, name=name, role=role, by="invitation")
        try:
            async with self._database.login_transaction() as connection:
                await repository.add(connection, account)
        except IntegrityError as error:
            async with self._database.transaction(invite.tenant) as tx:
                await invites.mark(tx, invite.id, used=False)
                await trail.undo_join(self._parts.context, tx, account.id)
            raise Conflict("an account was made for this address in this moment; open the link again") from error
        _log.info("invitation accepted", tenant=str(invite.tenant), user=str(account.id))


async def _use(tx: Transaction, invitation_id: UUID, role: Role) -> None:
    """Note that an invitation was accepted: once, and only as long as whoever sent it could send it again.

    Otherwise an administrator could invite an address of their own, to come back by it after they have been demoted;
    also by a key that they made for a service account, which stays what it is.
    """
    sender = await invites.mark(tx, invitation_id, used=True)
    if sender is None:
        raise used_up()
    try:
        held = await standing.in_person(tx, sender.user_id, sender.maker_id)
        Principal(tx.tenant_id, sender.user_id, rights=held).require(Right.PEOPLE_ADMIN)
        require_covering(held, role)
    except PermissionDenied as error:
        raise used_up() from error
