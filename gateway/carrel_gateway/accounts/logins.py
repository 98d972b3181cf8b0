"""Logins: opened, refreshed, listed and ended. Whoever logs in has shown before who they are.

Each login is a family of refresh tokens. A refresh exchanges the newest one; an older one that comes back was stolen,
or its successor was, so the family ends (RFC 9700, 4.14.2). A client that asks twice at once is no thief: the second
one is told to use what the first one got.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final
from uuid import UUID

import structlog

from carrel_gateway.accounts import families, metrics, repository, trail
from carrel_gateway.accounts.families import Login
from carrel_gateway.accounts.parts import Client, Parts
from carrel_gateway.accounts.repository import Member
from carrel_gateway.audit.service import Action
from carrel_gateway.context import Principal
from carrel_gateway.errors import Conflict, NotFound, Unauthenticated
from carrel_gateway.identity.revocations import announce
from carrel_gateway.identity.rights import Right
from carrel_gateway.identity.tokens import AccessToken
from carrel_gateway.storage.database import Transaction
from carrel_gateway.storage.ids import new_id

__all__ = ["Login", "LoginService", "Tokens"]

RACE_SECONDS: Final = 10.0
"""A token that was exchanged less than this ago is a race and not a theft; it gets nothing all the same."""
MAX_LISTED: Final = 200
_KEPT_SECONDS: Final = 30 * 86_400.0
"""Logins that have ended are kept, so that an old token is known for what it is."""
_DAY_SECONDS: Final = 86_400.0
_VERSIONS: Final = re.compile(r"[\d.]+")
_AT_ONCE: Final = 500

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Tokens:
    """What a login gets."""

    access: AccessToken
    refresh: str
    login_id: UUID
    tenant_id: UUID
    user_id: UUID
    seconds: int
    """Life of the refresh token."""


class LoginService:
    """Logins of one installation."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._context = parts.context
        self._database = parts.context.database
        self._seconds = parts.context.settings.login_days * _DAY_SECONDS

    async def open(self, member: Member, client: Client, *, method: str) -> Tokens:
        """Begin a login of a person in a tenant."""
        login_id = new_id()
        token = self._parts.refresh.make(member.tenant_id, login_id, 0)
        async with self._database.transaction(member.tenant_id) as tx:
            await families.add(
                tx, login_id, member.user_id, digest=token.digest, client=client.named, seconds=self._seconds
            )
            await trail.record(
                self._context, tx, member.user_id, Action.LOGIN_OPENED, login_id, method=method, client=client.kind
            )
        metrics.LOGINS.labels(method, "accepted").inc()
        _log.info(
            "logged in", method=method, tenant=str(member.tenant_id), user=str(member.user_id), login=str(login_id)
        )
        return self._tokens(member.tenant_id, member.user_id, login_id, token.text)

    async def refresh(self, presented: str, client: Client) -> Tokens:
        """Exchange a refresh token for the next one and an access token.

        Raises
        ------
        Unauthenticated
            It is not known, has expired, was revoked, or is an old one, which ends its login.
        Conflict
            Somebody exchanged it a moment ago (`refresh_raced`).
        """
        old = self._parts.refresh.read(presented)
        if old is None:
            metrics.REFRESHES.labels("refused").inc()
            raise _gone("that refresh token is not known here")
        new = self._parts.refresh.make(old.tenant_id, old.login_id, old.generation + 1)
        async with self._database.transaction(old.tenant_id) as tx:
            known = await families.find(tx, old.login_id)
            if known is None or not _is_same(known.client, client.named):
                refusal = await self._refuse(tx, old.generation, known, other_client=True)
            elif not await self._is_member(tx, known.user_id):
                metrics.REFRESHES.labels("refused").inc()
                refusal = _gone("that account is disabled")
            elif await families.rotate(tx, known.id, old=old.digest, new=new.digest, seconds=self._seconds):
                metrics.REFRESHES.labels("accepted").inc()
                return self._tokens(old.tenant_id, known.user_id, known.id, new.text)
            else:
                refusal = await self._refuse(tx, old.generation, known, other_client=False)
        raise refusal

    async def list(self, principal: Principal) -> list[Login]:
        """Return the principal's logins in their tenant, newest first.

        Raises
        ------
        PermissionDenied
            Without the right to read the profile.
        """
        principal.require(Right.PROFILE_READ)
        async with self._database.transaction(principal.tenant_id, write=False) as tx:
            return await families.standing(tx, principal.user_id, MAX_LISTED)

    async def end(self, principal: Principal, login_id: UUID, *, how: str = "from-list") -> None:
        """End one of the principal's logins.

        Parameters
        ----------
        how
            What the audit log says of it.

        Raises
        ------
        PermissionDenied
            Without the right to change the profile.
        NotFound
            It is not there, has ended, or is somebody else's.
        """
        principal.require(Right.PROFILE_WRITE)
        async with self._database.transaction(principal.tenant_id) as tx:
            if not await families.revoke(tx, principal.user_id, only=login_id):
                raise NotFound("you have no login of this id that still stands", code="login_not_found")
            self._announce(tx, login_id)
            credential = principal.credential_id
            await trail.record(
                self._context, tx, principal.user_id, Action.LOGIN_ENDED, login_id, credential=credential, how=how
            )

    async def end_current(self, principal: Principal) -> None:
        """End the login that the principal came by.

        Raises
        ------
        Conflict
            They came by a key.
        """
        await self.end(principal, (await self.current(principal)).id, how="logout")

    async def current(self, principal: Principal) -> Login:
        """Return the login that the principal came by.

        Raises
        ------
        Conflict
            They came by a key.
        """
        found = None
        if principal.credential_id is not None:
            async with self._database.transaction(principal.tenant_id, write=False) as tx:
                found = await families.find(tx, principal.credential_id)
        if found is None or found.user_id != principal.user_id:
            raise Conflict("this is for people who are logged in, not for an API key", code="not_a_login")
        return found

    async def end_all(self, principal: Principal) -> None:
        """End all logins of the principal, in all their tenants.

        Raises
        ------
        PermissionDenied
            Without the right to change the profile.
        Conflict
            They came by a key.
        """
        principal.require(Right.PROFILE_WRITE)
        await self.current(principal)
        await self.end_everywhere(principal.user_id, Action.LOGIN_ALL_ENDED, by=principal)

    async def end_everywhere(
        self, user_id: UUID, action: Action, *, by: Principal | None = None, but: UUID | None = None
    ) -> None:
        """End all logins of a person in all tenants of their account, but one login if named.

        Parameters
        ----------
        action
            What the audit log of each tenant says of it.
        by
            Whoever asked for it, where it is known by what; their tenant is one of them also without an account.
        """
        async with self._database.login_transaction() as connection:
            account = await repository.by_id(connection, user_id)
        for tenant_id in {*(account.tenants if account else ()), *((by.tenant_id,) if by else ())}:
            here = by.credential_id if by and by.tenant_id == tenant_id else None
            async with self._database.transaction(tenant_id) as tx:
                gone = await families.revoke(tx, user_id, but=but)
                self._announce(tx, *gone)
                await trail.record(self._context, tx, user_id, action, user_id, credential=here, logins=len(gone))

    async def sweep(self) -> int:
        """Delete what ended long ago, of all tenants that people are members of; return how many rows."""
        removed, after, seen = 0, UUID(int=0), set[UUID]()
        while True:
            async with self._database.login_transaction() as connection:
                page = await repository.all_tenants(connection, after, _AT_ONCE)
            for account_id, tenants in page:
                after = account_id
                for tenant_id in set(tenants) - seen:
                    seen.add(tenant_id)
                    async with self._database.transaction(tenant_id) as tx:
                        removed += await families.remove_old(tx, seconds=_KEPT_SECONDS)
            if len(page) < _AT_ONCE:
                return removed

    async def _is_member(self, tx: Transaction, user_id: UUID) -> bool:
        member = await repository.member(tx, user_id)
        return member is not None and member.disabled_at is None

    async def _refuse(
        self, tx: Transaction, generation: int, known: Login | None, *, other_client: bool
    ) -> Unauthenticated | Conflict:
        """Return why a token gets nothing; ends the login where it shows that two have tokens of it."""
        if known is None or known.revoked_at is not None:
            metrics.REFRESHES.labels("refused").inc()
            return _gone("that login was ended")
        now = await families.find(tx, known.id)
        newest = now.generation if now else known.generation
        if not other_client and generation == newest:
            metrics.REFRESHES.labels("refused").inc()
            return _gone("that login has expired")
        is_last = not other_client and generation == newest - 1
        if is_last and await families.is_rotated_within(tx, known.id, RACE_SECONDS):
            metrics.REFRESHES.labels("raced").inc()
            return Conflict(
                "this refresh token was exchanged a moment ago; use the one that came back then", code="refresh_raced"
            )
        reason = "other_client" if other_client else "reused"
        metrics.REFRESHES.labels(reason).inc()
        if await families.revoke(tx, known.user_id, only=known.id):
            self._announce(tx, known.id)
            await trail.record(self._context, tx, known.user_id, Action.LOGIN_REVOKED, known.id, reason=reason)
        _log.warning(
            "login ended: its token was used twice or elsewhere", tenant=str(tx.tenant_id), login=str(known.id)
        )
        return _gone("that refresh token was used before or by another client, so its login was ended")

    def _announce(self, tx: Transaction, *login_ids: UUID) -> None:
        async def tell() -> None:
            await announce(self._context.bus, tx.tenant_id, *login_ids)

        tx.after_commit(tell)

    def _tokens(self, tenant_id: UUID, user_id: UUID, login_id: UUID, refresh: str) -> Tokens:
        access = self._context.tokens.issue(tenant_id=tenant_id, user_id=user_id, login_id=login_id)
        return Tokens(access, refresh, login_id, tenant_id, user_id, int(self._seconds))


def _is_same(known: str, presenting: str) -> bool:
    """Return whether two names are of one client; versions change while people are logged in."""
    return _VERSIONS.sub("", known) == _VERSIONS.sub("", presenting)


def _gone(what: str) -> Unauthenticated:
    return Unauthenticated(f"{what}; log in again", code="login_ended")
