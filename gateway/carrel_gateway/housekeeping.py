"""What has to be looked at now and then: sessions that are older than any are kept, and what faults left behind.

Every gateway does it; each sweep takes what it finds in its own transactions, so two of them do not disturb each other.
"""

from __future__ import annotations

import asyncio
from typing import Final

import structlog

from carrel_gateway.accounts.parts import Parts as AccountParts
from carrel_gateway.accounts.service import LoginService
from carrel_gateway.artifacts.service import ArtifactService
from carrel_gateway.context import Principal, ProcessContext
from carrel_gateway.idempotency.service import IdempotencyService
from carrel_gateway.identity.tenants import all_tenants, worker_of
from carrel_gateway.sessions.service import SessionService
from carrel_gateway.snapshots.service import SnapshotService
from carrel_gateway.uploads.service import UploadService

SWEEP_SECONDS: Final = 600.0
"""Leftovers harm nobody; they only take space."""
ACCOUNTS_SECONDS: Final = 6 * 3600.0
"""What ended a month ago may as well be there some hours longer."""

_log = structlog.get_logger(__name__)


async def sweep_for_ever(context: ProcessContext) -> None:
    """Sweep all tenants at once, and then every `SWEEP_SECONDS`, until cancelled."""
    while True:
        try:
            for tenant_id in await all_tenants(context.database):
                await _sweep(context, worker_of(tenant_id))
        except Exception:  # noqa: BLE001 - the next sweep must come
            _log.exception("not swept")
        await asyncio.sleep(SWEEP_SECONDS)


async def _sweep(context: ProcessContext, principal: Principal) -> None:
    """Sweep one tenant; what fails there keeps no other one from its turn, and is done again the next time."""
    try:
        found = {
            "expired": await SessionService(context, principal).expire(),
            "sessions": await SessionService(context, principal).sweep(),
            "artifacts": await ArtifactService(context, principal).sweep(),
            "uploads": await UploadService(context, principal).sweep(),
            "contents": await SnapshotService(context, principal).sweep(),
            "keys": await IdempotencyService(context, principal).sweep(),
        }
    except Exception:  # noqa: BLE001 - the other tenants must have their turn
        _log.exception("not swept", tenant=str(principal.tenant_id))
        return
    if any(found.values()):
        _log.info("swept", tenant=str(principal.tenant_id), **found)


async def sweep_accounts(parts: AccountParts) -> None:
    """Sweep the logins of all tenants at once, and then every `ACCOUNTS_SECONDS`, until cancelled."""
    while True:
        try:
            logins = await LoginService(parts).sweep()
            if logins:
                _log.info("swept", logins=logins)
        except Exception:  # noqa: BLE001 - the next sweep must come
            _log.exception("logins not swept")
        await asyncio.sleep(ACCOUNTS_SECONDS)
