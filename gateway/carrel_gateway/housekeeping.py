"""What has to be looked at now and then: objects and rows that a crash or a store that was away left behind.

Every gateway does it; each sweep takes what it finds in its own transactions, so two of them do not disturb each other.
"""

from __future__ import annotations

import asyncio
from typing import Final

import structlog

from carrel_gateway.artifacts.service import ArtifactService
from carrel_gateway.context import Principal, ProcessContext
from carrel_gateway.idempotency.service import IdempotencyService
from carrel_gateway.sessions.service import SessionService
from carrel_gateway.snapshots.service import SnapshotService

SWEEP_SECONDS: Final = 600.0
"""Leftovers harm nobody; they only take space."""

_log = structlog.get_logger(__name__)


async def sweep_for_ever(context: ProcessContext, principal: Principal) -> None:
    """Sweep at once, and then every `SWEEP_SECONDS`, until cancelled."""
    while True:
        try:
            sessions = await SessionService(context, principal).sweep()
            artifacts = await ArtifactService(context, principal).sweep()
            contents = await SnapshotService(context, principal).sweep()
            keys = await IdempotencyService(context, principal).sweep()
            if sessions or artifacts or contents or keys:
                _log.info("swept", sessions=sessions, artifacts=artifacts, contents=contents, keys=keys)
        except Exception:  # noqa: BLE001 - the next sweep must come
            _log.exception("not swept")
        await asyncio.sleep(SWEEP_SECONDS)
