"""Signing in with an OpenID provider: whose account it is, and who may join.

Whom the provider knows under a subject is that account, whatever its address. An account that is there already is
linked only when the provider says that it has verified the address: else whoever writes a foreign address into a
provider would have the account (threat 24). Everybody else joins the tenant of the settings.
"""

from __future__ import annotations

import secrets
import time
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import msgspec
import structlog
from sqlalchemy.exc import IntegrityError

from carrel_gateway.accounts import metrics, repository, trail
from carrel_gateway.accounts.addresses import canonical
from carrel_gateway.accounts.attempts import Attempt, Identity, new_attempt, refused
from carrel_gateway.accounts.logins import LoginService, Tokens
from carrel_gateway.accounts.parts import Client, Parts
from carrel_gateway.accounts.repository import Account, Member
from carrel_gateway.accounts.service import AccountService
from carrel_gateway.audit.service import Action
from carrel_gateway.errors import CarrelError, NotFound, PermissionDenied
from carrel_gateway.identity.rights import Role
from carrel_gateway.identity.secrets import Unsealable
from carrel_gateway.identity.service import DEFAULT_TENANT_ID
from carrel_gateway.storage.ids import new_id

if TYPE_CHECKING:
    from carrel_gateway.accounts.provider import Provider

ATTEMPT_SECONDS: Final = 600
MAX_COOKIE: Final = 1024
_USE: Final = "oidc-attempts"
_NAMELESS: Final = "Somebody"
_MAX_NAME: Final = 200

_log = structlog.get_logger(__name__)


class SignInService:
    """Signing in, where a provider is set."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._database = parts.context.database
        self._secrets = parts.context.secrets
        self._accounts = AccountService(parts)
        self._logins = LoginService(parts)

    async def begin(self) -> tuple[str, str]:
        """Return the address that a browser is sent to, and the cookie that it keeps until it comes back.

        Raises
        ------
        NotFound
            No provider is set.
        ProviderAway
            It does not answer, or not as it must.
        """
        provider = self._provider()
        attempt = new_attempt(ATTEMPT_SECONDS)
        address = await provider.begin(attempt)
        return address, self._secrets.seal(_USE, msgspec.json.encode(attempt), bound_to=provider.issuer)

    async def finish(
        self, cookie: str | None, client: Client, *, state: str | None, code: str | None, issuer: str | None
    ) -> Tokens:
        """Begin a login of whoever came back from the provider.

        Raises
        ------
        NotFound
            No provider is set.
        Unauthenticated
            This browser was not sent there, or the provider's answer is not good.
        PermissionDenied
            The person is disabled here.
        ProviderAway
            The provider does not answer, or not as it must.
        """
        provider = self._provider()
        try:
            attempt = self._attempt(provider, cookie, state)
            if not code:
                raise refused("the provider did not let you in")
            identity = await provider.finish(attempt, code=code, issuer=issuer)
            member = await self._member(identity)
        except CarrelError:
            metrics.LOGINS.labels("oidc", "refused").inc()
            raise
        return await self._logins.open(member, client, method="oidc")

    def _provider(self) -> Provider:
        if self._parts.provider is None:
            raise NotFound("nobody signs in with another server here; log in by password", code="no_oidc_provider")
        return self._parts.provider

    def _attempt(self, provider: Provider, cookie: str | None, state: str | None) -> Attempt:
        """Return what this browser was sent away with: nobody else can have it come back with their own code."""
        attempt = None
        if cookie and len(cookie) <= MAX_COOKIE:
            with suppress(Unsealable, msgspec.DecodeError, UnicodeEncodeError):
                plain = self._secrets.unseal(_USE, cookie, bound_to=provider.issuer)
                attempt = msgspec.json.decode(plain, type=Attempt)
        given = (state or "").encode("utf-8", "surrogatepass")
        if attempt is None or not secrets.compare_digest(attempt.state.encode(), given):
            raise refused("it was not begun in this browser")
        if attempt.expires <= time.time():
            raise refused("it took too long")
        return attempt

    async def _member(self, identity: Identity) -> Member:
        account = await self._account(identity)
        member = await self._accounts.member_of(account, None) if account.disabled_at is None else None
        if member is None:
            trail.tell_refused(self._parts, account, method="oidc", reason="disabled")
            raise PermissionDenied("that account is disabled here; ask an administrator", code="disabled")
        return member

    async def _account(self, identity: Identity) -> Account:
        email, is_linked = _verified_address(identity), False
        async with self._database.login_transaction() as connection:
            known = await repository.by_subject(connection, identity.issuer, identity.subject)
            if known is None and email:
                there = await repository.by_email(connection, email)
                if there and there.issuer is None and there.verified_at:
                    await repository.link(connection, there.id, identity.issuer, identity.subject)
                    known, is_linked = there, True
                elif there:
                    trail.tell_refused(self._parts, there, method="oidc", reason="address_taken")
                    raise PermissionDenied(
                        "this address has an account that belongs to somebody else; ask an administrator",
                        code="address_taken",
                    )
        if known and is_linked:
            await self._tell_linked(known, identity.issuer)
        return known or await self._join(identity, email)

    async def _tell_linked(self, account: Account, issuer: str) -> None:
        for tenant_id in account.tenants:
            async with self._database.transaction(tenant_id) as tx:
                await trail.record(self._parts.context, tx, account.id, Action.USER_LINKED, account.id, issuer=issuer)
        _log.info("account linked", user=str(account.id))

    async def _join(self, identity: Identity, email: str | None) -> Account:
        """Make an account of somebody new, as a user of the tenant of the settings."""
        settings = self._parts.context.settings
        tenant_id, account_id, now = settings.oidc_tenant or DEFAULT_TENANT_ID, new_id(), datetime.now(UTC)
        name = (identity.name or _NAMELESS).replace("\0", "")[:_MAX_NAME]
        account = Account(account_id, email, None, identity.issuer, identity.subject, (tenant_id,), now, None, now)
        async with self._database.transaction(tenant_id) as tx:
            role = Role(settings.oidc_role)
            await trail.join(self._parts.context, tx, account, name=name, role=role, by="oidc")
        try:
            async with self._database.login_transaction() as connection:
                await repository.add(connection, account)
        except IntegrityError:  # somebody else made it in this moment: the same person in another window
            async with self._database.transaction(tenant_id) as tx:
                await trail.undo_join(self._parts.context, tx, account_id)
            async with self._database.login_transaction() as connection:
                known = await repository.by_subject(connection, identity.issuer, identity.subject)
            if known is None:
                raise refused("the account was made by somebody else meanwhile") from None
            return known
        _log.info("account made", tenant=str(tenant_id), user=str(account_id))
        return account


def _verified_address(identity: Identity) -> str | None:
    if not identity.email_verified or identity.email is None:
        return None
    try:
        return canonical(identity.email)
    except ValueError:
        return None
