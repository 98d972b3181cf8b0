"""What one gateway process holds: made once at start, closed once at the end, passed to every service.

There are no globals. Tests build the same context with other settings.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import UUID

if TYPE_CHECKING:
    from carrel_gateway.executors.base import Executor
    from carrel_gateway.kernels.pool import KernelPool
    from carrel_gateway.settings import Settings
    from carrel_gateway.storage.bus import Bus
    from carrel_gateway.storage.database import Database
    from carrel_gateway.storage.objects import StorageBackend


@dataclass(frozen=True, slots=True)
class Principal:
    """Who calls: an account within one tenant."""

    tenant_id: UUID
    user_id: UUID


@dataclass(frozen=True, slots=True)
class ProcessContext:
    """Shared by all requests and background tasks of one process."""

    settings: Settings
    database: Database
    bus: Bus
    objects: StorageBackend
    executor: Executor
    kernels: KernelPool
    gateway_id: UUID
    """This process, as the owner of runs."""

    async def aclose(self) -> None:
        """Close everything, in the order opposite to that of opening."""
        await self.kernels.aclose()
        await self.executor.aclose()
        await self.objects.aclose()
        await self.bus.aclose()
        await self.database.aclose()
