"""`/api/sessions/{id}/suspend`, `/resume`, `/fork`: state that outlives its kernel."""

from __future__ import annotations

from uuid import UUID

from fastapi import APIRouter, status

from carrel_gateway.dependencies import Suspensions
from carrel_gateway.idempotency.routes import IdempotentRoute
from carrel_gateway.suspension.schemas import ForkedOut, ForkIn, ResumedOut, SuspendedOut

router = APIRouter(route_class=IdempotentRoute, prefix="/api/sessions/{session_id}", tags=["sessions"])


@router.post("/suspend")
async def suspend_session(session_id: UUID, suspensions: Suspensions) -> SuspendedOut:
    """Save variables and files, and give the kernel back. What cannot be saved is named.

    Running code in the session resumes it. Nothing happens to a session that is suspended already.
    """
    return SuspendedOut.model_validate(await suspensions.suspend(session_id))


@router.post("/resume")
async def resume_session(session_id: UUID, suspensions: Suspensions) -> ResumedOut:
    """Give the session a kernel with its variables and files as they were, and say what could not be brought back."""
    return ResumedOut.model_validate(await suspensions.resume(session_id))


@router.post("/fork", status_code=status.HTTP_201_CREATED)
async def fork_session(session_id: UUID, suspensions: Suspensions, body: ForkIn | None = None) -> ForkedOut:
    """Open a session that begins with this one's history, files and state, and go separate ways from there."""
    return ForkedOut.model_validate(await suspensions.fork(session_id, title=body.title if body else None))
