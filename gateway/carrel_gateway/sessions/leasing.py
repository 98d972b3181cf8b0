"""One gateway at a time does what is done for a session in the background; when it dies, another one may.

The lease spares work and decides nothing: what is done under it must be right when two gateways do it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from uuid import UUID

import structlog

from carrel_gateway.context import ProcessContext
from carrel_gateway.errors import CarrelError
from carrel_gateway.sessions import repository

_log = structlog.get_logger(__name__)


@asynccontextmanager
async def leased(context: ProcessContext, tenant_id: UUID, session_id: UUID) -> AsyncGenerator[bool]:
    """Hold the session's lease for as long as the block lasts; gives false when another gateway holds it.

    Raises
    ------
    DatabaseAway
        It cannot be had.
    """
    seconds = context.settings.run_lease_seconds

    async def take() -> bool:
        async with context.database.transaction(tenant_id) as tx:
            return await repository.lease(tx, session_id, context.gateway_id, seconds=seconds)

    async def hold() -> None:
        while True:
            await asyncio.sleep(seconds / 3)
            with suppress(CarrelError):  # it may come back before the lease is over
                await take()

    if not await take():
        yield False
        return
    holding = asyncio.create_task(hold(), name=f"lease-{session_id}")
    try:
        yield True
    finally:
        holding.cancel()
        with suppress(asyncio.CancelledError):
            await holding
        try:
            async with context.database.transaction(tenant_id) as tx:
                await repository.end_lease(tx, session_id, context.gateway_id)
        except CarrelError as error:  # it runs out
            _log.warning("lease_not_ended", session=str(session_id), code=error.code)
