"""`/api/jobs`: the background jobs of the tenant, for its administrators."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query

from carrel_gateway.dependencies import Cursor, Jobs
from carrel_gateway.idempotency.routes import IdempotentRoute
from carrel_gateway.jobs.model import Status
from carrel_gateway.jobs.schemas import JobList, JobOut
from carrel_gateway.jobs.service import Filter

router = APIRouter(prefix="/api/jobs", route_class=IdempotentRoute, tags=["administration"])


@router.get("")
async def list_jobs(
    jobs: Jobs,
    status: Status | None = None,
    kind: Annotated[str | None, Query(max_length=64)] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    cursor: Cursor = None,
) -> JobList:
    """List the background jobs of the tenant, newest first."""
    return JobList.model_validate(await jobs.list(Filter(status=status, kind=kind), limit=limit, cursor=cursor))


@router.get("/{job_id}")
async def get_job(job_id: UUID, jobs: Jobs) -> JobOut:
    """Return a background job."""
    return JobOut.model_validate(await jobs.get(job_id))


@router.post("/{job_id}/retry")
async def retry_job(job_id: UUID, jobs: Jobs) -> JobOut:
    """Queue a job again that is dead or was cancelled, with all of its attempts before it."""
    return JobOut.model_validate(await jobs.retry(job_id))


@router.post("/{job_id}/cancel")
async def cancel_job(job_id: UUID, jobs: Jobs) -> JobOut:
    """Cancel a queued job, or have a running one stopped, which takes a moment."""
    return JobOut.model_validate(await jobs.cancel(job_id))
