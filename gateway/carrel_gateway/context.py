"""What one gateway process holds: made once at start, closed once at the end, passed to every service.

There are no globals. Tests build the same context with other settings.
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import UUID

from carrel_gateway.errors import PermissionDenied
from carrel_gateway.identity.rights import ALL_RIGHTS, Right, Role

if TYPE_CHECKING:
    from carrel_gateway.executors.base import Executor
    from carrel_gateway.identity.secrets import MasterKeys
    from carrel_gateway.identity.tokens import AccessTokens
    from carrel_gateway.kernels.pool import KernelPool
    from carrel_gateway.quotas.keeper import QuotaKeeper
    from carrel_gateway.settings import Settings
    from carrel_gateway.storage.bus import Bus
    from carrel_gateway.storage.cache import CacheBackend
    from carrel_gateway.storage.database import Database
    from carrel_gateway.storage.objects import StorageBackend
    from carrel_gateway.storage.windows import Windows


@dataclass(frozen=True, slots=True)
class Principal:
    """Who calls: an account within one tenant, and what this call may do.

    Work of the gateway itself, such as runs that go on and sweeps, has all rights of its tenant, as the defaults say.
    """

    tenant_id: UUID
    user_id: UUID
    role: Role = Role.ADMIN
    rights: frozenset[Right] = ALL_RIGHTS
    """Those of the role or, of a key with scopes, fewer."""
    credential_id: UUID | None = None
    """The key or login that was presented; none for work of the gateway itself."""
    team_ids: frozenset[UUID] = frozenset()

    def may(self, right: Right) -> bool:
        """Return whether the right is there."""
        return right in self.rights

    def require(self, right: Right) -> None:
        """Check a right.

        Raises
        ------
        PermissionDenied
            It is missing; the message names it.
        """
        if right not in self.rights:
            raise PermissionDenied(
                f"this needs the right `{right.value}`, which your role or your key's scopes do not have; ask an "
                "administrator of your tenant",
                right=right.value,
            )


@dataclass(frozen=True, slots=True)
class ProcessContext:
    """Shared by all requests and background tasks of one process."""

    settings: Settings
    database: Database
    bus: Bus
    cache: CacheBackend
    """What was worked out before; never the truth."""
    windows: Windows
    """Counters of calls."""
    objects: StorageBackend
    executor: Executor
    kernels: KernelPool
    quotas: QuotaKeeper
    secrets: MasterKeys
    """The installation's keys, from which each use derives its own."""
    tokens: AccessTokens
    gateway_id: UUID
    """This process, as the owner of runs."""

    async def aclose(self) -> None:
        """Close everything, in the order opposite to that of opening, also when one of it fails."""
        async with AsyncExitStack() as stack:
            for part in (self.database, self.bus, self.cache, self.windows, self.objects, self.executor, self.kernels):
                stack.push_async_callback(part.aclose)
