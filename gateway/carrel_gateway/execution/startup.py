"""What a gateway that starts owes to the sessions of the one before it: their output, read on without being asked.

Only where this gateway alone looks after the hosts (`local`). On a cluster a session is read on by whoever uses it next
or takes its run over.
"""

from __future__ import annotations

import asyncio
from typing import Final

import structlog

from carrel_gateway.context import Principal, ProcessContext
from carrel_gateway.errors import CarrelError, NotFound
from carrel_gateway.execution.service import ExecutionService
from carrel_gateway.executors.base import SessionRef
from carrel_gateway.sessions.service import SessionService

_AT_ONCE: Final = 4
"""A host that is dead and owes something is started, which takes a second of one processor."""

PATIENCE_SECONDS: Final = 20.0
"""A host that answers nothing, or a history that takes nothing, holds the start up for so long at most."""

_log = structlog.get_logger(__name__)


async def recover_left_behind(context: ProcessContext) -> int:
    """Read on the sessions whose hosts outlived an earlier gateway; return how many were looked at.

    What is being recorded goes on when it takes longer; what was not looked at by then is read on when the session is
    used.
    """
    sessions = await context.executor.sessions()
    at_once = asyncio.Semaphore(_AT_ONCE)

    async def recover(session: SessionRef) -> None:
        async with at_once:
            await _recover(context, session)

    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            await asyncio.gather(*map(recover, sessions))
    except TimeoutError:
        _log.warning("recovery_goes_on", sessions=len(sessions))
    return len(sessions)


async def _recover(context: ProcessContext, ref: SessionRef) -> None:
    principal = Principal(ref.tenant_id, ref.owner_id)
    try:
        if await _is_active(SessionService(context, principal), ref):
            await ExecutionService(context, principal).recover(ref.session_id)
        else:  # deleted or archived while its host could not be ended
            await context.kernels.release(ref)
    except CarrelError as error:
        _log.warning("session_not_recovered", session=str(ref.session_id), code=error.code)


async def _is_active(sessions: SessionService, ref: SessionRef) -> bool:
    try:
        return (await sessions.get(ref.session_id)).status == "active"
    except NotFound:
        return False
