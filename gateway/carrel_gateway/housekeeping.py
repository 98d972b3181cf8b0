"""What has to be looked at now and then, as jobs: what is older than any is kept, and what faults left behind.

Each kind does one thing for one tenant, or for the installation where a part of it must be asked as a whole. What
fails is tried again by itself, and keeps nothing else from its turn. Doing something twice has no second effect.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, TypeAlias
from uuid import UUID

import structlog

from carrel_gateway.accounts.parts import Parts as AccountParts
from carrel_gateway.accounts.service import LoginService
from carrel_gateway.artifacts.service import ArtifactService
from carrel_gateway.context import Principal, ProcessContext
from carrel_gateway.executors.base import SessionRef
from carrel_gateway.idempotency.service import IdempotencyService
from carrel_gateway.identity.service import DEFAULT_TENANT_ID, DEFAULT_USER_ID
from carrel_gateway.identity.tenants import all_tenants, worker_of
from carrel_gateway.jobs.model import Job, Kind, Work
from carrel_gateway.jobs.schedules import Schedule
from carrel_gateway.jobs.service import JobService
from carrel_gateway.quotas.service import QuotaService
from carrel_gateway.sessions.service import SessionService
from carrel_gateway.snapshots.service import SnapshotService
from carrel_gateway.uploads.service import UploadService

_HOUR: Final = 3600
_ROUNDS: Final = 50
"""A job goes on for so many batches; the next one goes on from there."""
_Sweep: TypeAlias = Callable[[Principal], Awaitable[int]]

SCHEDULES: Final = (
    Schedule("sessions.remove", 600),
    Schedule("kernels.release", 600, once=True),
    Schedule("sessions.expire", _HOUR),
    Schedule("artifacts.sweep", _HOUR),
    Schedule("uploads.sweep", _HOUR),
    Schedule("snapshots.sweep", _HOUR),
    Schedule("idempotency.sweep", _HOUR),
    Schedule("quotas.sweep", 6 * _HOUR),
    Schedule("workspaces.purge", _HOUR, once=True),
    Schedule("logins.sweep", 6 * _HOUR, once=True),
    Schedule("jobs.sweep", 6 * _HOUR),
)

_log = structlog.get_logger(__name__)


def kinds(context: ProcessContext, accounts: AccountParts) -> list[Kind]:
    """Return the kinds of jobs that `SCHEDULES` names."""
    sweeps: Mapping[str, _Sweep] = {
        "sessions.remove": lambda who: SessionService(context, who).sweep(),
        "sessions.expire": lambda who: SessionService(context, who).expire(),
        "artifacts.sweep": lambda who: ArtifactService(context, who).sweep(),
        "uploads.sweep": lambda who: UploadService(context, who).sweep(),
        "snapshots.sweep": lambda who: SnapshotService(context, who).sweep(),
        "idempotency.sweep": lambda who: IdempotencyService(context, who).sweep(),
        "quotas.sweep": lambda who: QuotaService(context, who).sweep(),
        "jobs.sweep": lambda who: JobService(context, who).sweep(),
    }

    async def sweep_logins(_: Job) -> dict[str, Any]:
        return {"removed": await LoginService(accounts).sweep()}

    async def release(_: Job) -> dict[str, Any]:
        return {"released": await _release_orphans(context)}

    async def purge(_: Job) -> dict[str, Any]:
        return {"purged": await _purge_workspaces(context)}

    return [
        *(Kind(name, _in_batches(sweep)) for name, sweep in sweeps.items()),
        Kind("logins.sweep", sweep_logins),
        Kind("kernels.release", release),
        Kind("workspaces.purge", purge),
    ]


def _in_batches(sweep: _Sweep) -> Work:
    async def work(job: Job) -> dict[str, Any]:
        removed = 0
        for _ in range(_ROUNDS):
            found = await sweep(worker_of(job.tenant_id))
            removed += found
            if not found:
                break
        return {"removed": removed}

    return work


async def _release_orphans(context: ProcessContext) -> int:
    """Give kernels back that were made while their session was being deleted: rows are there before kernels are.

    A row without a kernel is no fault: its session rests, and gets one when it is used.
    """
    made: dict[UUID, list[SessionRef]] = defaultdict(list)
    for ref in await context.executor.made_by_gateways():
        made[ref.tenant_id].append(ref)
    released = 0
    for tenant_id in await all_tenants(context.database) if made else ():
        orphans = await _unknown(context, tenant_id, made[tenant_id])
        for ref in orphans:
            await context.kernels.release(ref)
            _log.info("orphan_released", session=str(ref.session_id))
        released += len(orphans)
    return released


async def _unknown(context: ProcessContext, tenant_id: UUID, refs: list[SessionRef]) -> list[SessionRef]:
    known = await SessionService(context, worker_of(tenant_id)).known([ref.session_id for ref in refs])
    return [ref for ref in refs if ref.session_id not in known]


async def _purge_workspaces(context: ProcessContext) -> int:
    """Remove folders of sessions that no tenant has: a fault came between a session's row and its folder.

    Only beside an embedded database: over another one the folders may be those of sessions that it does not know.
    """
    found = set[UUID]()
    if not context.database.dialect.shared:
        found.update(await context.executor.old_workspaces())
    for tenant_id in await all_tenants(context.database) if found else ():
        found -= await SessionService(context, worker_of(tenant_id)).known(list(found))
    for session_id in found:
        await context.kernels.release(SessionRef(DEFAULT_TENANT_ID, session_id, DEFAULT_USER_ID))
        _log.info("workspace_purged", session=str(session_id))
    return len(found)
