"""Accounts: registered by mail, logged in to by password, given another password, and moved between tenants.

An answer never says whether an address has an account: who asks for mail always gets the same answer at once, and the
mail says the rest to whom it concerns; a wrong password and an unknown address are refused alike, after the same work.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final
from uuid import UUID

import structlog
from sqlalchemy.exc import IntegrityError

from carrel_gateway.accounts import metrics, repository, texts, trail
from carrel_gateway.accounts.addresses import domain_of
from carrel_gateway.accounts.links import RESET_MINUTES, SETUP_HOURS, Links, fingerprint, used_up
from carrel_gateway.accounts.logins import LoginService, Tokens
from carrel_gateway.accounts.parts import (
    LOGIN,
    LOGIN_OF_ADDRESS,
    MAIL_TO,
    Client,
    Parts,
)
from carrel_gateway.accounts.passwords import require_form
from carrel_gateway.accounts.repository import Account, Member
from carrel_gateway.audit.service import Action
from carrel_gateway.context import Principal
from carrel_gateway.errors import CarrelError, Conflict, NotFound, PermissionDenied, TooMany, Unauthenticated
from carrel_gateway.identity.rights import Right, Role
from carrel_gateway.storage.ids import new_id

__all__ = ["AccountService", "Client", "LoginService", "Parts", "Tokens"]

OPEN: Final = "open"

_log = structlog.get_logger(__name__)


class AccountService:
    """Accounts of one installation."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._context = parts.context
        self._database = parts.context.database
        self._links = Links(parts.context.secrets, parts.context.settings)
        self._logins = LoginService(parts)

    async def register(self, email: str) -> None:
        """Send a mail with which whoever has the address can set an account up.

        Raises
        ------
        PermissionDenied
            Registration is closed, or closed to addresses of this domain.
        TooMany
            Too many mails were asked for.
        """
        self._require_open(email)
        await self._parts.limit(MAIL_TO, email)
        self._parts.spawn(self._mail_registration(email))

    async def set_up(self, token: str, *, name: str, password: str, client: Client) -> Tokens:
        """Make the account of whoever got the mail, in a tenant of its own, and log in.

        Raises
        ------
        InvalidInput
            The link or the password cannot be used.
        Conflict
            The address has an account.
        """
        email = self._links.read_setup(token).email
        self._require_open(email)
        require_form(password)
        await self._parts.limit(LOGIN, email, client.address)
        hashed = await self._parts.passwords.hash(password)
        member = await self.found_tenant(email, name=name, password_hash=hashed)
        return await self._logins.open(member, client, method="setup")

    async def log_in(self, email: str, password: str, client: Client, *, tenant_id: UUID | None = None) -> Tokens:
        """Begin a login in one of the account's tenants, by default its home.

        Raises
        ------
        Unauthenticated
            The address is not known, the password is wrong, or the account cannot be used.
        TooMany
            Too many attempts, or too many logins at this moment.
        """
        try:
            await self._parts.limit(LOGIN, email, client.address)
            await self._parts.limit(LOGIN_OF_ADDRESS, email)
            account = await self._by_email(email)
            right = await self._parts.passwords.verify(account.password_hash if account else None, password)
        except TooMany:
            metrics.LOGINS.labels("password", "limited").inc()
            raise
        member = None
        if right and account and account.verified_at and account.disabled_at is None:
            await self._rehash(account, password)
            member = await self.member_of(account, tenant_id)
        if member is None:
            metrics.LOGINS.labels("password", "refused").inc()
            if account:
                reason = _reason(account, right=right)
                trail.tell_refused(self._parts, account, method="password", reason=reason, tenant_id=tenant_id)
            raise _wrong()
        return await self._logins.open(member, client, method="password")

    async def switch(self, principal: Principal, tenant_id: UUID, client: Client) -> Tokens:
        """End the principal's login and begin one in another of their tenants.

        Raises
        ------
        Conflict
            They came by a key.
        NotFound
            They are not a member of that tenant.
        """
        principal.require(Right.PROFILE_WRITE)
        current = await self._logins.current(principal)
        account = await self._by_id(principal.user_id)
        member = await self.member_of(account, tenant_id) if account and account.disabled_at is None else None
        if member is None:
            raise NotFound("you are not a member of a tenant of this id", code="tenant_not_found")
        tokens = await self._logins.open(member, client, method="switch")
        await self._logins.end(principal, current.id, how="switch")
        return tokens

    async def forgot(self, email: str) -> None:
        """Send a mail with which whoever has the address can choose another password.

        Raises
        ------
        TooMany
            Too many mails were asked for.
        """
        await self._parts.limit(MAIL_TO, email)
        self._parts.spawn(self._mail_reset(email))

    async def reset(self, token: str, password: str) -> None:
        """Choose the password of whoever got the mail, and end all logins.

        Raises
        ------
        InvalidInput
            The link or the password cannot be used.
        """
        wanted = self._links.read_reset(token)
        require_form(password)
        account = await self._by_id(wanted.account)
        if account is None or fingerprint(account) != wanted.fingerprint:
            raise used_up()
        hashed = await self._parts.passwords.hash(password)
        async with self._database.login_transaction() as connection:
            if not await repository.set_password(connection, account.id, account.password_hash, hashed):
                raise used_up()
            await repository.set_verified(connection, account.id)
        await self._logins.end_everywhere(account.id, Action.PASSWORD_RESET)
        self._tell_changed(account)

    async def change_password(self, principal: Principal, *, current: str, new: str, client: Client) -> None:
        """Change the principal's password, and end all their other logins.

        Raises
        ------
        Conflict
            They came by a key, have no password, or it was changed meanwhile.
        InvalidInput
            The new one cannot be used.
        PermissionDenied
            The current one is wrong.
        """
        principal.require(Right.PROFILE_WRITE)
        login = await self._logins.current(principal)
        require_form(new)
        account = await self._by_id(principal.user_id)
        if account is None or account.password_hash is None:
            raise Conflict("this account has no password; ask for a mail with which to choose one", code="no_password")
        await self._parts.limit(LOGIN, str(account.id), client.address)
        if not await self._parts.passwords.verify(account.password_hash, current):
            raise PermissionDenied("the current password is another one", code="wrong_password")
        hashed = await self._parts.passwords.hash(new)
        async with self._database.login_transaction() as connection:
            if not await repository.set_password(connection, account.id, account.password_hash, hashed):
                raise Conflict("the password was changed meanwhile; log in again", code="password_changed")
        await self._logins.end_everywhere(account.id, Action.PASSWORD_CHANGED, by=principal, but=login.id)
        self._tell_changed(account)

    async def member_of(self, account: Account, tenant_id: UUID | None) -> Member | None:
        """Return what one of the account's tenants knows of them, by default the first that lets them in."""
        for candidate in account.tenants:
            if tenant_id in {None, candidate}:
                async with self._database.transaction(candidate, write=False) as tx:
                    member = await repository.member(tx, account.id)
                if member and member.disabled_at is None:
                    return member
        return None

    async def found_tenant(self, email: str, *, name: str, password_hash: str | None) -> Member:
        """Make an account with a tenant of its own, whose administrator it is.

        Raises
        ------
        Conflict
            The address has an account.
        """
        tenant_id, account_id = new_id(), new_id()
        async with self._database.transaction(tenant_id) as tx:
            await repository.add_tenant(tx, name)
            await repository.add_member(tx, account_id, name=name, email=email, role=Role.ADMIN)
            member = await repository.member(tx, account_id)
        assert member is not None  # noqa: S101 - it was just added; this tells the type checker
        now = datetime.now(UTC)
        account = Account(account_id, email, password_hash, None, None, (tenant_id,), now, None, now)
        try:
            async with self._database.login_transaction() as connection:
                await repository.add(connection, account)
        except IntegrityError as error:
            async with self._database.transaction(tenant_id) as tx:
                await repository.remove_tenant(tx)
            raise Conflict("this address has an account; log in", code="already_registered") from error
        _log.info("account made", tenant=str(tenant_id), user=str(account_id))
        return member

    def _require_open(self, email: str) -> None:
        allowed = {part.strip().lower() for part in self._context.settings.registration.split(",")}
        if OPEN not in allowed and domain_of(email) not in allowed:
            raise PermissionDenied(
                "nobody can register here by themselves with that address; ask an administrator for an invitation",
                code="registration_closed",
            )

    async def _mail_registration(self, email: str) -> None:
        if await self._by_email(email):
            self._parts.mailer.post(texts.known(email, self._links.page))
        else:
            self._parts.mailer.post(texts.verify(email, self._links.setup(email), SETUP_HOURS))

    async def _mail_reset(self, email: str) -> None:
        account = await self._by_email(email)
        if account is None or account.disabled_at is not None:
            return
        if account.issuer and account.password_hash is None:
            self._parts.mailer.post(texts.provider(email, self._links.page))
        else:
            self._parts.mailer.post(texts.reset(email, self._links.reset(account), RESET_MINUTES))

    def _tell_changed(self, account: Account) -> None:
        if account.email:
            self._parts.mailer.post(texts.changed(account.email, self._links.page))

    async def _rehash(self, account: Account, password: str) -> None:
        stored = account.password_hash
        if stored is None or not self._parts.passwords.is_outdated(stored):
            return
        try:
            hashed = await self._parts.passwords.hash(password)
            async with self._database.login_transaction() as connection:
                await repository.set_password(connection, account.id, stored, hashed)
        except CarrelError as error:  # the next login does it
            _log.info("password not hashed anew", code=error.code)

    async def _by_email(self, email: str) -> Account | None:
        async with self._database.login_transaction() as connection:
            return await repository.by_email(connection, email)

    async def _by_id(self, account_id: UUID) -> Account | None:
        async with self._database.login_transaction() as connection:
            return await repository.by_id(connection, account_id)


def _reason(account: Account, *, right: bool) -> str:
    """Return why an account was not let in: for the audit log, and never for the answer."""
    if not right:
        return "wrong_password"
    if account.verified_at is None:
        return "not_verified"
    return "disabled" if account.disabled_at else "no_member"


def _wrong() -> Unauthenticated:
    return Unauthenticated("the address or the password is wrong, or the account cannot be used", code="wrong_login")
