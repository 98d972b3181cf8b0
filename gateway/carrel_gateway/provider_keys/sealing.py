"""How keys of model providers are encrypted: each bound to its tenant, holder and provider. Pure.

A row that is copied to another holder, provider or tenant cannot be opened there.
"""

from __future__ import annotations

from typing import Final
from uuid import UUID

from carrel_gateway.identity.secrets import MasterKeys
from carrel_gateway.provider_keys.repository import StoredKey

_USE: Final = "provider-keys"


def seal(secrets: MasterKeys, tenant_id: UUID, holder_id: UUID, provider: str, key: str) -> str:
    """Return a key encrypted by the installation's newest key."""
    return secrets.seal(_USE, key.encode(), bound_to=_bound(tenant_id, holder_id, provider))


def unseal(secrets: MasterKeys, tenant_id: UUID, stored: StoredKey) -> str:
    """Return the key that was stored.

    Raises
    ------
    Unsealable
        It was encrypted by a key that is gone, or for something else, or is damaged.
    """
    bound_to = _bound(tenant_id, stored.holder_id, stored.provider)
    return secrets.unseal(_USE, stored.sealed, bound_to=bound_to).decode()


def resealed(secrets: MasterKeys, tenant_id: UUID, stored: StoredKey) -> str | None:
    """Return a key encrypted by the installation's newest key; none where it is already.

    Raises
    ------
    Unsealable
        It cannot be opened.
    """
    if stored.sealed.startswith(f"{secrets.newest.kid}."):
        return None
    return seal(secrets, tenant_id, stored.holder_id, stored.provider, unseal(secrets, tenant_id, stored))


def _bound(tenant_id: UUID, holder_id: UUID, provider: str) -> str:
    return f"{tenant_id}/{holder_id}/{provider}"
