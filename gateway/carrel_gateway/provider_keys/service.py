"""Keys of model providers: kept encrypted, shown to nobody, used by the runs of whoever they belong to.

A run uses the key of its user for the model's provider or, where there is none, that of the tenant; where neither is,
the gateway's own, from the settings. A key goes to the process that speaks to providers and nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, TypeAlias
from uuid import UUID

from carrel_gateway.agents.models.providers import key_names, provider_of
from carrel_gateway.audit.service import Action, AuditService
from carrel_gateway.context import Principal, ProcessContext
from carrel_gateway.errors import NotFound
from carrel_gateway.identity.rights import Right
from carrel_gateway.provider_keys import repository
from carrel_gateway.provider_keys.metrics import USES
from carrel_gateway.provider_keys.repository import StoredKey
from carrel_gateway.provider_keys.sealing import seal, unseal
from carrel_gateway.storage.database import Transaction

_HINT: Final = 4
_LEAST_FOR_HINT: Final = 20
"""Of a shorter key the last characters would say too much."""


@dataclass(frozen=True, slots=True)
class KnownKey:
    """What is told of a key."""

    provider: str
    scope: str
    """`own`, or `tenant` for everybody in it."""
    hint: str
    updated_at: datetime


Expected: TypeAlias = Callable[[KnownKey | None], None] | None
"""Raises when a key, or that there is none, is not as somebody has seen it."""


class ProviderKeyService:
    """The keys that one caller has, or may use."""

    def __init__(self, context: ProcessContext, principal: Principal) -> None:
        self._database = context.database
        self._secrets = context.secrets
        self._principal = principal
        self._audit = AuditService(context, principal)

    async def list(self) -> list[KnownKey]:
        """Return the caller's keys, and those of the tenant."""
        self._principal.require(Right.PROFILE_READ)
        tenant_id = self._principal.tenant_id
        async with self._database.transaction(tenant_id, write=False) as tx:
            return [self._known(key) for key in await repository.find(tx, [self._principal.user_id, tenant_id])]

    async def providers(self) -> frozenset[str]:
        """Return the providers of which the caller may use a key."""
        holders = [self._principal.user_id, self._principal.tenant_id]
        async with self._database.transaction(self._principal.tenant_id, write=False) as tx:
            return frozenset(key.provider for key in await repository.find(tx, holders))

    async def put(self, provider: str, key: str, *, tenant: bool, expected: Expected = None) -> KnownKey:
        """Store a key in the place of an earlier one.

        Parameters
        ----------
        tenant
            For everybody in the tenant; an administrator's business.
        expected
            Raises when the earlier one, or that there is none, is not what the caller has seen.
        """
        holder = self._holder(tenant)
        stored = StoredKey(
            holder_id=holder,
            provider=provider,
            user_id=None if tenant else holder,
            sealed=seal(self._secrets, self._principal.tenant_id, holder, provider, key),
            hint=key[-_HINT:] if len(key) >= _LEAST_FOR_HINT else "",
            updated_at=datetime.now(UTC),
        )
        async with self._database.transaction(self._principal.tenant_id) as tx:
            if expected:
                expected(await self._locked(tx, holder, provider))
            await repository.put(tx, stored)
            await self._audit.record(tx, Action.PROVIDER_KEY_STORED, holder, provider=provider)
        return self._known(stored)

    async def remove(self, provider: str, *, tenant: bool, expected: Expected = None) -> None:
        """Delete a key.

        Parameters
        ----------
        expected
            Raises when the key is not as the caller has seen it.

        Raises
        ------
        NotFound
            There is none.
        """
        holder = self._holder(tenant)
        async with self._database.transaction(self._principal.tenant_id) as tx:
            found = await self._locked(tx, holder, provider)
            if found is None:
                raise NotFound("there is no key of that provider", code="provider_key_not_found")
            if expected:
                expected(found)
            await repository.remove(tx, holder, provider)
            await self._audit.record(tx, Action.PROVIDER_KEY_REMOVED, holder, provider=provider)

    async def key_for(self, model: str) -> str | None:
        """Return the key that a run of the caller's uses for a model; none where the gateway's own is used.

        Raises
        ------
        Unsealable
            It was encrypted by a key of the installation that is gone; store it again.
        """
        if not key_names(model):
            return None
        tenant_id, user_id = self._principal.tenant_id, self._principal.user_id
        async with self._database.transaction(tenant_id, write=False) as tx:
            found = {key.holder_id: key for key in await repository.find(tx, [user_id, tenant_id], provider_of(model))}
        stored = found.get(user_id) or found.get(tenant_id)
        USES.labels("settings" if stored is None else self._known(stored).scope).inc()
        return unseal(self._secrets, tenant_id, stored) if stored else None

    async def _locked(self, tx: Transaction, holder: UUID, provider: str) -> KnownKey | None:
        found = await repository.find(tx, [holder], provider, lock=True)
        return self._known(found[0]) if found else None

    def _holder(self, tenant: bool) -> UUID:
        self._principal.require(Right.TENANT_ADMIN if tenant else Right.KEYS_WRITE)
        return self._principal.tenant_id if tenant else self._principal.user_id

    def _known(self, stored: StoredKey) -> KnownKey:
        scope = "tenant" if stored.holder_id == self._principal.tenant_id else "own"
        hidden = scope == "tenant" and not self._principal.may(Right.TENANT_ADMIN)
        return KnownKey(stored.provider, scope, "" if hidden else stored.hint, stored.updated_at)
