"""How keys of model providers are encrypted: each bound to its tenant, holder and provider. Pure.

A row that is copied to another holder, provider or tenant cannot be opened there.
"""

from __future__ import annotations

from typing import Final
from uuid import UUID

from carrel_gateway.identity.sealed import Sealed
from carrel_gateway.identity.secrets import MasterKeys
from carrel_gateway.provider_keys.repository import StoredKey
from carrel_gateway.provider_keys.tables import provider_keys

SEALED: Final = Sealed(
    provider_keys,
    use="provider-keys",
    bound_to=lambda row: f"{row['tenant_id']}/{row['holder_id']}/{row['provider']}",
    told=lambda row: f"provider {row['provider']} of {row['holder_id']}",
)


def seal(secrets: MasterKeys, tenant_id: UUID, holder_id: UUID, provider: str, key: str) -> str:
    """Return a key encrypted by the installation's newest key."""
    row = {"tenant_id": tenant_id, "holder_id": holder_id, "provider": provider}
    return SEALED.seal(secrets, row, key.encode())


def unseal(secrets: MasterKeys, tenant_id: UUID, stored: StoredKey) -> str:
    """Return the key that was stored.

    Raises
    ------
    Unsealable
        It was encrypted by a key that is gone, or for something else, or is damaged.
    """
    row = {
        "tenant_id": tenant_id,
        "holder_id": stored.holder_id,
        "provider": stored.provider,
        "sealed": stored.sealed,
    }
    return SEALED.unseal(secrets, row).decode()
