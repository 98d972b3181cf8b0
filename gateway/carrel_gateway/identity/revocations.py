"""News that a key, a login or a user is not what it was: whoever knows its principal forgets it.

The database is the truth. Without these news a principal that was verified is believed for as long as the cache says.
"""

from __future__ import annotations

from uuid import UUID

from carrel_gateway.storage.bus import Bus


def channel_of(tenant_id: UUID) -> str:
    """Return the channel of a tenant's news."""
    return f"identity:{tenant_id}"


async def announce(bus: Bus, tenant_id: UUID, *ids: UUID) -> None:
    """Tell all gateways to forget what they know of keys, logins or users; after the commit, never before."""
    for changed in ids:
        await bus.publish(channel_of(tenant_id), changed.hex.encode())


def read(data: bytes) -> UUID | None:
    """Return the id of which news speak; none where they cannot be read."""
    try:
        return UUID(hex=data.decode("ascii")) if len(data) == 32 else None
    except ValueError:
        return None
