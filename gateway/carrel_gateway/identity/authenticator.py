"""Who calls: turns what a caller presents into a principal, or refuses it.

The key of the installation is compared in constant time, and is the administrator of the default tenant. A key of a
user's is looked up by its digest in the tenant that it names, with its owner: the rights are those of the owner now,
cut to the key's scopes and, of a service account's, to those of whoever made it. Of an access token the login is looked
up, with its user. What may be done with the rights is `policy`'s.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Final, TypeVar
from uuid import UUID

import structlog

from carrel_gateway.context import Principal, ProcessContext
from carrel_gateway.errors import CarrelError, Unauthenticated
from carrel_gateway.identity import lookups, metrics, standing
from carrel_gateway.identity.cache import SECONDS, PrincipalCache
from carrel_gateway.identity.keys import InstallationKey
from carrel_gateway.identity.lookups import Found
from carrel_gateway.identity.presented import MAX_LENGTH, Kind, digest_of, tenant_of
from carrel_gateway.identity.service import default_principal
from carrel_gateway.identity.standing import principal_of
from carrel_gateway.identity.tokens import is_token
from carrel_gateway.storage.dialect import Dialect
from carrel_gateway.storage.steps import Steps

V = TypeVar("V")

USED_PAUSE: Final = timedelta(minutes=1)
"""How exactly it is known when a key was used last."""
_FLUSH_SECONDS: Final = 5.0
_MOST_USED: Final = 10_000

_log = structlog.get_logger(__name__)


class Authenticator:
    """Looks at the callers of one process."""

    def __init__(self, context: ProcessContext, installation: InstallationKey | None) -> None:
        self._database = context.database
        self._tokens = context.tokens
        self._installation = installation
        self._cache = PrincipalCache(context.bus)
        self._used: dict[UUID, UUID] = {}
        """Keys whose use is to be noted, with their tenants."""
        self._noting: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to note in the background when keys were used."""
        self._noting = asyncio.create_task(self._note_for_ever(), name="used-keys")

    async def aclose(self) -> None:
        """Stop what runs in the background, and forget everybody."""
        if self._noting:
            self._noting.cancel()
            with suppress(asyncio.CancelledError):
                await self._noting
        await self._cache.aclose()

    async def authenticate(self, presented: str | None) -> Principal:
        """Return who presents this.

        Raises
        ------
        Unauthenticated
            Nothing, or something that is not known, has expired or was revoked; the message says which.
        DatabaseAway
            It cannot be looked up.
        """
        if not presented:
            _count("none", "refused")
            raise Unauthenticated(
                "this needs a key: send `Authorization: Bearer <key>` (the embedded product's is in the link that "
                "`carrel serve` prints, and in the file `key` of the data folder)",
            )
        if len(presented) > MAX_LENGTH:
            raise _unknown()
        digest = digest_of(presented)
        if self._installation is not None and self._installation.matches(digest):
            _count("installation", "accepted")
            return default_principal()
        kind = "token" if is_token(presented) else "key"
        known = self._cache.get(digest)
        if known is not None:
            _count(kind, "cached")
            return known
        try:
            found = await (self._by_token if kind == "token" else self._by_key)(presented, digest)
        except Unauthenticated:
            _count(kind, "refused")
            raise
        _count(kind, "accepted")
        return found

    async def admit_ticket(self, ticket: str) -> Principal:
        """Return who made a ticket, with the rights of the credential that it was made with; it is of no use again.

        Raises
        ------
        Unauthenticated
            It is not known, was used or has expired, or the credential is not in force any more.
        """
        try:
            principal = await self._by_ticket(ticket)
        except Unauthenticated:
            _count("ticket", "refused")
            raise
        _count("ticket", "accepted")
        return principal

    async def again(self, principal: Principal) -> Principal:
        """Return a principal as it is now.

        Raises
        ------
        Unauthenticated
            Its credential is not in force any more.
        """
        if principal.credential_id is None:
            return principal
        found = await self._look_up(principal.tenant_id, lookups.find_credential, principal.credential_id)
        return principal_of(principal.tenant_id, found)

    async def note_used(self) -> None:
        """Write down when keys were used."""
        used, self._used = self._used, {}
        for key_id, tenant_id in used.items():
            async with self._database.transaction(tenant_id) as tx:
                await lookups.touch(tx, key_id, pause=USED_PAUSE)

    async def _by_key(self, presented: str, digest: bytes) -> Principal:
        tenant_id = tenant_of(Kind.KEY, presented)
        if tenant_id is None:
            raise standing.not_known()
        mark = self._cache.mark(tenant_id)
        found = await self._look_up(tenant_id, lookups.find_key, digest)
        principal = principal_of(tenant_id, found)
        self._cache.keep(digest, principal, mark, seconds=_seconds_left(found), maker_id=_maker_of(found))
        if _is_to_be_noted(found) and len(self._used) < _MOST_USED:
            self._used[found.credential_id] = tenant_id
        return principal

    async def _by_token(self, presented: str, digest: bytes) -> Principal:
        claims = self._tokens.verify(presented)
        mark = self._cache.mark(claims.tenant_id)
        found = await self._look_up(claims.tenant_id, lookups.find_login, claims.login_id)
        if found.user_id != claims.user_id:
            raise standing.not_known()
        principal = principal_of(claims.tenant_id, found)
        left = (claims.expires_at - datetime.now(UTC)).total_seconds()
        self._cache.keep(digest, principal, mark, seconds=min(left, _seconds_left(found)))
        return principal

    async def _by_ticket(self, ticket: str) -> Principal:
        tenant_id = tenant_of(Kind.TICKET, ticket)
        if tenant_id is None:
            raise _spent()
        async with self._database.transaction(tenant_id) as tx:
            used = await lookups.use_ticket(tx, digest_of(ticket))
            if used is None:
                raise _spent()
            if used.credential_id is None:  # of the installation's own key
                return default_principal()
            steps = lookups.find_credential(tx.dialect, tenant_id, used.credential_id)
            found = standing.require(await tx.run(steps))
        if found.user_id != used.user_id:
            raise _spent()
        return principal_of(tenant_id, found)

    async def _look_up(
        self, tenant_id: UUID, find: Callable[[Dialect, UUID, V], Steps[Found | None]], value: V
    ) -> Found:
        dialect = self._database.dialect
        return standing.require(
            await self._database.run(tenant_id, lambda: find(dialect, tenant_id, value), write=False)
        )

    async def _note_for_ever(self) -> None:
        while True:
            await asyncio.sleep(_FLUSH_SECONDS)
            try:
                await self.note_used()
            except CarrelError as error:  # it is noted with the next use
                _log.warning("use of keys not noted", code=error.code)
            except Exception:  # noqa: BLE001 - the next note must come
                _log.exception("use of keys not noted")


def _maker_of(found: Found) -> UUID | None:
    return found.maker.user_id if found.maker else None


def _is_to_be_noted(found: Found) -> bool:
    return found.used_at is None or found.now - found.used_at >= USED_PAUSE


def _seconds_left(found: Found) -> float:
    return SECONDS if found.expires_at is None else (found.expires_at - found.now).total_seconds()


def _spent() -> Unauthenticated:
    return Unauthenticated(
        "that ticket is not known, was used or has expired; get another one with POST /api/tickets", code="wrong_ticket"
    )


def _unknown() -> Unauthenticated:
    _count("unknown", "refused")
    return standing.not_known()


def _count(kind: str, outcome: str) -> None:
    metrics.AUTHENTICATIONS.labels(kind, outcome).inc()
