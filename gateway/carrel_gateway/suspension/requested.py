"""One request of the platform to save a session, answered: as the session's own tenant and owner.

Whatever step this dies at, the request stays, and whoever answers it next begins with what it finds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias

from carrel_gateway.context import Principal, ProcessContext
from carrel_gateway.errors import Conflict, SessionBusy, Unavailable
from carrel_gateway.executors.base import Saved, SessionRef, SuspensionRequest
from carrel_gateway.identity.service import DEFAULT_TENANT_ID, DEFAULT_USER_ID
from carrel_gateway.sessions.leasing import leased
from carrel_gateway.sessions.service import Session, SessionService
from carrel_gateway.suspension.service import SuspensionService

IDLE = "Idle"
Answer: TypeAlias = Literal["suspended", "empty", "removed", "elsewhere"]
"""Saved and given up; nothing to save and given up; of no session any more; another gateway is at it."""

_IDLE_ATTEMPTS = 1
"""A cell that comes meanwhile says that the session is not idle."""
_ATTEMPTS = 3


async def answer(context: ProcessContext, request: SuspensionRequest, wanted: Callable[[], bool]) -> Answer:
    """Save the session and have its pod ended.

    Raises
    ------
    Conflict
        It is used: a cell or run is going on, a client is connected, or the request is not `wanted` any more.
    CarrelError
        Something that is needed is away. The session goes on.
    """
    tenant_id = request.tenant_id or DEFAULT_TENANT_ID
    known = SessionService(context, Principal(tenant_id, request.owner_id or DEFAULT_USER_ID))
    session = await known.recorded(request.session_id)
    if session is None:
        return await _unused(context, known, SessionRef(tenant_id, request.session_id, DEFAULT_USER_ID), request)
    async with leased(context, tenant_id, session.id) as mine:
        return await _save(context, session, request, wanted) if mine else "elsewhere"


async def _unused(
    context: ProcessContext, known: SessionService, ref: SessionRef, request: SuspensionRequest
) -> Answer:
    """Give up a pod of a session without a history: only gateways run code, and none of them has."""
    if request.tenant_id is not None or await known.is_known(request.session_id):
        return "removed"  # deleted: its AgentSession goes with it, or with the sweep
    service = SuspensionService(context, Principal(ref.tenant_id, ref.owner_id))
    if not await service.end_unused(ref, Saved()):
        raise await _not_now(context, ref)
    return "empty"


async def _save(
    context: ProcessContext, session: Session, request: SuspensionRequest, wanted: Callable[[], bool]
) -> Answer:
    ref = SessionRef(session.tenant_id, session.id, session.owner_id)
    if session.status != "active":  # archived while its host could not be ended
        await context.kernels.release(ref)
        return "removed"
    service = SuspensionService(context, Principal(session.tenant_id, session.owner_id))
    if session.suspended_at is not None:
        if not await service.finish(session):
            raise await _not_now(context, ref)
        return "suspended"
    connection = await context.kernels.find(ref)
    if connection is None:
        raise await _not_now(context, ref)
    if connection.endpoint.audience != request.pod_uid:
        raise Conflict("the session has another pod by now", code="not_wanted")
    state = await connection.state()
    if state.busy:
        raise Conflict("a cell is running; the session is suspended after its end", code="kernel_busy")
    if state.connections:
        raise SessionBusy("a client is connected to the kernel; it is suspended when the client is gone")
    await service.suspend(session.id, attempts=_IDLE_ATTEMPTS if request.reason == IDLE else _ATTEMPTS, wanted=wanted)
    return "suspended"


async def _not_now(context: ProcessContext, ref: SessionRef) -> Conflict | Unavailable:
    if await context.kernels.find(ref) is None:
        return Unavailable("no kernel host answers where the session's pod should be", code="no_kernel")
    return Conflict("the session is being used just now", code="kernel_busy")
